"""Quantised operators: weights are sliced with their scales and zero points; zero means the real value zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.elementwise import aligned, letters
from onnxprune.axes.rules.linear import matmul_axes
from onnxprune.axes.rules.registry import MICROSOFT, NEVER, Refused, axes, rule
from onnxprune.ir.node import NodeView

SCALED = "_..., _..."
"""A scale and a zero point of the whole tensor."""


def _along(node: NodeView, position: int, letter: str) -> str:
    """A scale or zero point: one for the tensor, or one for each index of an axis."""
    if not node.has(position) or len(node.shape(position)) == 0:
        return ""
    return letter if node.shape(position)[0] > 1 else "1"


@rule("QuantizeLinear", "DequantizeLinear")
def linear(node: NodeView) -> AxisRule:
    if node.attr("block_size", 0):
        return _blockwise(node)
    names = [f"a{i}" for i in range(len(node.shape()))]
    text = " ".join(names)
    scale, point = (_along(node, position, names[node.axis(1)] if names else "") for position in (1, 2))
    quantized = {0: (1, 2)} if node.op == "DequantizeLinear" else {}
    return axes(f"{text}, {scale}, {point} -> {text}", zero=((0,),), quantized=quantized)


def _blockwise(node: NodeView) -> AxisRule:
    """``a (c j), a c, a c -> a (c j)``: whole blocks of ``j`` positions go, with their scales; a short one stays."""
    size, axis = int(node.attr("block_size")), node.axis(1)
    names = [f"a{i}" for i in range(len(node.shape()))]
    blocks = _Blocks.of(node.shape()[axis], size, node.shape(1)[axis])
    data, scale = (" ".join([*names[:axis], part, *names[axis + 1 :]]) for part in (blocks.positions, blocks.scales))
    dequantizes = node.op == "DequantizeLinear"
    return axes(
        f"{data}, {scale}, {scale if node.has(2) else ''} -> {data}",
        sizes=blocks.sizes,
        fixed=blocks.fixed,
        zero=((1,),) if dequantizes else NEVER,  # numbers divided by a scale of zero are not zero
        quantized={0: (1, 2)} if dequantizes else {},
    )


@dataclass(frozen=True, slots=True)
class _Blocks:
    """An axis that is quantised in blocks, in letters: ``c`` runs of ``u`` blocks of ``j`` positions go, the rest stays.

    Attributes:
        positions: the axis itself, ``(c u j+t)``: the last ``t`` positions stay.
        scales: its blocks, ``(c u+r)``.
        points: its zero points, ``(c+e)``: ``u`` of them share a byte.
        sizes: of the letters.
    """

    positions: str
    scales: str
    points: str
    sizes: dict[str, int]

    @classmethod
    def of(cls, positions: int, block: int, scales: int, points: int = 0, *, shared: int = 1, whole: bool = False) -> Self:
        """The letters of an axis; with ``whole`` no position of it may go."""
        runs = 0 if whole else positions // block // shared
        sizes = {"t": positions - runs * shared * block, "r": scales - runs * shared, "e": max(points - runs, 0)}
        moving = {"t": "c u j", "r": "c u", "e": "c"} if shared > 1 else {"t": "c j", "r": "c", "e": "c"}
        t, r, e = (f"({'+'.join([moving[rest]] * bool(runs) + [rest] * bool(sizes[rest]))})" for rest in "tre")
        return cls(t, r, e, {**sizes, "c": runs, "u": shared, "j": block})

    @property
    def fixed(self) -> str:
        """The letters whose positions stay."""
        found = {letter for text in (self.positions, self.scales, self.points) for letter in "turej" if letter in text}
        return " ".join(sorted(found))

    @property
    def products(self) -> tuple[str, ...]:
        """The axis as summands of a count of multiply-accumulates."""
        return tuple(self.positions.strip("()").split("+"))


@rule("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(node: NodeView) -> AxisRule | Refused:
    """``m (c u j), n (c u) p, n (c u), n c -> m n``: rows go, and whole blocks of what is summed over.

    ``p`` are the bytes of a block. ``u`` zero points share a byte, unless they are of the type of the scales. Where scales are
    one flat list and blocks are left over, or the order of inputs is permuted (``g_idx``), only rows go.
    """
    bits, size = int(node.attr("bits", 4)), int(node.attr("block_size"))
    if bits not in {2, 4, 8} or node.attr("weight_prepacked", 0):
        return Refused("its weights are packed in a form of one kernel")
    inner, (rows, count, _) = node.shape()[-1], node.shape(1)
    has_points = node.has(3)
    bytewise = has_points and math.prod(node.shape(3)) == rows * -(-count * bits // 8)
    shared = 8 // bits if bytewise and bits < 8 else 1
    columns = math.prod(node.shape(3)) // rows if has_points else 0
    flat = [position for position in (2, 3) if node.has(position) and len(node.shape(position)) == 1]
    whole = node.has(4) or bool(flat and inner % (shared * size))
    blocks = _Blocks.of(inner, size, count, columns, shared=shared, whole=whole)
    scales, points = (
        f"(n {text.strip('()')})" if position in flat else f"n {text}"
        for position, text in ((2, blocks.scales), (3, blocks.points))
    )
    outer = " ".join(f"a{i}" for i in range(len(node.shape()) - 1))
    return axes(
        f"{outer} {blocks.positions}, n {blocks.scales} p, {scales}, {points if has_points else '_...'}, _..., n -> {outer} n",
        sizes=blocks.sizes,
        fixed=f"{blocks.fixed} p",
        attrs={"N": "n", "K": blocks.positions},
        zero=((0, 2), (5,)),
        quantized={1: (2, 3)},
        packed={1: 8 // bits, 3: shared},
        macs=" + ".join(f"{outer} {product} n" for product in blocks.products),
    )


@rule("DynamicQuantizeLinear")
def dynamic(node: NodeView) -> AxisRule:
    """The range is taken over everything and always holds zero: zeros that go do not change it."""
    names = " ".join(f"a{i}" for i in range(len(node.shape())))
    return axes(f"{names} -> {names}, , ", zero=((0,),), sums=names)


@rule("QLinearConv")
def qlinear_conv(node: NodeView) -> AxisRule:
    scale, point = (_along(node, position, "(g o)") for position in (4, 5))
    return axes(
        f"n (g i) _..., _..., _..., (g o) i _..., {scale}, {point}, _..., _..., (g o) -> n (g o) _...",
        sizes={"g": node.attr("group", 1), "k": math.prod(node.shape(3)[2:]) * math.prod(node.out()[2:])},
        attrs={"group": "g"},
        zero=((0, 3), (8,)),
        quantized={3: (4, 5)},
        macs="n g o i k",
    )


@rule("ConvInteger")
def conv_integer(node: NodeView) -> AxisRule:
    return axes(
        f"n (g i) _..., (g o) i _..., _..., {_along(node, 3, '(g o)')} -> n (g o) _...",
        sizes={"g": node.attr("group", 1), "k": math.prod(node.shape(1)[2:]) * math.prod(node.out()[2:])},
        attrs={"group": "g"},
        zero=((0, 1),),
        quantized={1: (-1, 3)},
        macs="n g o i k",
    )


@rule("MatMulInteger")
def matmul_integer(node: NodeView) -> AxisRule:
    left, right, out, letters = matmul_axes(node.shape(0), node.shape(1), node.out())
    points = f"{_along(node, 2, 'm')}, {_along(node, 3, 'n')}"
    return axes(f"{left}, {right}, {points} -> {out}", zero=((0, 1),), quantized={1: (-1, 3)}, macs=letters)


@rule("QLinearMatMul")
def qlinear_matmul(node: NodeView) -> AxisRule:
    left, right, out, letters = matmul_axes(node.shape(0), node.shape(3), node.out())
    scales = [_along(node, position, letter) for position, letter in ((1, "m"), (2, "m"), (4, "n"), (5, "n"))]
    return axes(
        f"{left}, {scales[0]}, {scales[1]}, {right}, {scales[2]}, {scales[3]}, _..., _... -> {out}",
        zero=((0, 3),),
        quantized={3: (4, 5)},
        macs=letters,
    )


@rule("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_broadcast(node: NodeView) -> AxisRule:
    zero = ((0, 3),) if node.op == "QLinearMul" else ((0,), (3,))
    return axes(f"{aligned(node, 0)}, {SCALED}, {aligned(node, 3)} -> {letters(node)}", zero=zero)


@rule("QLinearLeakyRelu", "QLinearSigmoid", domain=MICROSOFT)
def qlinear_unary(node: NodeView) -> AxisRule:
    return axes("... -> ...", zero=NEVER if node.op == "QLinearSigmoid" else None)


@rule("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_pool(node: NodeView) -> AxisRule:
    return axes("n _... c -> n _... c" if node.attr("channels_last", 0) else "n c _... -> n c _...")


@rule("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(node: NodeView) -> AxisRule:
    names, axis = letters(node).split(), int(node.attr("axis")) % len(node.out())
    parts = [f"p{i}" for i in range((len(node.inputs) - 2) // 3)]
    tensors = [" ".join([*names[:axis], part, *names[axis + 1 :]]) + f", {SCALED}" for part in parts]
    whole = " ".join([*names[:axis], f"({'+'.join(parts)})", *names[axis + 1 :]])
    return axes(f"{SCALED}, {', '.join(tensors)} -> {whole}")


@rule("QGemm", domain=MICROSOFT)
def qgemm(node: NodeView) -> AxisRule:
    a, b = "k m" if node.attr("transA", 0) else "m k", "n k" if node.attr("transB", 0) else "k n"
    scale, point = (_along(node, position, "n") for position in (4, 5))
    bias = " ".join("mn"[2 - len(node.shape(6)) :]) if node.has(6) and len(node.shape(6)) < 2 else "1 n"
    return axes(f"{a}, {SCALED}, {b}, {scale}, {point}, {bias} -> m n", zero=((0, 3), (6,)), quantized={3: (4, 5)}, macs="m k n")
