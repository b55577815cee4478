"""Constants of a graph: they are initializers, each is stored once, and what is computed from them is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx import NodeProto

from onnxprune.ir.model import Model, pinned_sizes
from onnxprune.ir.node import CONTROL_FLOW, domain_of, every_graph, every_node, is_followed
from onnxprune.ir.weights import Array, Weight, constant_of
from onnxprune.passes.bodies import compute_outputs, hoist, rename, replace_all, unique_names
from onnxprune.runtime.session import evaluate

if TYPE_CHECKING:
    from onnxprune.ir.types import Shape

__all__ = ["constants_to_initializers", "fold", "gather_constants", "share", "tie", "untie"]

_NOT_FOLDED = frozenset({"DequantizeLinear", "QuantizeLinear", "Cast", "Bernoulli", "Multinomial"})
_SMALL_BYTES = 1 << 16
"""Results up to this size are folded whatever they are computed from."""


def gather_constants(model: Model) -> None:
    """Every constant is an initializer of the main graph, which bodies return copies of; nothing is computed."""
    bodies = any(map(is_followed, model.graph.node))
    if bodies:
        unique_names(model)
        hoist(model)
    constants_to_initializers(model)
    if bodies:
        compute_outputs(model)


def constants_to_initializers(model: Model) -> None:
    """A ``Constant`` node is an initializer under the name of its output."""
    kept = {value.name for value in model.graph.output}
    for graph in every_graph(model.graph):
        nodes = []
        for node in graph.node:
            constant = node.op_type == "Constant" and not domain_of(node) and node.output[0] not in kept
            weight = constant_of(node) if constant else None
            if weight is None:
                nodes.append(node)
            else:
                model.weights[weight.name] = weight
        if len(nodes) < len(graph.node):
            replace_all(graph.node, nodes)


def fold(model: Model) -> None:
    """Compute what only constants feed, unless the result is larger than what it is computed from (a mask).

    Weights that the graph generates become constants whatever their size: only those can be pruned. Sizes that pruning
    refreshes stay where they are, and so do nodes that read a matrix which others read, too: it would be stored twice. What a
    caller may override is no constant.
    """
    foldable: list[NodeProto] = []
    known = model.weights.keys() - pinned_sizes(model).values() - model.overridable
    for node in every_node(model.graph):
        names = [name for name in node.input if name]
        random = node.op_type.startswith("Random") or node.op_type in _NOT_FOLDED
        if names and not random and not domain_of(node) and node.op_type not in CONTROL_FLOW and known.issuperset(names):
            foldable.append(node)
            known.update(node.output)
    if not foldable:
        return
    kept = {value.name for graph in every_graph(model.graph) for value in graph.output}
    read = {name for node in foldable for name in node.input if name in model.weights}
    constants = {name: model.weights[name].array() for name in read}
    values = evaluate(model.proto, foldable, constants)
    generated = {
        node.input[1]
        for node in every_node(model.graph)
        if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"} and node.input[1]
    }
    gone: set[str] = set()
    shared = _shared(model, foldable, values)
    for node in foldable:
        if not shared.isdisjoint(node.input):
            continue
        results = [name for name in node.output if name]
        inputs = [model.weights[name].nbytes for name in node.input if name in model.weights]
        whole = all(name in model.weights for name in node.input if name) and all(name in values for name in results)
        whole = whole and kept.isdisjoint(results)
        small = sum(values[name].nbytes for name in results) <= max(sum(inputs), _SMALL_BYTES) if whole else False
        if whole and (small or (node.op_type == "ConstantOfShape" and not generated.isdisjoint(results))):
            gone.update(results)
            model.weights |= {name: Weight(name, None, values[name]) for name in results}
    for graph in every_graph(model.graph):
        left = [node for node in graph.node if gone.isdisjoint(node.output)]
        if len(left) < len(graph.node):
            replace_all(graph.node, left)


def _shared(model: Model, foldable: Sequence[NodeProto], values: Mapping[str, Array]) -> set[str]:
    """The matrices of which folding would store more than one copy."""
    made = {name for node in foldable for name in node.output}
    found = set()
    for name, readers in model.consumers().items():
        weight = model.weights.get(name)
        if weight is None or not weight.is_float or not weight.is_matrix:
            continue
        results = [value for node, _ in readers for value in node.output if value]
        copies = sum(values[value].nbytes for value in results if value in values)
        if len(readers) > 1 and (copies > weight.nbytes or not made.issuperset(results)):
            found.add(name)
    return found


def share(model: Model) -> None:
    """What is the same by name is one value: copies of a matrix are that matrix, and what equal nodes make of it is made once."""
    kept = {value.name for graph in every_graph(model.graph) for value in graph.output}
    matrices = {name for name, weight in model.weights.items() if weight.is_matrix} - model.overridable
    constant = set(model.weights) - model.overridable
    for graph in every_graph(model.graph):
        names: dict[str, str] = {}
        seen: dict[tuple[Any, ...], str] = {}
        nodes = []
        for node in graph.node:
            inputs = [names.get(name, name) for name in node.input]
            plain = node.op_type not in CONTROL_FLOW and not node.op_type.startswith("Random") and len(node.output) == 1
            if domain_of(node) or not plain or not constant.issuperset(filter(None, inputs)) or matrices.isdisjoint(inputs):
                nodes.append(node)
                continue
            (made,) = node.output
            key = (node.op_type, *sorted(attribute.SerializeToString() for attribute in node.attribute), *inputs)
            same = inputs[0] if node.op_type == "Identity" else seen.setdefault(key, made)
            if same != made and made not in kept:
                names[made] = same
                continue
            constant.add(made)
            matrices.add(made)
            nodes.append(node)
        if names:
            replace_all(graph.node, nodes)
            rename(graph, names)


def untie(model: Model) -> None:
    """Give every reader its own copy of a constant vector: exporters merge equal ones of unrelated layers.

    Truly tied weights are matrices; they stay one tensor with several readers. So do sizes that pruning refreshes.
    """
    _untie_decoded(model)
    pinned = {*pinned_sizes(model).values(), *model.overridable}
    for name, readers in list(model.consumers().items()):
        weight = model.weights.get(name)
        if weight is None or name in pinned or len(readers) < 2 or weight.is_matrix:
            continue
        for node, position in readers[1:]:
            if position < 0:
                continue
            copy = model.fresh_name(f"{name}__copy")
            model.weights[copy] = weight.renamed(copy)
            node.input[position] = copy


def tie(model: Model) -> Model:
    """The model with one constant for all copies that `untie` made of it and that are still equal; itself if there are none."""
    known: dict[tuple[str, Shape, bytes], str] = {}
    names: dict[str, str] = {}
    kept = {value.name for value in model.graph.output} | model.overridable
    copied = {origin for origin, count in Counter(weight.origin for weight in model.weights.values()).items() if count > 1}
    for name, weight in model.weights.items():
        if weight.origin in copied and name not in kept and not weight.is_matrix:
            first = known.setdefault((weight.origin, weight.shape, weight.array().tobytes()), name)
            if first != name:
                names[name] = first
    if not names:
        return model
    tied = model.copy()
    rename(tied.graph, names)
    for name in names:
        del tied.weights[name]
    return tied


def _untie_decoded(model: Model) -> None:
    """Give every reader of a quantised vector its own ``DequantizeLinear`` of it, whose constants can then be untied."""
    consumers = model.consumers()
    for graph in every_graph(model.graph):
        nodes: list[NodeProto] = []
        for node in graph.node:
            nodes.append(node)
            if node.op_type != "DequantizeLinear" or any(name not in model.weights for name in node.input):
                continue
            if model.weights[node.input[0]].is_matrix:
                continue
            for reader, position in consumers.get(node.output[0], [])[1:]:
                if position >= 0:
                    copy = NodeProto()
                    copy.CopyFrom(node)
                    copy.name = copy.output[0] = reader.input[position] = model.fresh_name(f"{node.output[0]}__copy")
                    nodes.append(copy)
        if len(nodes) > len(graph.node):
            replace_all(graph.node, nodes)
