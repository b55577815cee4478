"""Normalise an exported graph: one spelling for constants and sizes, so that the axis calculus sees what is really there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, helper

from onnxprune.axes.rules.layout import runs
from onnxprune.ir.model import Model, pinned_sizes
from onnxprune.ir.node import captured, domain_of, every_graph, is_followed, subgraphs
from onnxprune.ir.weights import Array, Weight
from onnxprune.passes.analysis import Normalized
from onnxprune.passes.base import Pass
from onnxprune.passes.bodies import (
    compute_outputs,
    hoist,
    inline_constant,
    inline_static,
    replace_all,
    unique_names,
)
from onnxprune.passes.constants import constants_to_initializers, fold, share, untie
from onnxprune.passes.sequences import lists_to_tensors
from onnxprune.shapes.probes import Shapes, probe
from onnxprune.sparse.encoding.recognize import decode_weights

SIZE_INPUTS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1, 3), "Range": (0, 1, 2), "ReduceSum": (1,),
    "Reshape": (1,), "Resize": (3,), "Slice": (1, 2, 3, 4), "Split": (1,), "Tile": (1,), "TopK": (1,), "Trilu": (1,),
}  # fmt: skip
"""Inputs that carry sizes, positions or axes."""

_REFRESHED = frozenset({"ConstantOfShape", "Expand", "Pad", "Reshape", "Resize", "Split", "Tile"})
"""Operators whose sizes pruning refreshes: worth splitting a vector into constant and computed entries."""
_COMPUTED = np.iinfo(np.int64).min
"""Marks an entry that stays computed in the graph."""


@dataclass(frozen=True)
class Normalize(Pass):
    """Constants are initializers, sizes are constants wherever they are known, and nothing unrelated shares a constant.

    Sparse weights that nodes decode are constants again; ``Constant`` nodes become initializers; what only constants feed is
    folded; a ``Split`` without sizes gets them; size-carrying inputs become constants where all but the truly dynamic entries
    are known; and a constant vector that several nodes read (exporters merge equal ones) becomes one constant per reader. In
    bodies of control flow too, whose constants move to the main graph and whose names become unique over the model; branches
    that are always taken are inlined. Computes the same as before.
    """

    def run(self, model: Model) -> Normalized:
        """The normalised copy of a model."""
        source, model = model, model.copy()
        bodies = any(map(is_followed, model.graph.node))
        if bodies:
            unique_names(model)
            hoist(model)
        constants_to_initializers(model)
        decode_weights(model)
        if bodies:
            compute_outputs(model)
        share(model)
        fold(model)
        while bodies and inline_constant(model):
            fold(model)
        untie(model)
        remove_unused(model)
        shapes = probe(model)
        while lists_to_tensors(model, shapes):
            remove_unused(model)
            shapes = probe(model)
        while bodies and inline_static(model, shapes):  # what a branch makes may decide the next one
            remove_unused(model)
            shapes = probe(model)
        if pin_sizes(model, shapes):
            remove_unused(model)
            shapes = probe(model)
        return Normalized(model, shapes, source)


def remove_unused(model: Model) -> None:
    """Drop nodes and constants that nothing reads."""
    needed = _drop_unused(model.graph) | model.overridable
    model.weights = {name: weight for name, weight in model.weights.items() if name in needed}


def _drop_unused(graph: GraphProto) -> set[str]:
    """What the nodes that are left read."""
    needed = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(name for name in node.input if name)
            needed.update(*map(_drop_unused, subgraphs(node))) if is_followed(node) else needed.update(captured(node))
    if len(kept) < len(graph.node):
        replace_all(graph.node, reversed(kept))
    return needed


def pin_sizes(model: Model, shapes: Shapes) -> bool:
    """Make size-carrying inputs constants where all but the truly dynamic entries are known; whether anything changed.

    A ``Reshape`` to ``[batch, 64, -1]`` copies its batch (0). Where entries stay dynamic that no 0 or -1 can stand for, the
    vector becomes ``Where(known, constant, computed)``. A static integer that becomes a number (a scale computed from a
    size) is pinned too: pruning must not change its value.
    """
    pinned = set(pinned_sizes(model))
    changed = False
    for graph in every_graph(model.graph):
        changed |= _pin_sizes_of(model, shapes, graph, pinned)
    return changed


def _pin_sizes_of(model: Model, shapes: Shapes, graph: GraphProto, pinned: Collection[str]) -> bool:
    changed = False
    nodes: list[NodeProto] = []
    for node in graph.node:
        if domain_of(node):
            nodes.append(node)
            continue
        changed |= split_sizes(model, shapes, node) or squeeze_axes(model, shapes, node)
        if node.op_type == "Cast" and node.input[0] not in model.weights:
            changed |= _pin(model, shapes, node, 0, nodes, static_only=True)
        for position in SIZE_INPUTS.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            if name and name not in model.weights and name not in pinned:
                changed |= _pin(model, shapes, node, position, nodes, static_only=False)
        nodes.append(node)
    if changed:
        replace_all(graph.node, nodes)
    return changed


def split_sizes(model: Model, shapes: Shapes, node: NodeProto) -> bool:
    """A ``Split`` into equal parts spells its sizes, which pruning may make unequal; whether anything changed."""
    if node.op_type != "Split" or (len(node.input) > 1 and node.input[1]) or any(a.name == "split" for a in node.attribute):
        return False
    parts = [shapes.shapes.get(name) for name in node.output]
    source = shapes.shapes.get(node.input[0])
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    if source is None or shapes.dynamic.get(node.input[0], (False,) * len(source))[axis]:
        return False
    sizes = [part[axis] for part in parts if part is not None]
    if len(sizes) < len(parts):
        return False
    if model.opset < 13:
        node.attribute.append(helper.make_attribute("split", sizes))
    else:
        del node.input[1:]
        node.input.append(_constant(model, f"{node.input[0]}__split", np.array(sizes, np.int64)))
        replace_all(node.attribute, [a for a in node.attribute if a.name != "num_outputs"])
    return True


def squeeze_axes(model: Model, shapes: Shapes, node: NodeProto) -> bool:
    """A ``Squeeze`` of every unit axis spells which, or it would squeeze what pruning leaves one position of.

    Where an axis has a size that changes it may be 1, too: then the node stays as it is, and its axes whole.
    """
    source = shapes.shapes.get(node.input[0]) if node.op_type == "Squeeze" else None
    if (
        source is None
        or any(shapes.dynamic.get(node.input[0], ()))
        or (len(node.input) > 1 and node.input[1])
        or any(a.name == "axes" for a in node.attribute)
    ):
        return False
    axes = [axis for axis, size in enumerate(source) if size == 1]
    if model.opset < 13:
        node.attribute.append(helper.make_attribute("axes", axes))
    else:
        del node.input[1:]
        node.input.append(_constant(model, f"{node.input[0]}__axes", np.array(axes, np.int64)))
    return True


def _constant(model: Model, stem: str, value: Array) -> str:
    name = model.fresh_name(stem)
    model.weights[name] = Weight(name, None, value)
    return name


def _pin(model: Model, shapes: Shapes, node: NodeProto, position: int, nodes: list[NodeProto], *, static_only: bool) -> bool:
    """Replace one input by what is known of it; nodes that the replacement needs go to ``nodes``."""
    name = node.input[position]
    value, open_ = shapes.values.get(name), shapes.open.get(name)
    if value is None or not np.issubdtype(value.dtype, np.integer):
        return False
    if open_ is None:
        node.input[position] = _constant(model, f"{name}__pinned", value)
        return True
    if static_only or node.op_type not in _REFRESHED or value.ndim != 1:
        return False
    moved = shapes.moving.get(name, value)
    if moved.shape != value.shape:
        return False
    spelled = np.where(open_, _COMPUTED, value)
    if node.op_type == "Reshape":
        _copy_or_infer(shapes, node, value, moved, spelled)
    computed = spelled == _COMPUTED
    if computed.all():
        return False
    pinned = _constant(model, f"{name}__pinned", np.where(computed, 0, spelled))
    if not computed.any():
        node.input[position] = pinned
        return True
    if node.op_type == "Reshape":
        name = _from_input(model, shapes, node, spelled, pinned, nodes)
    result = model.fresh_name(f"{name}__sizes")
    known = _constant(model, f"{name}__known", ~computed)
    nodes.append(helper.make_node("Where", [known, pinned, name], [result], name=result))
    node.input[position] = result
    return True


def _copy_or_infer(shapes: Shapes, node: NodeProto, value: Array, moved: Array, spelled: Array) -> None:
    """Spell dynamic entries of a ``Reshape`` as copies of the input's size (0), and one of the others as inferred (-1).

    Where zeros are allowed as sizes, a copy is spelled otherwise: then all entries are spelled so, or none.
    """
    allowed = next((a for a in node.attribute if a.name == "allowzero" and a.i == 1), None)
    if (spelled == 0).any():
        return
    entries = spelled.copy()
    source = shapes.shapes.get(node.input[0]) or ()
    moves = shapes.dynamic.get(node.input[0], (False,) * len(source))
    for entry in np.flatnonzero(entries == _COMPUTED):
        if entry < len(source) and moves[entry] and source[entry] == value[entry] != moved[entry]:
            entries[entry] = 0
    left = np.flatnonzero(entries == _COMPUTED)
    if len(left) and not (entries == -1).any():
        # The largest: a batch times heads is refreshed by inference, a lone sequence length needs no refreshing.
        entries[left[np.argmax(value[left])]] = -1
    if allowed is not None:
        if (entries == _COMPUTED).any():
            return
        node.attribute.remove(allowed)
    spelled[:] = entries


def _from_input(model: Model, shapes: Shapes, node: NodeProto, spelled: Array, pinned: str, nodes: list[NodeProto]) -> str:
    """The sizes of a ``Reshape``, with entries that static sizes are a factor of computed from the sizes of its input.

    Exporters compute a batch times heads, or the batch from that, by a number of heads that is written into the arithmetic,
    where pruning does not refresh it. What is read from the input shrinks with it, and ``pinned`` is refreshed.
    """
    name: str = node.input[1]
    source, out = shapes.shapes.get(node.input[0]), shapes.shapes.get(node.output[0])
    if source is None or out is None:
        return name
    moves = shapes.dynamic.get(node.input[0], (False,) * len(source))
    entries: dict[int, str] = {}
    for read, made in runs(source, out):
        open_ = [entry for entry in made if spelled[entry] == _COMPUTED]
        others = [entry for entry in made if entry not in open_]
        if len(open_) != 1 or any(spelled[entry] <= 0 for entry in others) or (not others and all(moves[axis] for axis in read)):
            continue
        sizes = _node(model, nodes, "Shape", node.input[0])
        entry = _product(model, nodes, sizes, read)
        entries[open_[0]] = _node(model, nodes, "Div", entry, _product(model, nodes, pinned, others)) if others else entry
    if not entries:
        return name
    parts = [entries.get(entry) or _picked(model, nodes, name, [entry]) for entry in range(len(out))]
    return _node(model, nodes, "Concat", *parts, axis=0)


def _picked(model: Model, nodes: list[NodeProto], sizes: str, places: Sequence[int]) -> str:
    return _node(model, nodes, "Gather", sizes, _constant(model, f"{sizes}__places", np.array(places, np.int64)), axis=0)


def _product(model: Model, nodes: list[NodeProto], sizes: str, places: Sequence[int]) -> str:
    return _node(model, nodes, "ReduceProd", _picked(model, nodes, sizes, places), keepdims=1)


def _node(model: Model, nodes: list[NodeProto], op: str, *inputs: str, **attributes: Any) -> str:
    name = model.fresh_name(f"{inputs[0]}__{op}")
    nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
    return name
