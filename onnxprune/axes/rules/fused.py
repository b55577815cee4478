"""Operators of ONNX Runtime's own domain that fuse others, as its optimizer writes them."""

from __future__ import annotations

import math

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import MICROSOFT, NEVER, Refused, axes, rule
from onnxprune.ir.node import NodeView

ZERO_TO_ZERO_ACTIVATIONS = frozenset({"", "LeakyRelu", "Relu", "Tanh"})


@rule("Gelu", "QuickGelu", domain=MICROSOFT)
def gelu(node: NodeView) -> AxisRule:
    return axes("... -> ...")


@rule("BiasGelu", "FastGelu", domain=MICROSOFT)
def bias_gelu(node: NodeView) -> AxisRule:
    names = " ".join(f"a{i}" for i in range(len(node.shape())))
    last = names.rpartition(" ")[2]
    return axes(f"{names}, {last} -> {names}", zero=((0,), (1,)))


@rule("FusedConv", domain=MICROSOFT)
def fused_conv(node: NodeView) -> AxisRule:
    return axes(
        "n (g i) _..., (g o) i _..., (g o), n (g o) _... -> n (g o) _...",
        sizes={"g": node.attr("group", 1), "k": math.prod(node.shape(1)[2:]) * math.prod(node.out()[2:])},
        attrs={"group": "g"},
        zero=((0, 1), (2,), (3,), *(() if node.attr("activation", "") in ZERO_TO_ZERO_ACTIVATIONS else NEVER)),
        macs="n g o i k",
    )


@rule("FusedMatMul", domain=MICROSOFT)
def fused_matmul(node: NodeView) -> AxisRule | Refused:
    a, b, out = node.shape(0), node.shape(1), node.out()
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0) or len(a) != len(out) or len(b) not in {2, len(out)}:
        return Refused("its batch axes are transposed or broadcast")
    names = [f"b{i}" for i in range(len(out) - 2)]
    left = " ".join("1" if size == 1 != full else name for name, size, full in zip(names, a, out, strict=False))
    right = " ".join("1" if size == 1 != full else name for name, size, full in zip(names, b, out, strict=False) if len(b) > 2)
    first = "k m" if node.attr("transA", 0) else "m k"
    second = "n k" if node.attr("transB", 0) else "k n"
    return axes(
        f"{left} {first}, {right} {second} -> {' '.join(names)} m n", zero=((0, 1),), macs=" ".join([*names, "m", "k", "n"])
    )


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(node: NodeView) -> AxisRule:
    names = [f"a{i}" for i in range(len(node.shape()))]
    text, last = " ".join(names), names[-1]
    skip = " ".join(
        "1" if size == 1 != full else name
        for name, size, full in zip(names[-len(node.shape(1)) :], node.shape(1), node.out()[-len(node.shape(1)) :], strict=True)
    )
    constants = ", ".join([last] * 3 if node.op == "SkipLayerNormalization" else [last] * 2)
    statistics = ", _..., _..., " + text
    return axes(f"{text}, {skip}, {constants} -> {text}{statistics if len(node.outputs) > 1 else ''}", mix=last, zero=NEVER)


@rule("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(node: NodeView) -> AxisRule:
    results = ["b s d", "_", "b s d"][: len(node.outputs)]
    return axes(f"b s, b s, _ d, _ d, _ d, d, d -> {', '.join(results)}", mix="d", fixed="b s", zero=NEVER)
