"""What the layers of a model will compute in, for those who plan by their times before that is carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from onnx import NodeProto

__all__ = ["IN_FLOATS", "LayerTypes"]


@dataclass(frozen=True, slots=True)
class LayerTypes:
    """Attributes:
    int8: whether layers compute in int8.
    floats: names of nodes, or of weights that they read, that stay in floating point even so.
    """

    int8: bool
    floats: Collection[str] = ()

    def is_int8(self, nodes: Sequence[NodeProto]) -> bool:
        """Whether nodes that are timed together compute in int8."""
        names = {name for node in nodes for name in (node.name, *node.input)}
        return self.int8 and names.isdisjoint(self.floats)


IN_FLOATS = LayerTypes(int8=False)
