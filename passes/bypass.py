"""Take branches out of a graph: each sum becomes its other term."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.ir.model import Model
from onnxprune.ir.node import captured
from onnxprune.linear.reconstruction import UNBOUNDED, rectified_to
from onnxprune.passes.base import Pass
from onnxprune.passes.bodies import replace_all
from onnxprune.passes.normalize import remove_unused
from onnxprune.pruning.branches import Branch

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["Bypass", "RemoveBranches"]


@dataclass(frozen=True)
class Bypass(Pass):
    """An ``Identity`` of the other term takes the place of each sum, so that nodes keep their places: what repair works on.

    Nothing reads the branches any more; they are still there.
    """

    def run(self, model: Model, branches: Iterable[Branch]) -> Model:
        """The model with branches bypassed."""
        bypassed = model.copy()
        for branch in branches:
            node = bypassed.graph.node[branch.place]
            node.op_type = "Identity"
            node.input[:] = [branch.rest]
            del node.attribute[:]  # sums of old operator sets have some
        return bypassed


@dataclass(frozen=True)
class RemoveBranches(Pass):
    """What is bypassed goes, and what reads a bypass reads what enters it. Computes the same as before.

    A rectifier of what another one like it has made goes, too: the one in front of a branch is followed by the one behind.
    """

    def run(self, bypassed: Model, branches: Iterable[Branch]) -> Model:
        """The smaller model.

        Args:
            bypassed: a model as `Bypass` returns it, perhaps with other weights.
            branches: those that are bypassed.
        """
        model = bypassed.copy()
        places = {branch.place for branch in branches}
        outputs = {output.name for output in model.graph.output}
        stay = outputs.union(*map(captured, model.graph.node))
        renamed: dict[str, str] = {}
        makers: dict[str, NodeProto] = {}
        nodes: list[NodeProto] = []
        for place, node in enumerate(model.graph.node):
            node.input[:] = [renamed.get(name, name) for name in node.input]
            if node.output[0] not in stay and (place in places or _rectifies_again(model, node, makers)):
                renamed[node.output[0]] = node.input[0]
                continue
            nodes.append(node)
            makers.update(dict.fromkeys(node.output, node))
        gone = renamed.keys()
        replace_all(model.graph.node, nodes)
        replace_all(model.graph.value_info, [info for info in model.graph.value_info if info.name not in gone])
        remove_unused(model)
        return model


def _rectifies_again(model: Model, node: NodeProto, makers: Mapping[str, NodeProto]) -> bool:
    """Whether a node clips to bounds what another has clipped to them."""
    bounds = rectified_to(model, node)
    maker = makers.get(node.input[0]) if bounds != UNBOUNDED else None
    return maker is not None and rectified_to(model, maker) == bounds
