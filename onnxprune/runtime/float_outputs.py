"""Products in int8 whose results only nodes in floating point read output floats, and are not rounded on the way there.

ONNX Runtime adds up the products of integers and scales the sums once (``MatMulIntegerToFloat``, ``QGemm``), which takes less
time than rounding them and decoding that: the sentence encoder MiniLM with its products in int8 has a cosine of 0.984 with what
it was, in 0.49 of its time; with rounded outputs it was 0.903, in 0.53. Convolutions have no such form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from onnxprune.ir.node import QDQ, domain_of, values_read
from onnxprune.runtime.int8_operators import LINEAR

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["with_float_outputs"]

_PRODUCTS = frozenset({"MatMul", "Gemm"})


def with_float_outputs(nodes: Sequence[NodeProto], outputs: Collection[str], rectified: Collection[str]) -> list[NodeProto]:
    """The nodes without ``QuantizeLinear`` and ``DequantizeLinear`` behind such products; names in the others are changed.

    Args:
        nodes: of a graph, in order.
        outputs: of the graph, which keep their names.
        rectified: values whose rounding also is the rectifier that made them: these stay rounded.
    """
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in values_read(node):
            readers.setdefault(name, []).append(node)
    found = list(_decoded(nodes, outputs, readers))
    cut = {made for name, made in found if not {name, made}.isdisjoint(rectified)}
    decoded = {name: made for name, made in found if made not in cut}
    own = {made: name for name, made in decoded.items() if name in outputs}  # the product makes the output itself
    renamed = {name: own.get(made, made) for name, made in decoded.items()} | own
    dropped = {name for made in decoded.values() for reader in readers[made] for name in reader.output} | decoded.keys()
    kept = [node for node in nodes if node.op_type not in QDQ or dropped.isdisjoint(node.output)]
    for node in kept if renamed else ():
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [own.get(name, name) for name in node.output]
    return kept


def _decoded(
    nodes: Sequence[NodeProto], outputs: Collection[str], readers: Mapping[str, Sequence[NodeProto]]
) -> Iterator[tuple[str, str]]:
    """The values that are decoded from what such products make, each with what the product makes."""
    makers = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type not in _PRODUCTS or domain_of(node) or not _is_decoded(node, makers):
            continue
        made = node.output[0]
        behind = readers.get(made, [])
        if made in outputs or [one.op_type for one in behind] != ["QuantizeLinear"]:
            continue
        decoders = readers.get(behind[0].output[0], [])
        names = [one.output[0] for one in decoders if one.op_type == "DequantizeLinear"]
        following = [(name, reader) for name in names for reader in readers.get(name, ())]
        simple = len(names) == len(decoders) and sum(name in outputs for name in names) <= 1
        inner = any(name not in reader.input for name, reader in following)  # names in bodies stay
        if simple and not inner and not any(_in_integers(reader, readers) for _, reader in following):
            yield from ((name, made) for name in names)


def _is_decoded(node: NodeProto, makers: Mapping[str, NodeProto]) -> bool:
    """Whether both factors of a product are decoded from integers."""
    factors = [makers.get(name) for name in node.input[:2]]
    return all(maker is not None and maker.op_type == "DequantizeLinear" for maker in factors)


def _in_integers(node: NodeProto, readers: Mapping[str, Sequence[NodeProto]]) -> bool:
    """Whether a node that reads decoded values computes in integers: a layer does, and what is rounded afterwards may."""
    rounded = (one.op_type == "QuantizeLinear" for name in node.output for one in readers.get(name, ()))
    return node.op_type in LINEAR or any(rounded)
