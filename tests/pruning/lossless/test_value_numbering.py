"""What is known of the positions of an axis: equal digests are equal slices, bounds hold, on every operator with a rule."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from axes.rules import samples
from axes.rules.conformance import DRAWS, draw, letters_of, same, stated, whole
from axes.rules.more_samples import MORE
from axes.rules.samples import Sample
from nets import parse
from onnxprune.axes.equation import Axis
from onnxprune.axes.factors import labels
from onnxprune.axes.node_axes import NodeAxes
from onnxprune.driver.prune import analyze
from onnxprune.ir.weights import Array
from onnxprune.pruning.lossless.value_numbering import OPAQUE, ValueNumbering
from onnxprune.runtime.session import Session, random_feeds
from onnxprune.shapes import candidates
from test_random_graphs import models

Change = Callable[[Array], Any]
"""Changes an array in place."""

LETTERS = [
    pytest.param(sample, letter, id=f"{sample.id}-{letter}")
    for sample in (*samples.SAMPLES, *MORE)
    if (sample.domain, sample.op) not in OPAQUE
    for letter in sorted({*letters_of(sample).free} - letters_of(sample).contracted)
]
"""Letters that pass through an operator: what the walk takes for granted is checked for each."""


def at(array: Array, node: NodeAxes, tensor: tuple[Axis, ...], letter: str, position: int) -> Array:
    """A mask of what belongs to one position of a letter."""
    mask = np.zeros(array.shape, bool)
    for axis, spelled in enumerate(tensor):
        if all(letter not in block for block in spelled):
            continue
        found = labels(node.factor(spelled), node.letters[letter]) == position
        mask |= found.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    return mask


def moved(sample: Sample, letter: str, inputs: list[Array | None], others: list[Array | None], source: int) -> list[Array | None]:
    """Inputs whose position 1 of a letter is what ``others`` have at ``source``."""
    node = stated(sample)
    assert isinstance(node, NodeAxes)
    found = []
    for number, (value, other) in enumerate(zip(inputs, others, strict=True)):
        tensor = node.equation.inputs[number] if number < len(node.equation.inputs) else ()
        if value is None or other is None or not isinstance(sample.inputs[number], str):
            found.append(value)
            continue
        value = value.copy()
        value[at(value, node, tensor, letter, 1)] = other[at(other, node, tensor, letter, source)]
        found.append(value)
    return found


def edited(model: ModelProto, **changes: Change) -> ModelProto:
    """A model with some weights changed, each by a function of its array."""
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            array = numpy_helper.to_array(tensor).copy()
            changes[tensor.name](array)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def fill(index: Any, value: float = 0) -> Change:
    """Set entries."""
    return lambda array: array.__setitem__(index, value)


def copy(target: Any, source: Any) -> Change:
    """Copy rows."""
    return lambda array: array.__setitem__(target, array[source])


def degraded(model: ModelProto, seed: int) -> ModelProto:
    """Weights as pruning by magnitude and careless training leave them: zeros, copies, filters that never fire."""
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if array.dtype != np.float32 or not array.ndim or (array == array.round()).all():
            continue  # sizes and scales are no weights
        for _ in range(rng.integers(0, 4)):
            rows = np.moveaxis(array, rng.integers(0, min(array.ndim, 2)), 0)
            one, other = rng.integers(0, len(rows), 2)
            match 1 if array.ndim == 1 and (array > 0).all() else rng.integers(0, 4):  # variances stay positive
                case 0:
                    rows[one] = 0
                case 1:
                    rows[one] = rows[other]
                case 2:
                    rows[one] = -np.abs(rows[one])
                case _:
                    rows[one] = 0.5
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


@pytest.mark.parametrize(("sample", "letter"), LETTERS)
def test_equal_positions_have_equal_results_and_do_not_read_each_other(sample: Sample, letter: str) -> None:
    node = stated(sample)
    assert isinstance(node, NodeAxes)
    outputs = [axes for i, axes in enumerate(node.equation.outputs) if i not in sample.absent]
    for how, other in itertools.pairwise(DRAWS):
        inputs, others = draw(sample, how), draw(sample, other)
        twice = moved(sample, letter, inputs, inputs, 0)
        for y, axes in zip(whole(sample)(twice), outputs, strict=False):
            assert same(y[at(y, node, axes, letter, 0)], y[at(y, node, axes, letter, 1)]), "equal inputs, other results"
        before, after = whole(sample)(inputs), whole(sample)(moved(sample, letter, inputs, others, 1))
        for y, z, axes in zip(before, after, outputs, strict=False):
            rest = ~at(y, node, axes, letter, 1)
            assert same(y[rest], z[rest]), "another position changed with it"


@pytest.mark.parametrize(("domain", "op"), sorted(OPAQUE))
def test_opaque_operators_are_no_such_operators(domain: str, op: str) -> None:
    """They are listed because they break the law."""
    for sample in (*samples.SAMPLES, *MORE):
        if (sample.domain, sample.op) != (domain, op):
            continue
        for letter in {*letters_of(sample).free} - letters_of(sample).contracted:
            with contextlib.suppress(AssertionError):
                test_equal_positions_have_equal_results_and_do_not_read_each_other(sample, letter)
                continue
            return
    pytest.fail(f"{op} obeys the law: it need not be opaque")


def check_claims(model: ModelProto) -> None:
    """Slices with one digest are equal, whichever values they are of; entries are within their bounds."""
    found = analyze(model)
    values = ValueNumbering(found.model, found.coupling)
    claims = dict(values.known())
    names = list(dict.fromkeys(name for name, _ in claims if name not in found.model.weights))
    if not names:
        return
    session = Session(found.model, names, optimize=False)
    for number, sizes in enumerate(candidates.bindings(found.model.inputs)):
        results = dict(zip(names, session.run(random_feeds(found.model.inputs, sizes, number)), strict=True))
        seen: dict[int, Array] = {}
        for (name, axis), slices in claims.items():
            rows = np.moveaxis(results[name], axis, 0).astype(np.float64)
            slack = 1e-5 * max(np.abs(rows).max(initial=0), 1)
            flat = rows.reshape(len(rows), -1)
            assert (flat.min(1) >= slices.low - slack).all(), f"{name}:{axis} is below its bounds"
            assert (flat.max(1) <= slices.high + slack).all(), f"{name}:{axis} is above its bounds"
            for digest, row, constant in zip(slices.digest.tolist(), rows, slices.constant, strict=True):
                if not constant:
                    np.testing.assert_allclose(row, seen.setdefault(digest, row), atol=slack, err_msg=f"{name}:{axis}")


@settings(max_examples=60)
@given(models(), st.integers(0, 2**16))
def test_claims_hold_on_every_input(model: ModelProto, seed: int) -> None:
    check_claims(degraded(model, seed))


TRAPS: dict[str, tuple[str, dict[str, Change]]] = {}
"""Nets in which something looks equal, or constant, and is not."""
TRAPS["a border of zeros under what is never zero"] = (
    """(float[N,3,6,6] x) => (float[N,2,6,6] y)
    <float[4,3,1,1] w, float low = {1.0}, float high = {6.0}, float[4,4,3,3] v, float[2,4,1,1] o> {
      a = Conv(x, w)
      c = Clip(a, low, high)
      b = Conv<pads = [1,1,1,1]>(c, v)
      d = Clip(b, low, high)
      y = Conv(d, o)
    }""",
    {"v": fill(slice(None), 0.1)},
)
TRAPS["one channel of two groups with other neighbours"] = (
    """(float[N,3,6,6] x) => (float[N,2,6,6] y)
    <float[4,3,1,1] w, float[4] s, float[4] b, float[6,4,1,1] v, float[2,6,1,1] o> {
      a = Conv(x, w)
      n = GroupNormalization<num_groups = 2>(a, s, b)
      c = Conv(n, v)
      y = Conv(c, o)
    }""",
    {"w": copy(2, 0), "s": fill(slice(None), 1), "b": fill(slice(None), 0)},
)
TRAPS["one channel of two norms with other neighbours"] = (
    """(float[N,3,6,6] x) => (float[N,2,6,6] y)
    <float[4,3,1,1] w, float[4,3,1,1] v, float[2,8,1,1] o> {
      a = Conv(x, w)
      ra = Relu(a)
      n = LpNormalization<axis = 1>(ra)
      b = Conv(x, v)
      rb = Relu(b)
      m = LpNormalization<axis = 1>(rb)
      c = Concat<axis = 1>(n, m)
      y = Conv(c, o)
    }""",
    {"w": fill(0, 0.5), "v": fill(0, 0.5)},
)
TRAPS["rows and columns that two tables share"] = (
    """(float[N,3,6,6] x) => (float[N,2,6,6] y)
    <float[4,3,1,1] w, float[4,3,1,1] v, int64[5] apart = {0,2,2,6,6}, int64[4] flat = {0,4,6,6}, float[2,8,1,1] o> {
      a = Conv(x, w)
      ta = Reshape(a, apart)
      fa = Reshape(ta, flat)
      b = Conv(x, v)
      tb = Reshape(b, apart)
      fb = Reshape(tb, flat)
      c = Concat<axis = 1>(fa, fb)
      y = Conv(c, o)
    }""",
    {"w": lambda w: table(w, 1, 2, 2, 3), "v": lambda v: table(v, 4, 1, 1, 2)},
)
TRAPS["one row of two kernels of other shapes"] = (
    """(float[N,3,6,6] x) => (float[N,2,A,B] y, float[N,2,C,D] z)
    <float[4,3,1,3] w, float[4,3,3,1] v, float[2,4,1,1] o, float[2,4,1,1] p> {
      a = Conv(x, w)
      b = Conv(x, v)
      y = Conv(a, o)
      z = Conv(b, p)
    }""",
    {"w": fill(0, 0.5), "v": fill(0, 0.5)},
)
TRAPS["one row with two strides"] = (
    """(float[N,3,6,6] x) => (float[N,2,A,B] y, float[N,2,C,D] z)
    <float[4,3,1,1] w, float[4,3,1,1] v, float[2,4,1,1] o, float[2,4,1,1] p> {
      a = Conv(x, w)
      b = Conv<strides = [2,2]>(x, v)
      y = Conv(a, o)
      z = Conv(b, p)
    }""",
    {"w": fill(0, 0.5), "v": fill(0, 0.5)},
)
TRAPS["one row on both sides of the data"] = (
    """(float[4,4] x) => (float[2,4] y, float[4,2] z) <float[4,4] w, float[4,4] v, float[2,4] o, float[4,2] p> {
      a = MatMul(w, x)
      b = MatMul(x, v)
      y = MatMul(o, a)
      z = MatMul(b, p)
    }""",
    {"w": fill(0, 0.5), "v": fill((slice(None), 0), 0.5)},
)
TRAPS["the batches of two halves"] = (
    """(float[N,3,6,6] x) => (float[N,2,6,6] y) <float[4,3,1,1] w, int64[2] parts = {3,3}, float[2,8,1,1] o> {
      a = Conv(x, w)
      l, r = Split<axis = 3>(a, parts)
      c = Concat<axis = 1>(l, r)
      d = Concat<axis = 3>(c, c)
      y = Conv(d, o)
    }""",
    {},
)
TRAPS["biases that differ"] = (
    """(float[N,3] x) => (float[N,2] y) <float[3,4] w, float[4] b, float[4,2] o> {
      a = Gemm(x, w, b)
      y = MatMul(a, o)
    }""",
    {"w": fill(slice(None), 0.5)},
)
TRAPS["a border of another number"] = (
    """(float[N,3,6,6] x) => (float[N,2,8,8] y)
    <float[4,3,1,1] w, float[4] b, int64[8] pads = {0,0,1,1,0,0,1,1}, float[2,4,1,1] o> {
      a = Conv(x, w, b)
      p = Pad(a, pads)
      y = Conv(p, o)
    }""",
    {"w": fill(1), "b": fill(1, 2)},
)
TRAPS["an average over a border"] = (
    """(float[N,3,6,6] x) => (float[N,2,6,6] y) <float[4,3,1,1] w, float[4] b, float[2,4,1,1] o> {
      a = Conv(x, w, b)
      p = AveragePool<kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1>(a)
      y = Conv(p, o)
    }""",
    {"w": fill(1), "b": fill(1, 2)},
)


def table(array: Array, *filters: int) -> None:
    """Filters by number: equal numbers, equal filters."""
    for row, number in zip(array, filters, strict=True):
        row[:] = np.random.default_rng(number).standard_normal(row.shape)


@pytest.mark.parametrize("name", TRAPS)
def test_what_looks_equal_is_not(name: str) -> None:
    text, changes = TRAPS[name]
    check_claims(edited(parse(text, 21), **changes))


def digests(text: str, *values: str, **changes: Change) -> list[list[int]]:
    """Which positions of some values are claimed to be equal: each by the first one that it equals."""
    found = analyze(edited(parse(text), **changes))
    claimed = ValueNumbering(found.model, found.coupling)
    every = [claimed.along(value, 1).digest.tolist() for value in values]
    return [[next(i for i, other in enumerate(every[0] + every[-1]) if other == digest) for digest in part] for part in every]


def test_equal_filters_of_two_layers_are_equal_whatever_else_the_layers_hold() -> None:
    text = """(float[N,3,6,6] x) => (float[N,2,6,6] y) <float[4,3,1,1] w, float[3,3,1,1] v, float[2,7,1,1] o> {
      a = Conv(x, w)
      b = Conv(x, v)
      ra = Sigmoid(a)
      rb = Sigmoid(b)
      c = Concat<axis = 1>(ra, rb)
      y = Conv(c, o)
    }"""
    found = digests(text, "c", w=fill(1, 0.5), v=fill([0, 2], 0.5))
    assert found == [[0, 1, 2, 3, 1, 5, 1]]


def test_weights_of_equal_data_are_summed_before_rows_are_compared() -> None:
    text = """(float[N,3,6,6] x) => (float[N,2,6,6] y) <float[4,3,1,1] w, float[5,4,1,1] v, float[2,5,1,1] o> {
      a = Conv(x, w)
      b = Conv(a, v)
      y = Conv(b, o)
    }"""

    def rows(v: Array) -> None:
        v[:, :, 0, 0] = [[1, 2, 3, 0], [1, 5, 0, 0], [1, 3, 2, 1], [1, 5, 0, 9], [2, 5, 0, 0]]

    assert digests(text, "b", w=copy(2, 1), v=rows) == [[0, 0, 2, 3, 4]]
    assert digests(text, "b", w=lambda w: (copy(2, 1)(w), fill(3)(w)), v=rows) == [[0, 0, 0, 0, 4]]  # of zeros nothing counts
