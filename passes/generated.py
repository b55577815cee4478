"""Weights that nodes of a file make of next to nothing: they are no data, and stay as they are where they would become some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.ir.weights import Weight
from onnxprune.passes.constants import gather_constants
from onnxprune.passes.restore import ConstantNodes
from onnxprune.runtime.session import evaluate

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

__all__ = ["generated_weights"]

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gather", "Gemm", "MatMul"})
"""Operators whose weights are most of a file."""


def generated_weights(model: Model) -> dict[str, Weight]:
    """The weights of layers, by name, that nodes make of fewer bytes than there are elements.

    ``ConstantOfShape`` fills a weight of any size from a few bytes; others repeat a row, or unpack 4 bits. In int8, and
    with zeros in it, such a weight would be stored, and the file grow. What is transposed, or cast from half precision, takes
    more bytes than elements, and is not among them.
    """
    file = model.copy()
    gather_constants(file)
    source = ConstantNodes(file, file.opset)
    layers = (node for node in file.graph.node if node.op_type in _LAYERS)
    chains = {name: source.chain(name) for node in layers for name in node.input[:2] if name in source.makers}
    needed = {name for chain in chains.values() for node in chain for name in node.output}
    nodes = [node for node in source.nodes if not needed.isdisjoint(node.output)]
    values = evaluate(file.proto, nodes, {name: one.array() for name, one in source.constants(nodes).items()}) if nodes else {}
    found = {}
    for name, chain in chains.items():
        weight = Weight(name, None, values[name]) if name in values else None
        stored = sum(node.ByteSize() for node in chain) + sum(one.nbytes for one in source.constants(chain).values())
        if weight is not None and weight.is_float and stored < weight.size:
            found[name] = weight
    return found
