"""What the layers of a model will compute in, for those who plan by their times before that is carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.runtime.int8_operators import LINEAR

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from onnx import NodeProto

__all__ = ["IN_FLOATS", "LayerTypes"]


@dataclass(frozen=True, slots=True)
class LayerTypes:
    """Attributes:
    int8: whether layers compute in int8.
    floats: what stays in floating point even so: names of nodes, of weights that they read, and operators.
    """

    int8: bool
    floats: Collection[str] = ()

    def is_int8(self, nodes: Sequence[NodeProto]) -> bool:
        """Whether nodes that are timed together compute in int8: the layers among them, or all where there is none."""
        layers = [node for node in nodes if node.op_type in LINEAR] or nodes
        names = {name for node in layers for name in (node.name, node.op_type, *node.input)}
        return self.int8 and names.isdisjoint(self.floats)


IN_FLOATS = LayerTypes(int8=False)
