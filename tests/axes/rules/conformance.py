"""What a rule says of one node, and what ONNX Runtime computes: the machinery behind the law."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from axes.rules.samples import Sample
from onnxprune.axes import rules
from onnxprune.axes.equation import ANONYMOUS, Axis, AxisRule, expand_ellipses, solve
from onnxprune.axes.factors import Factor, index, labels, leaves, length, mask_outside, take
from onnxprune.axes.graph_axes import ranks
from onnxprune.axes.node_axes import NodeAxes, compose, pick_listed
from onnxprune.axes.rules.registry import Reason, Refused
from onnxprune.errors import RuleError
from onnxprune.ir.model import Model
from onnxprune.ir.node import NodeView
from onnxprune.ir.weights import Array
from onnxprune.runtime import session
from onnxprune.shapes.size_arithmetic import small_constants

Positions = npt.NDArray[np.int64]
DRAWS = ("mixed", "negative", "positive")
DTYPES = {"bool": TensorProto.BOOL, "i64": TensorProto.INT64, "i32": TensorProto.INT32, "u8": TensorProto.UINT8}
DTYPES |= {"i8": TensorProto.INT8, "f16": TensorProto.FLOAT16}


def draw(sample: Sample, how: str) -> list[Array | None]:
    """Inputs of a sample, seeded, never exactly zero; ``how`` is the sign of those that may have either."""
    rng = np.random.default_rng(zlib.crc32(f"{sample.id} {how}".encode()))
    drawn: list[Array | None] = []
    for given in sample.inputs:
        if not isinstance(given, str):
            drawn.append(given)
            continue
        shape, kind = sample.shape(given)
        drawn.append(_values(rng, shape, kind, how))
    return drawn


def _values(rng: np.random.Generator, shape: tuple[int, ...], kind: str, how: str) -> Array:
    size = rng.uniform(0.5, 1.5, shape)
    signs: dict[str, Any] = {"mixed": rng.choice([-1, 1], shape), "negative": -1, "positive": 1}
    sign = signs[how]
    match kind:
        case "bool":
            return rng.integers(0, 2, shape).astype(bool) if how == "mixed" else np.full(shape, how == "positive")
        case "u8" | "i8" | "i32" | "i64":
            return rng.integers(1, 5, shape).astype(helper.tensor_dtype_to_np_dtype(DTYPES[kind]))
        case "i8 zero":
            return np.zeros(shape, np.int8)
        case "positive":
            return size.astype(np.float32)
        case "above one":
            return (size + 1).astype(np.float32)
        case "small":
            return np.asarray(size * sign / 2, np.float32)
        case "f16":
            return np.asarray(size * sign, np.float16)
        case _:
            return np.asarray(size * sign * 2, np.float32)


def build(sample: Sample, inputs: Sequence[Array | None], node: NodeAxes | None = None, counts: Any = None) -> ModelProto:
    """A model of one node: arrays of the sample are constants, the rest are graph inputs."""
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(inputs)]
    attrs = dict(sample.attrs)
    if node is not None:
        attrs |= {name: _respell(spelled, node, counts) for name, spelled in node.rule.attrs.items()}
    outputs = [f"y{i}" if i not in sample.absent else "" for i in range(sample.outputs)]
    proto = helper.make_node(sample.op, names, outputs, name="node", domain=sample.domain, **attrs)
    values, constants = [], []
    for name, given, value in zip(names, sample.inputs, inputs, strict=True):
        if value is None:
            continue
        if isinstance(given, str):
            values.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape))
        else:
            constants.append(numpy_helper.from_array(value, name))
    graph = helper.make_graph(
        [proto], "sample", values, [helper.make_empty_tensor_value_info(y) for y in outputs if y], constants
    )
    opsets = [helper.make_opsetid("", sample.opset)]
    if sample.domain:
        opsets.append(helper.make_opsetid(sample.domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _respell(spelled: Any, node: NodeAxes, counts: Mapping[Factor, int]) -> Any:
    if isinstance(spelled, list):
        return [_respell(item, node, counts) for item in spelled]
    return length(node.factor(spelled), counts) if isinstance(spelled, tuple) else spelled


@cache
def stated(sample: Sample) -> NodeAxes | Refused:
    """What the rule says of a sample: read as the coupling reads it, with the shapes that ONNX Runtime finds."""
    given = draw(sample, "positive")
    model = Model.of(build(sample, given))
    shapes = {f"x{i}": value.shape for i, value in enumerate(given) if value is not None}
    shapes |= dict(zip(filter(None, model.graph.node[0].output), [y.shape for y in whole(sample)(given)], strict=True))
    view = NodeView(model.graph.node[0], shapes, small_constants(model), {}, model.opset_of(sample.domain))
    function = rules.find(sample.domain, sample.op)
    assert function is not None, f"there is no rule for {sample.domain or 'ai.onnx'}::{sample.op}"
    inputs, outputs = ([shapes[v] if v else None for v in side] for side in (view.inputs, view.outputs))
    rule = function(view)
    if isinstance(rule, Refused):
        return rule
    try:
        equation = expand_ellipses(rule.equation, (ranks(inputs), ranks(outputs)))
        sizes = solve(equation, rule.sizes, inputs, outputs)
    except RuleError as error:
        return Refused(str(error), Reason.CONTRADICTION)
    letters = {letter: Factor(size) for letter, size in sizes.items()}
    lists = {at: value for at, value in enumerate(given) if value is not None and not isinstance(sample.inputs[at], str)}
    pick_listed(equation, letters, lists, "a list")
    return NodeAxes(0, view, rule, equation, letters, sizes)


@dataclass(frozen=True)
class Letters:
    """The letters of a sample that its tensors carry and that have more than one position, by role."""

    free: tuple[str, ...]
    mix: tuple[str, ...]
    contracted: frozenset[str]
    """Those that the operator sums over, where the coupling asks for zeros."""


@cache
def letters_of(sample: Sample) -> Letters:
    node = stated(sample)
    if isinstance(node, Refused):
        return Letters((), (), frozenset())
    tensors = (*node.equation.inputs, *node.equation.outputs)
    carried = dict.fromkeys(f for tensor in tensors for axis in tensor for block in axis for f in block)
    named = carried.keys() - {ANONYMOUS, *node.rule.fixed, *node.equation.picks}
    usable = [f for f in carried if f in named and node.sizes[f] > 1]
    free, mixed = (tuple(f for f in usable if (f in node.rule.mix) is wanted) for wanted in (False, True))
    return Letters(free, mixed, node.equation.contracted | node.rule.sums)


def subsets(size: int) -> list[Positions]:
    """The first half, every other position from the second on, and the last one."""
    wanted = [np.arange((size + 1) // 2), np.arange(1, size, 2), np.array([size - 1])]
    return list({tuple(s): s for s in wanted}.values())


class Cut:
    """A sample with some positions of one letter kept: its tensors masked, its node sliced."""

    def __init__(self, sample: Sample, letter: str, kept: Positions) -> None:
        node = stated(sample)
        assert isinstance(node, NodeAxes)
        self.sample, self.node, self.letter = sample, node, letter
        factor = node.letters[letter]
        below = {leaf: np.unique(labels(factor, leaf)[kept]) for leaf in leaves(factor)}
        ranks = {leaf: found[found >= 0] for leaf, found in below.items()}
        self.keep = {leaf: found if len(found) else np.arange(1) for leaf, found in ranks.items()}
        self.counts = {leaf: len(found) for leaf, found in self.keep.items()}
        self.rule: AxisRule = node.rule
        self.outputs = [axes for i, axes in enumerate(node.equation.outputs) if i not in sample.absent]

    def _indices(self, tensor: Sequence[Axis]) -> tuple[Positions | None, ...]:
        moved = {self.letter, *(letter for letter, (source, _) in self.node.equation.picks.items() if source == self.letter)}
        return tuple(
            index(compose(axis, self.node.letters), self.keep) if any(moved & {*block} for block in axis) else None
            for axis in tensor
        )

    def masked(self, inputs: Sequence[Array | None], at: Collection[int]) -> list[Array | None]:
        """Inputs with zeros at the removed positions of those in ``at``."""
        result = list(inputs)
        for position, tensor in enumerate(self.node.equation.inputs):
            value = result[position] if position < len(result) else None
            if value is not None and position in at and position not in self.rule.sizes_at:
                indices = self._indices(tensor)
                drawn = isinstance(self.sample.inputs[position], str)
                assert drawn or not any(kept is not None for kept in indices), "what carries a letter must be drawn"
                result[position] = mask_outside(value, indices, self._zero_point(inputs, position))
        return result

    def _zero_point(self, inputs: Sequence[Array | None], position: int) -> Array | None:
        """What stands for zero in an input: not 0 where it is quantized with one zero point for the tensor."""
        at = self.rule.quantized.get(position, (-1, -1))[1]
        point = inputs[at] if 0 <= at < len(inputs) else None
        return point if point is not None and point.ndim == 0 else None

    def sliced(self, inputs: Sequence[Array | None]) -> list[Array | None]:
        """Inputs without the removed positions, sizes in them refreshed."""
        result = list(inputs)
        for position, tensor in enumerate(self.node.equation.inputs):
            value = result[position] if position < len(result) else None
            if value is not None and position not in self.rule.sizes_at:
                result[position] = take(value, self._indices(tensor))
        for position, entries in self.rule.sizes_at.items():
            value = result[position] if position < len(result) else None
            if value is not None:
                spelled = value.copy()
                for entry, axis in enumerate(entries):
                    if axis is not None and axis != ((),):
                        spelled.reshape(-1)[entry] = length(self.node.factor(axis), self.counts)
                result[position] = spelled
        lists = {at: value for at, value in enumerate(inputs) if value is not None}
        for position, listed in self.node.relisted(lists, self.keep).items():
            result[position] = listed
        return result

    def sliced_outputs(self, outputs: Sequence[Array]) -> list[Array]:
        return [take(y, self._indices(axes)) for y, axes in zip(outputs, self.outputs, strict=False)]

    def removed(self, outputs: Sequence[Array]) -> list[Array]:
        """For each output its values at the removed positions."""
        found = []
        for y, axes in zip(outputs, self.outputs, strict=False):
            kept = mask_outside(np.ones(y.shape, bool), self._indices(axes))
            found.append(y[~kept])
        return found

    def carriers(self) -> tuple[int, ...]:
        """Inputs that carry the letter."""
        places = self.node.equation.carriers.get(self.letter, ())
        present = [at for at, _ in places if at < len(self.node.view.inputs) and self.node.view.inputs[at]]
        return tuple(dict.fromkeys(present))

    def claims_zero(self) -> Iterator[frozenset[int]]:
        """The smallest sets of inputs whose zeros make every output zero at removed positions, as the rule's clauses say."""
        carrying = self.carriers()
        if self.rule.zero is None:
            yield frozenset(carrying)
            return
        count = len(self.node.view.inputs)
        choices = []
        for clause in self.rule.zero:
            if clause and all(at >= count or not self.node.view.inputs[at] for at in clause):
                continue
            choices.append([at for at in clause if at in carrying])
        yield from map(frozenset, itertools.product(*choices))

    def claims_drop(self) -> Iterator[frozenset[int]]:
        """The smallest sets of inputs whose zeros let the terms of a sum over the letter vanish."""
        carrying = self.carriers()
        clauses = [tuple(carrying)] if self.rule.zero is None else [c for c in self.rule.zero if set(carrying) & set(c)]
        yield from map(frozenset, itertools.product(*([at for at in clause if at in carrying] for clause in clauses)))


class Runner:
    """ONNX Runtime for a sample, whole or cut; one session for all draws."""

    def __init__(self, sample: Sample, inputs: Sequence[Array | None], cut: Cut | None = None) -> None:
        proto = build(sample, inputs, *(() if cut is None else (cut.node, cut.counts)))
        self.sample = sample
        self.session = session.inference_session(proto, sample.id, optimize=False)

    def __call__(self, inputs: Sequence[Array | None]) -> list[Array]:
        pairs = zip(self.sample.inputs, inputs, strict=True)
        feeds = {f"x{i}": value for i, (given, value) in enumerate(pairs) if isinstance(given, str)}
        results: list[Array] = self.session.run(None, feeds)
        return results


@lru_cache(maxsize=512)
def whole(sample: Sample) -> Runner:
    return Runner(sample, draw(sample, "positive"))


def same(a: Array, b: Array) -> bool:
    """Equal to float tolerance (of the largest value, as sums cancel), and of one shape."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    rtol = 2e-3 if a.dtype == np.float16 else 1e-5
    largest = float(np.max(np.abs(b), initial=1, where=np.isfinite(b)))
    return bool(np.allclose(a, b, rtol=rtol, atol=rtol * largest, equal_nan=True))
