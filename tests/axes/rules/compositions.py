"""Graphs composed of conformance samples.

The samples know nothing of each other: adapters produce what the inputs of the next one ask for. Most come from weights along
every axis, so that every axis may be pruned; where a shape fits, a value is also taken as it is, turned, or viewed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from axes.rules.conformance import draw, letters_of, stated, whole
from axes.rules.more_samples import MORE
from axes.rules.samples import SAMPLES, Sample
from onnxprune.axes.node_axes import NodeAxes
from onnxprune.ir.weights import Array
from test_random_graphs import Net

__all__ = ["COMPOSED", "Composer", "compose", "deals", "pool"]

READS_SIZES = {"Shape", "Size"}
WILD = {"Exp", "Sinh", "Cosh", "Tan", "Pow", "ReduceProd", "CumProd", "Softplus", "Reciprocal", "Div", "Mod"}
"""Operators whose outputs are bounded before anything reads them: rounding would grow with what they blow up."""
DENOMINATORS = {("Reciprocal", 0), ("Div", 1), ("Mod", 1)}
"""Inputs that must stay away from zero, for the same reason."""
KINDS = ("", "positive", "small", "above one", "f16", "bool", "u8")
"""Kinds of inputs that a value can be made into; others are constants."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A float32 tensor of the graph."""

    name: str
    shape: Shape


def sources(sample: Sample) -> list[int]:
    """Inputs of a sample that a computed value can be put on."""
    drawn = [(at, given) for at, given in enumerate(sample.inputs) if isinstance(given, str) and at not in sample.weights]
    return [at for at, given in drawn if Sample.shape(given)[1] in KINDS]


LEFT_OUT = {
    "Pad@18-axes": "between transposes, an optimisation of ONNX Runtime 1.31 reads axes that are not there",
    **dict.fromkeys(
        ("QuantizeLinear-blocks", "DequantizeLinear-blocks", "DequantizeLinear-short-block", "DequantizeLinear-inner-blocks"),
        "beside a transpose, an optimisation of ONNX Runtime 1.31 moves it past the data and not past the scales",
    ),
}
"""Samples that ONNX Runtime does not compute in company."""

COMPOSED = [
    sample
    for sample in (*SAMPLES, *MORE)
    if sample.op not in READS_SIZES and sample.id not in LEFT_OUT and sources(sample) and letters_of(sample).free
]
"""Samples that compute something from something, along an axis that may be pruned."""


def pool(opset: int) -> list[Sample]:
    """Samples that one graph may hold: those of its operator set."""
    return [sample for sample in COMPOSED if sample.opset == opset]


