"""Rewrite a graph so that what is dead, constant or duplicated carries no weight: the model stays what it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, helper

from onnxprune.axes.plan import Plan
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array, Weight
from onnxprune.options.targets import Align
from onnxprune.passes.base import Pass
from onnxprune.passes.bodies import replace_all
from onnxprune.passes.prune_channels import MaskChannels
from onnxprune.pruning.lossless.search import Removal, search

if TYPE_CHECKING:
    from onnxprune.passes.analysis import Analysis
    from onnxprune.pruning.lossless.affine import Affine

__all__ = ["Lossless", "Rewritten"]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A model that computes what it did, with positions that carry no weight.

    Attributes:
        model: the model; the analysed one itself where there are no such positions.
        removal: those positions, and why they carry none.
        plan: removes them, except those that alignment keeps. It is for the groups of the rewritten model.
    """

    model: Model
    removal: Removal
    plan: Plan


@dataclass(frozen=True)
class Lossless(Pass):
    """Make every constant zero at positions that are dead, constant or duplicates, and let others take over what they did.

    The rewritten model computes what the model did. The plan removes those positions, except what alignment keeps.
    """

    align: Align = Align(1)
    """Widths are multiples of this: auto (16), 1 or N."""

    def run(self, analysis: Analysis) -> Rewritten:
        """The rewritten model, and what may go from it.

        Raises:
            ModelError: weights are not finite.
        """
        model, coupling = analysis.model, analysis.coupling
        removal = search(model, coupling)
        plan = Plan(removal.keep(coupling, self.align))
        if not removal.gone:
            return Rewritten(model, removal, plan)
        sizes = {group.id: group.size for group in coupling.groups}
        whole = Plan({name: np.delete(np.arange(sizes[name]), gone) for name, gone in removal.gone.items()})
        rewritten = model.copy()
        moved = _Biases(rewritten)
        for edit in removal.edits:
            weight = model.weights[edit.forms[0].matrix]
            rewritten.weights[weight.name] = weight.derived(weight.shape, edit.apply)
            for form, added in zip(edit.forms, edit.biases, strict=True):
                if added.any():
                    moved.add(form, added)
        masked = MaskChannels().run(replace(analysis, model=rewritten), whole)
        moved.insert(masked)
        return Rewritten(masked, removal, plan)


class _Biases:
    """Adds vectors to the outputs of nodes: to the bias, to the bias that the next node adds, or by a node of its own."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._consumers = model.consumers()
        self._outputs = {value.name for value in model.graph.output}
        self._new: dict[int, NodeProto] = {}

    def add(self, form: Affine, vector: Array) -> None:
        """Add ``vector`` [width of the output] to the output of a node."""
        node = self._model.graph.node[form.node.index]
        if form.bias >= 0 and form.scales[1]:
            scaled = vector / form.scales[1]
            if len(node.input) <= form.bias or not node.input[form.bias]:
                del node.input[form.bias :]
                node.input.append(self._constant(f"{form.matrix}__bias", scaled, form))
                return
            if self._extend(node, form.bias, scaled):
                return
        rank = len(form.node.view.out())
        shaped = vector.reshape(-1, *[1] * (rank - 1 - form.out_axis))
        following = self._consumers.get(node.output[0], [])
        if len(following) == 1 and node.output[0] not in self._outputs:
            (after, position) = following[0]
            if after.op_type == "Add" and position >= 0 and self._extend(after, 1 - position, shaped):
                return
        self._append(form, shaped)

    def _extend(self, node: NodeProto, position: int, vector: Array) -> bool:
        """Add to a constant that one node reads, if it is no smaller; whether it was done."""
        name = node.input[position]
        weight = self._model.weights.get(name)
        if weight is None or len(self._consumers[name]) > 1:
            return False
        shape = np.broadcast_shapes(weight.shape, vector.shape)
        if np.prod(shape, dtype=int) > max(weight.size, vector.size):
            return False
        array = weight.array()
        self._model.weights[name] = Weight(name, None, (array.astype(np.float64) + vector).astype(array.dtype))
        return True

    def _append(self, form: Affine, vector: Array) -> None:
        """An ``Add`` behind the node, whose output keeps its name."""
        node = self._model.graph.node[form.node.index]
        name = node.output[0]
        node.output[0] = self._model.fresh_name(f"{name}__sum")
        constant = self._constant(f"{form.matrix}__bias", vector, form)
        self._new[form.node.index] = helper.make_node("Add", [node.output[0], constant], [name], name=f"{node.output[0]}__add")

    def _constant(self, stem: str, vector: Array, form: Affine) -> str:
        name = self._model.fresh_name(stem)
        dtype = self._model.weights[form.matrix].array().dtype
        self._model.weights[name] = Weight(name, None, vector.astype(dtype))
        return name

    def insert(self, model: Model) -> None:
        """Put the new nodes into a graph with the same nodes, each behind the one it belongs to."""
        if not self._new:
            return
        nodes: list[NodeProto] = []
        for index, node in enumerate(model.graph.node):
            nodes.append(node)
            nodes.extend([self._new[index]] if index in self._new else [])
        replace_all(model.graph.node, nodes)
