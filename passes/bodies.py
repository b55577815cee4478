"""Bodies of control flow in one flat namespace with the main graph: how axes can be followed into them.

Outer values are visible inside, so constants of bodies can live in the main graph; where names are unique, one name is one
value wherever it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from onnx import helper

from onnxprune.ir.model import Model
from onnxprune.ir.node import defined, domain_of, every_graph, every_node, is_followed, subgraphs
from onnxprune.ir.weights import Weight, densify
from onnxprune.shapes.probes import Shapes

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

__all__ = [
    "compute_outputs",
    "hoist",
    "inline_branches",
    "inline_constant",
    "inline_static",
    "rename",
    "replace_all",
    "unique_names",
]

Truth = Callable[[str], "bool | None"]
"""Whether a condition, by name, always holds; ``None`` where it may depend on the inputs."""

_PICKING = frozenset({"Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"})


def unique_names(model: Model) -> None:
    """No body makes a value of a name that another body or the main graph has a value of."""
    taken = {*model.weights, *defined(model.graph)}
    for node in model.graph.node:
        for body in subgraphs(node):
            _make_unique(model, body, taken)


def _make_unique(model: Model, body: GraphProto, taken: set[str]) -> None:
    rename(body, {name: model.fresh_name(name) for name in defined(body) if name in taken})
    taken.update(defined(body))
    for node in body.node:
        for inner in subgraphs(node):
            _make_unique(model, inner, taken)


def rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Give values of a graph, also where its bodies capture them, other names."""
    if not names:
        return
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        _rename_in(node, names)


def _rename_in(node: NodeProto, names: Mapping[str, str]) -> None:
    for field in (node.input, node.output):
        for at, name in enumerate(field):
            if name in names:
                field[at] = names[name]
    for body in subgraphs(node):
        own = set(defined(body))
        rename(body, {name: new for name, new in names.items() if name not in own})


def hoist(model: Model) -> None:
    """Initializers of bodies become initializers of the main graph; names are unique before."""
    for body in _bodies(model):
        constants = {tensor.name: Weight(tensor.name, tensor) for tensor in body.initializer}
        constants |= {sparse.values.name: Weight(sparse.values.name, None, densify(sparse)) for sparse in body.sparse_initializer}
        if constants:
            model.weights |= constants
            replace_all(body.input, [value for value in body.input if value.name not in constants])  # old models list both
            del body.initializer[:], body.sparse_initializer[:]


def compute_outputs(model: Model) -> None:
    """What a body returns is computed in it: of a constant of the main graph it returns a copy."""
    for body in _bodies(model):
        for output in body.output:
            if output.name in model.weights:
                copy = model.fresh_name(f"{output.name}__result")
                body.node.append(helper.make_node("Identity", [output.name], [copy]))
                output.name = copy


def inline_branches(model: Model, truth: Truth) -> bool:
    """Put the branch that is always taken in the place of its ``If``; whether there was any.

    Args:
        model: names are unique, and constants of bodies hoisted.
        truth: of the conditions.
    """
    changed = False
    for graph in every_graph(model.graph):
        choices = {at: truth(node.input[0]) for at, node in enumerate(graph.node) if node.op_type == "If" and is_followed(node)}
        choices = {at: choice for at, choice in choices.items() if choice is not None}
        if choices:
            nodes = [_taken(graph, node, choices[at]) if at in choices else [node] for at, node in enumerate(graph.node)]
            replace_all(graph.node, (node for several in nodes for node in several))
            changed = True
    return changed


def _taken(graph: GraphProto, node: NodeProto, choice: object) -> list[NodeProto]:
    """The nodes of one branch of an ``If``, making its outputs; what is recorded of their values goes to the graph."""
    wanted = "then_branch" if choice else "else_branch"
    body = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
    made = {name for inner in body.node for name in inner.output}
    names: dict[str, str] = {}
    copies: list[NodeProto] = []
    for name, output in zip(node.output, body.output, strict=False):
        if output.name in made and output.name not in names:
            names[output.name] = name or output.name
        elif name:
            copies.append(helper.make_node("Identity", [names.get(output.name, output.name)], [name]))
    rename(body, names)
    graph.value_info.extend(value for value in body.value_info if value.name not in node.output)
    return [*body.node, *copies]


def inline_constant(model: Model) -> bool:
    """Inline what a constant condition decides; whether there was any."""

    def truth(condition: str) -> bool | None:
        weight = None if condition in model.overridable else model.weights.get(condition)
        return None if weight is None else bool(weight.array().all())

    return inline_branches(model, truth)


def inline_static(model: Model, shapes: Shapes) -> bool:
    """Inline what static sizes decide, and spell the trips of loops that they limit; whether there was any."""
    static = _static(model, shapes)
    changed = inline_branches(model, lambda name: bool(shapes.values[name].all()) if name in static else None)
    for node in every_node(model.graph):
        if node.op_type == "Loop" and is_followed(node) and node.input[0] in static - model.weights.keys():
            limit = model.fresh_name(f"{node.input[0]}__pinned")
            model.weights[limit] = Weight(limit, None, shapes.values[node.input[0]])
            node.input[0] = limit
            changed = True
    return changed


def _static(model: Model, shapes: Shapes) -> set[str]:
    """Values that are the same whatever the inputs.

    That two probes agree is not enough: there are more than zero rows in both. It is where a value is made of sizes by picking
    alone, because dynamic sizes always differ between the probes.
    """
    static = set(model.weights)
    picked = set(static)
    for node in every_node(model.graph):
        names, made = set(filter(None, node.input)), node.output[0] if len(node.output) == 1 else ""
        if made not in shapes.values or domain_of(node):
            continue
        if node.op_type in {"Shape", "Size"} or (node.op_type in _PICKING and names <= picked):
            picked.add(made)
            if made not in shapes.open:
                static.add(made)
        elif names and names <= static:
            static.add(made)
            picked.add(made)
    return static


def replace_all(field: Any, items: Iterable[Any]) -> None:
    """Make a repeated protobuf field hold these items."""
    copies = list(items)
    del field[:]
    field.extend(copies)


def _bodies(model: Model) -> list[GraphProto]:
    return list(every_graph(model.graph))[1:]
