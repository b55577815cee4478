"""Fused attention: heads in groups of queries per key (k r), head widths of queries and keys (d) and of values (v).

Batch and tokens (b, s, t) meet masks and caches, and softmax runs over them: they stay.
"""

from __future__ import annotations

from onnxprune.axes.equation import AxisRule, Clauses
from onnxprune.axes.rules.registry import MICROSOFT, NEVER, Refused, axes, rule
from onnxprune.ir.node import NodeView


def _pinned_scale(node: NodeView, width: int) -> dict[str, float]:
    """The scale, written out: its default depends on the head width."""
    return {"scale": width**-0.5} if not node.attr("scale") else {}


def _mask(node: NodeView, position: int, heads: str) -> str:
    """A mask or bias ``[batch, heads, queries, keys]``, or its last axes: only the axis of the heads is more than positions."""
    if not node.has(position):
        return "_..."
    rank = len(node.shape(position))
    names = ["_"] * rank
    if rank == 4 and node.shape(position)[1] > 1:
        names[1] = heads
    return " ".join(names)


@rule("Attention")
def attention(node: NodeView) -> AxisRule:
    """Since operator set 23: ``[b, heads, s, d]``, or ``[b, s, heads d]`` with the numbers of heads as attributes."""
    flat = len(node.shape(0)) == 3
    past = ", b k p d, b k p v" if node.has(4) else ""
    mask = _mask(node, 3, "(k r)")
    zero: Clauses = ((0, 1), (2,), *(((0, 4), (5,)) if past else ()))
    present = ["b k T d", "b k T v", "b (k r) s _"][: max(len(node.outputs) - 1, 0)]
    attrs: dict[str, object] = {}
    if flat:
        heads, groups = node.attr("q_num_heads"), node.attr("kv_num_heads")
        attrs = {"q_num_heads": "(k r)", "kv_num_heads": "k"}
        sizes = {"k": groups, "r": heads // groups}
        tensors, result = "b s (k r d), b t (k d), b t (k v)", "b s (k r v)"
        width = node.shape(0)[2] // heads
    else:
        sizes = {"k": node.shape(1)[1]}
        tensors, result = "b (k r) s d, b k t d, b k t v", "b (k r) s v"
        width = node.shape(0)[3]
    return axes(
        f"{tensors}, {mask}{past} -> {', '.join([result, *present])}",
        sizes=sizes,
        fixed=f"b s t{' p' if past else ''}{' T' if present else ''}",
        attrs={**attrs, **_pinned_scale(node, width)},
        zero=(*zero, *(NEVER if present else ())),  # keys and values of one head are not zero together
        sums="d" if present else "",
        macs=" + ".join(f"b k r s {keys} {width}" for keys in ("t", *("p" if past else "")) for width in "dv"),
    )


@rule("Attention", domain=MICROSOFT)
def packed_attention(node: NodeView) -> AxisRule | Refused:
    """Projection and attention in one node; queries, keys and values side by side in one matrix."""
    if node.attr("do_rotary", 0) or node.has(4):
        return Refused("rotates its heads or reads a past: the width of a head matters")
    heads, hidden = node.attr("num_heads"), node.shape(1)[1]
    widths = node.attr("qkv_hidden_sizes")
    attrs: dict[str, object] = {"num_heads": "h"}
    if widths:
        packed, value, width = "(h d+h d+h v)", "v", widths[0] // heads
        attrs["qkv_hidden_sizes"] = ["(h d)", "(h d)", "(h v)"]
        sizes = {"h": heads, "d": width, "v": widths[2] // heads}
    else:
        packed, value, width = "(z h d)", "d", hidden // 3 // heads
        sizes = {"h": heads, "z": 3}
    bias = _mask(node, 5, "h")
    return axes(
        f"b s i, i {packed}, {packed}, _..., _..., {bias} -> b s (h {value})",
        sizes=sizes,
        fixed="b s" if widths else "b s z",
        attrs={**attrs, **_pinned_scale(node, width)},
        zero=((1,), (2,)),
        macs=f"b s i h d + b s i h d + b s i h {value} + b s s h d + b s s h {value}",
    )


@rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(node: NodeView) -> AxisRule | Refused:
    if not node.has(1) or not node.has(2) or any(len(node.shape(i)) != 3 for i in range(3)):
        return Refused("its queries, keys and values are packed in one tensor")
    if node.has(6) or len(node.outputs) > 1:
        return Refused("reads or writes a cache")
    heads = node.attr("num_heads")
    bias = _mask(node, 5, "h")
    return axes(
        f"b s (h d), b t (h d), b t (h v), (h d+h d+h v), _..., {bias} -> b s (h v)",
        sizes={"h": heads, "d": node.shape(0)[2] // heads, "v": node.shape(2)[2] // heads},
        fixed="b s t",
        attrs={"num_heads": "h", **_pinned_scale(node, node.shape(0)[2] // heads)},
        zero=((0, 1), (2,), (3,)),
        macs="b h s t d + b h s t v",
    )


@rule("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(node: NodeView) -> AxisRule:
    """Whole groups of queries with their key and value head; the width of a head is a matter of the kernel."""
    heads, groups = node.attr("num_heads"), node.attr("kv_num_heads")
    packed = not node.has(1)
    width = node.shape(0)[2] // (heads + 2 * groups if packed else heads)
    query = "b s (k r d+k d+k d), _..., _..." if packed else "b s (k r d), b t (k d), b t (k d)"
    caches = ", b k p d, b k p d" if node.has(3) else ""
    present = ", b k T d, b k T d" if len(node.outputs) > 1 else ""
    keys = "T" if present else "s" if packed else "t"
    return axes(
        f"{query}{caches} -> b s (k r d){present}",
        sizes={"k": groups, "r": heads // groups, "d": width},
        fixed=f"b s d{'' if packed else ' t'}{' p' if node.has(3) else ''}{' T' if present else ''}",
        attrs={"num_heads": "(k r)", "kv_num_heads": "k"},
        zero=NEVER if packed or present else ((0,), (2,)),
        macs=f"b k r s {keys} d + b k r s {keys} d",
    )


@rule("RotaryEmbedding")
@rule("RotaryEmbedding", domain=MICROSOFT)
def rotary(node: NodeView) -> AxisRule | Refused:
    """Turns pairs inside a head: whole heads may go."""
    if len(node.shape()) == 4:
        return axes("b h s _ -> b h s _", fixed="b s")
    heads = node.attr("num_heads", 0)
    if not heads:
        return Refused("the number of its heads is not spelled out")
    return axes("b s (h d) -> b s (h d)", sizes={"h": heads}, fixed="b s d", attrs={"num_heads": "h"})
