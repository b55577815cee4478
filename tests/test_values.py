"""What is known of the positions of an axis: equal digests are equal slices, bounds hold, on every operator with a rule."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from onnxprune import runtime, shapes
from onnxprune.api import analyze
from onnxprune.axes import labels
from onnxprune.coupling import NodeAxes
from onnxprune.equation import Axis
from onnxprune.values import OPAQUE, Values
from onnxprune.weights import Array
from rules import samples
from rules.conformance import DRAWS, draw, letters_of, same, stated, whole
from rules.more_samples import MORE
from rules.samples import Sample
from test_random_graphs import models

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


@settings(max_examples=60)
@given(models(), st.integers(0, 2**16))
def test_claims_hold_on_every_input(model: ModelProto, seed: int) -> None:
    """Slices with one digest are equal, whichever values they are of; entries are within their bounds."""
    found = analyze(degraded(model, seed))
    values = Values(found.model, found.coupling)
    claims = dict(values.known())
    names = list(dict.fromkeys(name for name, _ in claims if name not in found.model.weights))
    if not names:
        return
    session = runtime.Session(found.model, names, optimize=False)
    for number, sizes in enumerate(shapes.bindings(found.model.inputs)):
        results = dict(zip(names, session.run(runtime.random_feeds(found.model.inputs, sizes, number)), strict=True))
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
