"""Lists of tensors, as scripted loops read and append them, become tensors with one more axis.

A list has no axes that could be followed. What ``unbind`` cuts and a loop picks from is a ``Gather``; what a loop appends to
an empty list and ``stack`` or ``cat`` joins behind it is a scan output of the loop, transposed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from onnxprune.ir.model import Model
from onnxprune.ir.node import every_graph, every_node, is_followed, subgraphs
from onnxprune.ir.weights import Weight
from onnxprune.passes.bodies import replace_all
from onnxprune.shapes.probes import Shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import GraphProto, NodeProto

__all__ = ["lists_to_tensors"]


def lists_to_tensors(model: Model, shapes: Shapes) -> bool:
    """Rewrite what is read from a cut tensor, and what loops append; whether anything changed.

    Args:
        model: normalised so far: names are unique over its bodies.
        shapes: of its values, as far as they are known while there are lists.
    """
    makers = {node.output[0]: node for node in every_node(model.graph) if node.op_type in {"SequenceEmpty", "SplitToSequence"}}
    if not makers:
        return False
    return bool(_pick(model, shapes, makers) + _stack(model, shapes, makers))


def _pick(model: Model, shapes: Shapes, makers: Mapping[str, NodeProto]) -> int:
    """``SequenceAt`` and ``SequenceLength`` of a tensor cut into single positions read the tensor; returns how many did."""
    count = 0
    for graph in every_graph(model.graph):
        instead: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            cut = makers.get(node.input[0]) if node.op_type in {"SequenceAt", "SequenceLength"} else None
            if cut is not None and _cuts_singly(model, cut) and (picked := _picked(model, shapes, node, cut)):
                instead[node.output[0]] = picked
        _replace(graph, instead)
        count += len(instead)
    return count


def _cuts_singly(model: Model, node: NodeProto) -> bool:
    """Whether a ``SplitToSequence`` gives one position each, without the axis."""
    if node.op_type != "SplitToSequence" or _attribute(node, "keepdims", 1):
        return False
    sizes = model.weights.get(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    return len(node.input) < 2 or (sizes is not None and sizes.shape == () and sizes.array() == 1)


def _picked(model: Model, shapes: Shapes, node: NodeProto, cut: NodeProto) -> list[NodeProto] | None:
    source, axis = cut.input[0], _attribute(cut, "axis", 0)
    if node.op_type == "SequenceLength":
        sizes, which = model.fresh_name(f"{source}__sizes"), _constant(model, f"{source}__axis", axis)
        return [helper.make_node("Shape", [source], [sizes]), helper.make_node("Gather", [sizes, which], list(node.output))]
    if shapes.shapes.get(node.input[1]) != ():
        return None
    return [helper.make_node("Gather", [source, node.input[1]], list(node.output), node.name, axis=axis)]


@dataclass(frozen=True, slots=True)
class _List:
    """A list that a loop appends one tensor to in each iteration.

    Attributes:
        loop: the loop; ``place`` is the list's among what it carries.
        insert: the node that appends.
        joins: the nodes that read the list afterwards.
        dtype: the element type of its tensors.
    """

    loop: NodeProto
    place: int
    insert: NodeProto
    joins: tuple[NodeProto, ...]
    dtype: int


def _stack(model: Model, shapes: Shapes, makers: Mapping[str, NodeProto]) -> int:
    """Lists that loops append become scan outputs; returns how many did."""
    count = 0
    while (found := _find(model, shapes, makers)) is not None:
        _rewrite(model, shapes, found)
        count += 1
    return count


def _find(model: Model, shapes: Shapes, makers: Mapping[str, NodeProto]) -> _List | None:
    readers = model.consumers()
    returned = Counter(value.name for graph in every_graph(model.graph) for value in graph.output)
    for loop in (node for node in every_node(model.graph) if node.op_type == "Loop" and is_followed(node)):
        (body,) = subgraphs(loop)
        makes = {node.output[0]: node for node in body.node if node.op_type == "SequenceInsert"}
        for place, (initial, out) in enumerate(zip(loop.input[2:], loop.output, strict=False)):
            empty, carried = makers.get(initial), body.input[2 + place].name
            insert = makes.get(body.output[1 + place].name)
            if empty is None or empty.op_type != "SequenceEmpty" or insert is None or list(insert.input[:1]) != [carried]:
                continue
            names = (carried, insert.output[0], out)
            alone = [len(readers.get(name, ())) for name in names[:2]] == [1, 0] and [returned[name] for name in names] == [
                0,
                1,
                0,
            ]
            last = len(insert.input) < 3 or not insert.input[2]
            joins = [node for node, _ in readers.get(out, ())]
            if alone and last and all(_joins(node, insert.input[1], shapes) for node in joins):
                return _List(loop, place, insert, tuple(joins), _attribute(empty, "dtype", TensorProto.FLOAT))
    return None


def _joins(node: NodeProto, item: str, shapes: Shapes) -> bool:
    """Whether a node joins a list of tensors, each like ``item``, and takes one position of each along the axis it joins."""
    shape = shapes.shapes.get(item)
    if node.op_type != "ConcatFromSequence" or shape is None:
        return False
    if _attribute(node, "new_axis", 0):
        return True
    axis = _attribute(node, "axis", 0)
    return shape[axis] == 1 and not shapes.dynamic.get(item, (False,) * len(shape))[axis]


def _rewrite(model: Model, shapes: Shapes, found: _List) -> None:
    """The loop makes the stacked tensor instead of the list."""
    loop, place, insert = found.loop, found.place, found.insert
    (body,) = subgraphs(loop)
    item, stacked = insert.input[1], model.fresh_name(f"{insert.output[0]}__stacked")
    each = model.fresh_name(f"{item}__each")
    instead = {node.output[0]: _join(model, shapes, node, item, stacked) for node in found.joins}
    replace_all(body.node, [node for node in body.node if node.output[:1] != insert.output[:1]])
    body.node.append(helper.make_node("Identity", [item], [each]))
    del loop.input[2 + place], loop.output[place], body.input[2 + place], body.output[1 + place]
    shape, moves = shapes.shapes[item] or (), shapes.dynamic.get(item)
    sizes = [None if moves and moves[axis] else size for axis, size in enumerate(shape)]
    body.output.append(helper.make_tensor_value_info(each, found.dtype, sizes))
    loop.output.extend([""] * (len(body.output) - 2 - len(loop.output)) + [stacked])
    for graph in every_graph(model.graph):
        _replace(graph, instead)


def _join(model: Model, shapes: Shapes, node: NodeProto, item: str, stacked: str) -> list[NodeProto]:
    """The nodes that make of the stacked tensors what joining the list makes."""
    rank = len(shapes.shapes[item] or ())
    axis, nodes = _attribute(node, "axis", 0), []
    if _attribute(node, "new_axis", 0):
        rank += 1
    else:
        squeezed = model.fresh_name(f"{stacked}__squeezed")
        nodes.append(_squeeze(model, stacked, axis % rank + 1, squeezed))
        stacked = squeezed
    order = list(range(1, rank))
    order.insert(axis % rank, 0)
    return [*nodes, helper.make_node("Transpose", [stacked], list(node.output), node.name, perm=order)]


def _squeeze(model: Model, value: str, axis: int, result: str) -> NodeProto:
    if model.opset < 13:
        return helper.make_node("Squeeze", [value], [result], axes=[axis])
    return helper.make_node("Squeeze", [value, _constant(model, f"{value}__axes", [axis])], [result])


def _replace(graph: GraphProto, instead: Mapping[str, list[NodeProto]]) -> None:
    """Put other nodes in the place of those that make certain values."""
    if any(node.output[0] in instead for node in graph.node if node.output):
        several = (instead.get(node.output[0], [node]) if node.output else [node] for node in graph.node)
        replace_all(graph.node, [node for nodes in several for node in nodes])


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _constant(model: Model, stem: str, value: int | list[int]) -> str:
    name = model.fresh_name(stem)
    model.weights[name] = Weight(name, None, np.array(value, np.int64))
    return name
