"""A graph as every command reads it: without local functions, each operator set named once, nodes in an order in which they run.

Exporters write functions, converters append nodes at the end, and programs that join models name operator sets twice; ONNX
Runtime inlines and sorts for itself, and takes the last name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import onnx
from onnx.defs import SchemaError, get_schema

from onnxprune.ir.node import STANDARD_DOMAINS, subgraphs
from onnxprune.ir.toposort import in_order

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

__all__ = ["default_attributes", "make_plain", "same_operator"]


def make_plain(proto: ModelProto, name: str) -> None:
    """Inline the functions of a model, name each operator set once, and sort the nodes of its graph, in place.

    Bodies must be sorted to run anywhere.

    A function of other operator sets than the model's is inlined where its operators are the same in both; else it stays.

    Args:
        proto: the model; its constants may be absent.
        name: of the model, for messages.

    Raises:
        ModelError: nodes read each other's outputs in a circle.
    """
    _name_opsets_once(proto)
    if proto.functions:
        _inline(proto)
    nodes = in_order(proto.graph.node, name)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _name_opsets_once(proto: ModelProto) -> None:
    """Keep the last version of each operator set, which is what ONNX Runtime goes by where there are several."""
    versions = {_domain(opset): opset.version for opset in proto.opset_import}
    if len(versions) < len(proto.opset_import):
        del proto.opset_import[:]
        proto.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in versions.items())


def _inline(proto: ModelProto) -> None:
    import onnx.inliner

    versions = {_domain(opset): opset.version for opset in proto.opset_import}
    for function in proto.functions:
        _adopt(function, versions)
    for domain in versions.keys() - {_domain(opset) for opset in proto.opset_import}:
        proto.opset_import.append(onnx.helper.make_opsetid(domain, versions[domain]))
    proto.CopyFrom(onnx.inliner.inline_local_functions(proto))


def _adopt(function: FunctionProto, versions: dict[str, int]) -> None:
    """Let a function name the operator sets of the model where that changes none of its operators; new ones are added."""
    for opset in function.opset_import:
        domain = _domain(opset)
        version = versions.setdefault(domain, opset.version)
        used = {node.op_type for node in _every_node(function.node) if _domain(node) == domain}
        if version != opset.version and all(same_operator(op, domain, version, opset.version) for op in used):
            opset.version = version


def same_operator(op: str, domain: str, one: int, other: int) -> bool:
    """Whether an operator is the same in two versions of its operator set."""
    try:
        first, second = get_schema(op, one, domain), get_schema(op, other, domain)
    except SchemaError:  # another function, or a runtime's own operator: the standard does not version those
        return domain not in STANDARD_DOMAINS
    return first.since_version == second.since_version


def default_attributes(op: str, opset: int) -> dict[str, bytes]:
    """What attributes of a standard operator are where a node does not say, as protobuf spells them, by name."""
    try:
        schema = get_schema(op, opset, "")
    except SchemaError:  # a runtime's own operator
        return {}
    defaults = {name: attribute.default_value for name, attribute in schema.attributes.items()}
    return {name: value.SerializeToString() for name, value in defaults.items() if value.name}


def _every_node(nodes: Iterable[NodeProto]) -> Iterable[NodeProto]:
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from _every_node(body.node)


def _domain(named: onnx.OperatorSetIdProto | NodeProto) -> str:
    return "" if named.domain in STANDARD_DOMAINS else named.domain