class Composer(Net):
    """A graph under construction, of values of any shape."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        super().__init__(draw)
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 5, 3])]
        self.live = [Value("x", (2, 5, 3))]
        self.read: set[str] = set()

    def take(self) -> Value:
        """The newest value, or any other."""
        value: Value = self.pick(*self.live[::-1])
        self.read.add(value.name)
        return value

    def shaped(self, value: Value, shape: Shape, *axes: int) -> str:
        """A value turned, then read in another shape."""
        turned = self.node("Transpose", value.name, perm=list(axes)) if list(axes) != sorted(axes) else value.name
        before = tuple(value.shape[axis] for axis in axes) if axes else value.shape
        return str(turned if before == shape else self.node("Reshape", turned, self.const(list(shape))))

    def fit(self, value: Value, shape: Shape) -> str:
        """A value of another shape, made from this one in one of the ways that there are."""
        ways = ["dense", "dense"]
        if value.shape == shape:
            ways.append("as it is")
        if math.prod(value.shape) == math.prod(shape):
            ways.append("viewed")
        if sorted(value.shape) == sorted(shape):
            ways.append("turned")
        if len(shape) == len(value.shape) == 4 and value.shape[:1] + value.shape[2:] == shape[:1] + shape[2:]:
            ways.append("convolved")
        way = self.pick(*ways)
        if way == "dense":
            return self.dense(value, shape)
        if way == "convolved":
            return self.conv(value.name, value.shape[1], shape[1], bias=self.pick(True, False))
        if way == "turned":
            perms = [p for p in itertools.permutations(range(len(shape))) if tuple(value.shape[a] for a in p) == shape]
            return self.shaped(value, shape, *self.pick(*perms))
        return self.shaped(value, shape)

    def dense(self, value: Value, shape: Shape) -> str:
        """Products from both sides: every axis of the result comes from weights."""
        rank, to = len(value.shape), self.pick(*range(max(len(shape), 1)))
        at = self.pick(*range(rank)) if rank else 0
        width, out = (value.shape or (1,))[at], (shape or (1,))[to]
        rest, others = math.prod(value.shape) // width, (*shape[:to], *shape[to + 1 :])
        axes = [axis for axis in range(rank) if axis != at] + [at] * bool(rank)
        flat = self.shaped(value, (rest, width), *axes)
        made = self.node("MatMul", flat, self.matrix(width, out, width))
        rows = math.prod(others)
        if rows != rest or self.pick(True, False):
            made = self.node("MatMul", self.matrix(rows, rest, rest), made)
        result = Value(made, (rows, out))
        return self._placed(result, others, to) if shape else self.shaped(result, ())

    def matrix(self, rows: int, columns: int, inner: int) -> str:
        """Weights that keep magnitudes when a product runs over ``inner`` terms."""
        return self.const(self.rng.standard_normal((rows, columns)) / np.sqrt(inner), np.float32)

    def integers(self, shape: Shape) -> str:
        """Bytes from an input of bytes; one of their axes comes from weights."""
        to, name = self.pick(*range(len(shape))), f"q{len(self.inputs)}"
        others = (*shape[:to], *shape[to + 1 :])
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, [math.prod(others), 5]))
        weights = self.const(self.rng.integers(1, 5, (5, shape[to])), np.uint8)
        made = self.node("Cast", self.node("MatMulInteger", name, weights), to=TensorProto.UINT8)
        return self._placed(Value(made, (math.prod(others), shape[to])), others, to)

    def _placed(self, value: Value, others: Shape, to: int) -> str:
        """Rows and columns as a tensor: the rows are the other axes, the columns axis ``to``."""
        apart = self.shaped(value, (*others, value.shape[1]))
        back = [*range(to), len(others), *range(to, len(others))]
        return str(self.node("Transpose", apart, perm=back)) if to < len(others) else apart

    def typed(self, name: str, kind: str) -> str:
        """A value mapped into the range of a kind of input, or cast to its type."""
        if kind in {"positive", "above one"}:
            return str(self.node("Add", self.node("Abs", name), self.const(1.5, np.float32)))
        if kind == "small":
            return str(self.node("Mul", self.node("Tanh", name), self.const(0.5, np.float32)))
        if kind == "bool":
            return str(self.node("Greater", name, self.const(0, np.float32)))
        return str(self.node("Cast", name, to=TensorProto.FLOAT16)) if kind == "f16" else name

    def through(self, name: str) -> str:
        """A value with its zeros, or without."""
        function = self.pick("", "", "Tanh", "Sigmoid")
        return str(self.node(function, name)) if function else name

    def add(self, sample: Sample) -> None:
        """A sample on the values that there are; its outputs are values, too."""
        drawn, possible = draw(sample, "mixed"), sources(sample)
        computed = {at for at in possible if at == possible[0] or self.pick(True, False)}
        names = [self._input(sample, at, drawn[at]) if at in computed else self._constant(drawn[at]) for at in range(len(drawn))]
        number = len(self.nodes)
        outputs = [f"s{number}_{i}" if i not in sample.absent else "" for i in range(sample.outputs)]
        node = helper.make_node(sample.op, names, outputs, name=f"{number} {sample.id}", domain=sample.domain, **sample.attrs)
        self.nodes.append(node)
        results = whole(sample)(drawn)
        for name, result in zip(filter(None, outputs), results, strict=True):
            self._settle(sample, name, result)

    def _constant(self, value: Array | None) -> str:
        return "" if value is None else self.const(value, value.dtype)

    def _input(self, sample: Sample, at: int, like: Array | None) -> str:
        given = sample.inputs[at]
        assert isinstance(given, str)
        assert like is not None
        kind = "positive" if (sample.op, at) in DENOMINATORS else Sample.shape(given)[1]
        if kind == "u8":
            return self.bytes(sample, at, like.shape)
        made = self.fit(self.take(), like.shape)
        if not kind and not sample.op.endswith("Normalization"):  # which blows up the rounding of what hardly varies
            made = self.through(made)
        return self.typed(made, kind)

    def bytes(self, sample: Sample, at: int, shape: Shape) -> str:
        """Quantised values, with the zero point that the reader takes them with; or integers, where that is 0."""
        node = stated(sample)
        assert isinstance(node, NodeAxes)
        point = node.rule.quantized.get(at, (-1, -1))[1]
        zero = sample.inputs[point] if 0 <= point < len(sample.inputs) else None
        number = int(zero) if isinstance(zero, np.ndarray) else 0
        if not number and self.pick(True, False):
            return self.integers(shape)
        scale = self.const(0.02, np.float32)
        return str(self.node("QuantizeLinear", self.fit(self.take(), shape), scale, self.const(number, np.uint8)))

    def _settle(self, sample: Sample, name: str, like: Array) -> None:
        """An output as float32, of a magnitude that the next operator can take."""
        if like.dtype != np.float32:
            name = self.node("Cast", name, to=TensorProto.FLOAT)
        largest = float(np.abs(like.astype(np.float64)).max(initial=1, where=np.isfinite(like)))
        if largest > 4:
            name = self.node("Mul", name, self.const(2 / largest, np.float32))
        if sample.op in WILD or like.dtype != np.float32:
            name = self.node("Tanh", name)
        self.live.append(Value(name, like.shape))

    def model(self, opset: int) -> ModelProto:
        """The graph, with what nothing reads as outputs, behind weights of their own."""
        outputs: list[onnx.ValueInfoProto] = []
        for value in self.live:
            if value.name in self.read:
                continue
            name = f"y{len(outputs)}"
            self.nodes.append(helper.make_node("Identity", [self.dense(value, (2, 3))], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]))
        used = {name for node in self.nodes for name in node.input}
        inputs = [value for value in self.inputs if value.name in used]
        graph = helper.make_graph(self.nodes, "composed", inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


class Seeded(Composer):
    """The same, with choices that a seed makes."""

    def __init__(self, seed: int) -> None:
        super().__init__(lambda _: None)
        self.choices = np.random.default_rng(seed)

    def pick(self, *options: Any) -> Any:
        return options[self.choices.integers(len(options))]


def compose(composer: Composer, samples: Sequence[Sample]) -> ModelProto:
    """A graph that computes some samples of one operator set, each from what came before."""
    for sample in samples:
        composer.add(sample)
    return composer.model(samples[0].opset)


def deals(opset: int, seed: int, size: int = 4) -> Iterator[tuple[Composer, list[Sample]]]:
    """Every sample of an operator set once, a few to a graph, in an order that a seed makes."""
    samples = pool(opset)
    order = np.random.default_rng([opset, seed]).permutation(len(samples))
    for start in range(0, len(samples), size):
        yield Seeded(seed * len(samples) + start), [samples[at] for at in order[start : start + size]]
