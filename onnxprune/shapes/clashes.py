"""Sizes that contradict each other: what a node has along an axis, and what it should have.

Shape inference checks little: it lets a matrix product pass whose inner sizes differ, and says nothing of positions behind the
end of a table. What contradicts says also which size would be right; see `onnxprune.shapes.demands`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.ir.node import NodeView, domain_of

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = ["Clash", "Relation", "Scene", "first_clash"]

_ELEMENTWISE = frozenset({
    "Add", "And", "Div", "Equal", "Expand", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
})  # fmt: skip
"""Operators whose inputs are broadcast against each other."""


class Relation(Enum):
    """How what a node has must be related to what it should have."""

    EQUAL = auto()
    MULTIPLE = auto()
    AT_MOST = auto()


@dataclass(frozen=True, slots=True)
class Clash:
    """A contradiction.

    Attributes:
        node: the place of the node in the graph.
        have: what it has along an axis.
        want: what that must be related to.
        relation: how.
    """

    node: int
    have: int
    want: int
    relation: Relation = Relation.EQUAL

    @property
    def gap(self) -> int:
        """By how much it has too much; negative for too little."""
        return self.have - self.want


@dataclass(frozen=True, slots=True)
class Scene:
    """A node and what is known of the values that it reads.

    Attributes:
        node: it.
        view: its attributes, with their defaults.
        shapes: of all values, as far as they are known.
        values: small values that are known.
    """

    node: NodeProto
    view: NodeView
    shapes: Mapping[str, Shape | None]
    values: Mapping[str, Array]

    def shape(self, place: int) -> Shape | None:
        """The shape of an input; ``None`` where there is none, or nothing is known."""
        return self.shapes.get(self.node.input[place]) if place < len(self.node.input) else None

    def value(self, place: int) -> Array | None:
        """The numbers of an input, if they are known."""
        return self.values.get(self.node.input[place]) if place < len(self.node.input) else None


_Pair = tuple[int, int, Relation]
_Check = Callable[[Scene], Iterable[_Pair]]
"""From a node to what it has, what that is related to, and how."""


def first_clash(
    nodes: Sequence[NodeProto], opset: int, shapes: Mapping[str, Shape | None], values: Mapping[str, Array]
) -> Clash | None:
    """The first node of the main graph that sizes contradict each other at; ``None`` if there is none that is known."""
    for place, node in enumerate(nodes):
        check = None if domain_of(node) else _CHECKS.get(node.op_type)
        if check is None:
            continue
        for have, want, relation in check(Scene(node, NodeView(node, shapes, values, {}, opset), shapes, values)):
            if not _fits(have, want, relation):
                return Clash(place, have, want, relation)
    return None


def _fits(have: int, want: int, relation: Relation) -> bool:
    if relation is Relation.MULTIPLE:
        return want <= 0 or have % want == 0
    return have <= want if relation is Relation.AT_MOST else have == want


def _equal(have: int, want: int) -> list[_Pair]:
    return [(have, want, Relation.EQUAL)]


def _matmul(scene: Scene) -> list[_Pair]:
    a, b = scene.shape(0), scene.shape(1)
    return _equal(a[-1], b[-2 if len(b) > 1 else 0]) if a and b else []


def _gemm(scene: Scene) -> list[_Pair]:
    a, b = scene.shape(0), scene.shape(1)
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return []
    return _equal(a[0 if scene.view.attr("transA", 0) else 1], b[1 if scene.view.attr("transB", 0) else 0])


def _conv(scene: Scene) -> list[_Pair]:
    x, w = scene.shape(0), scene.shape(1)
    return _equal(x[1], w[1] * scene.view.attr("group", 1)) if x and w and len(x) == len(w) > 2 else []


def _conv_transpose(scene: Scene) -> list[_Pair]:
    x, w = scene.shape(0), scene.shape(1)
    return _equal(x[1], w[0]) if x and w and len(x) == len(w) > 2 else []


def _recurrent(scene: Scene) -> list[_Pair]:
    x, w, state = scene.shape(0), scene.shape(1), scene.shape(5)
    if x is None or w is None or len(x) != 3 or len(w) != 3:
        return []
    batch = x[0 if scene.view.attr("layout", 0) else 1]
    inner = [] if state is None or len(state) != 3 else _equal(state[0 if scene.view.attr("layout", 0) else 1], batch)
    return [*_equal(x[2], w[2]), *inner]


def _broadcast(scene: Scene) -> list[_Pair]:
    shapes = [scene.shape(place) for place in range(len(scene.node.input))]
    if scene.node.op_type == "Expand":
        sizes = scene.value(1)
        shapes[1:] = [None if sizes is None else tuple(int(size) for size in sizes)]
    known = [shape for shape in shapes if shape is not None]
    for axis in range(1, max(map(len, known), default=0) + 1):
        sizes_there = [shape[-axis] for shape in known if len(shape) >= axis and shape[-axis] != 1]
        for size in sizes_there:
            if size != sizes_there[0]:
                return _equal(sizes_there[0], size)
    return []


def _concat(scene: Scene) -> list[_Pair]:
    known = [shape for place in range(len(scene.node.input)) if (shape := scene.shape(place)) is not None]
    if len({len(shape) for shape in known}) != 1 or not known[0]:
        return []
    along = scene.view.attr("axis", 1) % len(known[0])
    return [(size, known[0][axis], Relation.EQUAL) for shape in known for axis, size in enumerate(shape) if axis != along]


def _reshape(scene: Scene) -> list[_Pair]:
    shape, sizes = scene.shape(0), scene.value(1)
    if shape is None or sizes is None or sizes.ndim != 1 or scene.view.attr("allowzero", 0):
        return []
    if any(size == 0 and axis >= len(shape) for axis, size in enumerate(sizes)):
        return []
    spelled = [shape[axis] if size == 0 else int(size) for axis, size in enumerate(sizes)]
    have, want = math.prod(shape), math.prod(size for size in spelled if size != -1)
    return [(have, want, Relation.MULTIPLE if -1 in spelled else Relation.EQUAL)]


def _split(scene: Scene) -> list[_Pair]:
    shape, sizes = scene.shape(0), scene.value(1)
    listed = scene.view.attr("split", None) if sizes is None else sizes
    return [] if shape is None or listed is None else _equal(shape[scene.view.attr("axis", 0)], int(np.sum(listed)))


def _gather(scene: Scene) -> list[_Pair]:
    shape, places = scene.shape(0), scene.value(1)
    if not shape or places is None or not places.size or places.dtype.kind not in "iu":
        return []
    return [(int(places.max()) + 1, shape[scene.view.attr("axis", 0)], Relation.AT_MOST)]


_CHECKS: Mapping[str, _Check] = {
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gather": _gather,
    "Gemm": _gemm,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "RNN": _recurrent,
    "Reshape": _reshape,
    "Split": _split,
    **dict.fromkeys(_ELEMENTWISE, _broadcast),
}
