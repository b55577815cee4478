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

from onnxprune.ir.control_flow import Path, Phi, walk
from onnxprune.ir.node import NodeView, domain_of

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

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
    AT_LEAST = auto()


@dataclass(frozen=True, slots=True)
class Clash:
    """A contradiction.

    Attributes:
        place: of the node in the graph and its bodies.
        have: what it has along an axis.
        want: what that must be related to.
        relation: how.
        rank: which of the demands of the node it is.
    """

    place: Path
    have: int
    want: int
    relation: Relation = Relation.EQUAL
    rank: int = 0

    @property
    def order(self) -> tuple[Path, int]:
        """Of two contradictions the lesser is seen first."""
        return self.place, self.rank

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


def _pairs(scene: Scene) -> list[_Pair]:
    """What a node asks for; nothing where its attributes do not fit its inputs: ONNX Runtime refuses such a node by its name."""
    try:
        return list(_CHECKS[scene.node.op_type](scene))
    except (IndexError, ValueError, TypeError, ZeroDivisionError):
        return []


def first_clash(graph: GraphProto, opset: int, shapes: Mapping[str, Shape | None], values: Mapping[str, Array]) -> Clash | None:
    """The first node that sizes contradict each other at; ``None`` if there is none that is known.

    In bodies, only sizes that are too small count: branches that are not taken may ask for different ones.
    """
    for place, node in walk(graph, opset):
        if isinstance(node, Phi) or domain_of(node) or node.op_type not in _CHECKS:
            continue
        for rank, (have, want, relation) in enumerate(
            _pairs(Scene(node, NodeView(node, shapes, values, {}, opset), shapes, values))
        ):
            if not _fits(have, want, relation) and (len(place) == 1 or relation is Relation.AT_LEAST):
                return Clash(place, have, want, relation, rank)
    return None


def _fits(have: int, want: int, relation: Relation) -> bool:
    if relation is Relation.MULTIPLE:
        return want <= 0 or have % want == 0
    if relation is Relation.AT_LEAST:
        return have >= want
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
    if not x or not w or not len(x) == len(w) > 2:
        return []
    return [*_equal(x[1], w[1] * scene.view.attr("group", 1)), *_windows(scene, x, w[2:])]


def _pool(scene: Scene) -> list[_Pair]:
    x = scene.shape(0)
    return [] if not x or scene.view.attr("ceil_mode", 0) else _windows(scene, x, scene.view.attr("kernel_shape", ()))


def _windows(scene: Scene, x: Shape, kernel: Sequence[int]) -> list[_Pair]:
    """A window must fit: an image that is smaller, with its padding, gives nothing."""
    if scene.view.attr("auto_pad", "NOTSET") != "NOTSET":
        return []
    pads, dilations = scene.view.attr("pads", [0] * 2 * len(kernel)), scene.view.attr("dilations", [1] * len(kernel))
    around = [pads[axis] + pads[axis + len(kernel)] for axis in range(len(kernel))]
    spans = [dilation * (taps - 1) + 1 for taps, dilation in zip(kernel, dilations, strict=True)]
    return [(size + more, span, Relation.AT_LEAST) for size, more, span in zip(x[2:], around, spans, strict=True)]


def _frames(scene: Scene) -> list[_Pair]:
    """The signal of a short-time Fourier transform is as long as a frame."""
    x, window, frame = scene.shape(0), scene.shape(2), scene.value(3)
    length = int(frame.item()) if frame is not None else window[0] if window else 0
    return [(x[1], length, Relation.AT_LEAST)] if x and len(x) > 1 else []


def _mirror(scene: Scene) -> list[_Pair]:
    """What is mirrored at an edge must be there."""
    x, pads = scene.shape(0), scene.value(1)
    if not x or pads is None or len(pads) != 2 * len(x) or scene.view.attr("mode", "constant") != "reflect":
        return []
    return [(size, int(max(pads[axis], pads[axis + len(x)], 0)) + 1, Relation.AT_LEAST) for axis, size in enumerate(x)]


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
    found = []
    for axis in range(1, max(map(len, known), default=0) + 1):
        there = [shape[-axis] for shape in known if len(shape) >= axis and shape[-axis] != 1] or [1]
        found += _equal(there[0], next((size for size in there if size != there[0]), there[0]))
    return found


def _concat(scene: Scene) -> list[_Pair]:
    shapes = map(scene.shapes.get, scene.node.input)
    known = list(dict.fromkeys(shape for shape in shapes if shape is not None))  # most of many inputs are alike
    if len({len(shape) for shape in known}) != 1 or not known[0]:
        return []
    along = scene.view.attr("axis", 1) % len(known[0])
    return [(size, known[0][axis], Relation.EQUAL) for shape in known for axis, size in enumerate(shape) if axis != along]


def _reshape(scene: Scene) -> list[_Pair]:
    shape, sizes = scene.shape(0), scene.value(1)
    if shape is None or sizes is None or sizes.ndim != 1 or (scene.view.attr("allowzero", 0) and 0 in sizes):
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
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _pool),
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gather": _gather,
    "Gemm": _gemm,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "Pad": _mirror,
    "RNN": _recurrent,
    "Reshape": _reshape,
    "STFT": _frames,
    "Split": _split,
    **dict.fromkeys(_ELEMENTWISE, _broadcast),
}
