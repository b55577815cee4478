"""Two models without running them: whether they have the same nodes and constants."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from onnx import AttributeProto, NodeProto

from onnxprune.ir.node import subgraphs

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Weight

__all__ = ["first_difference"]


def first_difference(made: Model, file: Model, *, values: bool = True) -> str:
    """The first thing in which two models differ, beside what they say of themselves; empty if they compute the same.

    Args:
        made: the model that is known to be right.
        file: the model that is compared with it.
        values: whether floating-point constants must have the same values, and not only shape and type.
    """
    for mine, theirs in zip_longest(made.graph.node, file.graph.node):
        if mine != theirs and (values or mine is None or theirs is None or _valueless(mine) != _valueless(theirs)):
            node = theirs if theirs is not None else mine
            what = "is not one of those" if mine is None else "is missing among those" if theirs is None else "is not the one"
            return f"node {node.name or node.output[0]!r} ({node.op_type}) {what} that must be there"
    if list(made.proto.opset_import) != list(file.proto.opset_import):
        return "its operator sets are others"
    for name in (*made.weights, *(name for name in file.weights if name not in made.weights)):
        found = _differs(name, made.weights.get(name), file.weights.get(name), values=values)
        if found:
            return found
    return ""


def _differs(name: str, one: Weight | None, other: Weight | None, *, values: bool) -> str:
    if one is None or other is None:
        return f"constant {name!r} {'is not one of those' if one is None else 'is missing among those'} that must be there"
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return f"constant {name!r} has the shape {list(other.shape)}, not {list(one.shape)}, or another type"
    if (values or not one.is_float) and not one.equals(other):
        return f"constant {name!r} has other values than it must have"
    return ""


def _valueless(node: NodeProto) -> NodeProto:
    """A node without the constants that it, and its bodies, spell."""
    bare = NodeProto()
    bare.CopyFrom(node)
    for attribute in bare.attribute:
        if attribute.type == AttributeProto.TENSOR:
            attribute.ClearField("t")
    for body in subgraphs(bare):
        del body.initializer[:], body.sparse_initializer[:]
        kept = [_valueless(inner) for inner in body.node]
        del body.node[:]
        body.node.extend(kept)
    return bare
