"""Quantised operators: weights are sliced with their scales and zero points; zero means the real value zero."""

from __future__ import annotations

import math

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
def linear(node: NodeView) -> AxisRule | Refused:
    if node.attr("block_size", 0) or (node.has(1) and len(node.shape(1)) > 1):
        return Refused("is quantised in blocks")
    names = [f"a{i}" for i in range(len(node.shape()))]
    text = " ".join(names)
    scale, point = (_along(node, position, names[node.axis(1)] if names else "") for position in (1, 2))
    quantized = {0: (1, 2)} if node.op == "DequantizeLinear" else {}
    return axes(f"{text}, {scale}, {point} -> {text}", zero=((0,),), quantized=quantized)


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
