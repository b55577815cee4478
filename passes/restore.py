"""Constants are stored as in the file again: once for all readers, or made by nodes, where that takes fewer bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from onnxprune.ir.files import constant_bytes
from onnxprune.ir.model import Model
from onnxprune.ir.node import CONTROL_FLOW, domain_of, every_node
from onnxprune.ir.plain import same_operator
from onnxprune.ir.weights import Array, Weight, field_bytes
from onnxprune.passes.base import Pass
from onnxprune.passes.bodies import replace_all
from onnxprune.passes.constants import gather_constants, tie
from onnxprune.runtime.session import evaluate

if TYPE_CHECKING:
    from onnxprune.ir.types import Shape

__all__ = ["ConstantNodes", "Restore"]

_RANDOM = frozenset({"Bernoulli", "Multinomial"})
_FILLS = 9
"""The operator set that brought ``ConstantOfShape``."""
_SMALL = 96
"""Bytes up to which a constant is not worth a node, with the names in it."""


@dataclass(frozen=True)
class Restore(Pass):
    """Copies of a constant that are still equal are one; what was folded, and is what nodes of the file make, is made by these.

    A matrix of 1 MB that ``ConstantOfShape`` and ``ScatterElements`` make of 30 kB is folded to see its axes; where none of
    them was pruned, it goes back into the file as it came. Constants that differ in one bit stay, and so do those that take less
    room than what makes them, all together that are made of one constant: ``Unsqueeze(w)`` in two branches stores ``w`` twice.
    Those that are cut, and all equal, are filled again. Computes the same as before.
    """

    def run(self, model: Model, original: Model) -> Model:
        """The model with such constants shared, or made by nodes of ``original``; ``model`` itself where there are none.

        Args:
            model: made from ``original``; its constants have the names that they had there.
            original: the file, as it was read.
        """
        model = tie(model)
        large = {weight.origin for weight in model.weights.values() if weight.nbytes > _SMALL} - original.weights.keys()
        if not large.intersection(name for node in every_node(original.graph) for name in node.output):
            return model
        file = original.copy()
        gather_constants(file)
        source = ConstantNodes(file, model.opset)
        free = [weight for name, weight in model.weights.items() if name not in model.overridable]
        found = [weight for weight in free if weight.origin in large & source.makers.keys()]
        changed = model.copy()
        writer = _Writer(source, changed)
        for weights in source.of_one_constant(found):
            writer.restore(weights)
        if not writer.nodes:
            return model
        replace_all(changed.graph.node, [*writer.nodes, *changed.graph.node])
        return changed


class ConstantNodes:
    """The nodes of a file that only constants feed, and that mean the same in another operator set.

    Attributes:
        model: the file.
        makers: for each value that they make the position of its node.
        nodes: these nodes, in an order in which they can run.
    """

    def __init__(self, model: Model, opset: int) -> None:
        self.model = model
        self.makers: dict[str, int] = {}
        self.nodes: list[NodeProto] = []
        known = model.weights.keys() - model.overridable
        for node in every_node(model.graph):
            names = [name for name in node.input if name]
            random = node.op_type.startswith("Random") or node.op_type in _RANDOM
            if not names or random or domain_of(node) or node.op_type in CONTROL_FLOW or not known.issuperset(names):
                continue
            if opset != model.opset and not same_operator(node.op_type, "", opset, model.opset):
                continue
            known.update(filter(None, node.output))
            self.makers |= dict.fromkeys(filter(None, node.output), len(self.nodes))
            self.nodes.append(node)

    def chain(self, name: str) -> list[NodeProto]:
        """The nodes that a value is made by, in their order."""
        found: set[int] = set()
        left = [name]
        while left:
            at = self.makers.get(left.pop())
            if at is not None and at not in found:
                found.add(at)
                left += filter(None, self.nodes[at].input)
        return [self.nodes[at] for at in sorted(found)]

    def constants(self, nodes: Iterable[NodeProto]) -> dict[str, Weight]:
        """The constants that nodes read."""
        weights = self.model.weights
        return {name: weights[name] for node in nodes for name in node.input if name in weights}

    def of_one_constant(self, weights: Iterable[Weight]) -> list[list[Weight]]:
        """Constants of a model, those together that nodes make of the same large constants: these are stored once for all."""
        found: dict[frozenset[str], list[Weight]] = {}
        for weight in weights:
            made_of = self.constants(self.chain(weight.origin))
            found.setdefault(frozenset(name for name, one in made_of.items() if one.nbytes > _SMALL), []).append(weight)
        return list(found.values())

    def value(self, name: str, nodes: Sequence[NodeProto]) -> Array | None:
        """What nodes make; ``None`` where ONNX Runtime cannot tell."""
        constants = {name: weight.array() for name, weight in self.constants(nodes).items()}
        return evaluate(self.model.proto, nodes, constants).get(name)


@dataclass(slots=True)
class _Writer:
    """Writes nodes of a file into a model.

    Attributes:
        source: the file.
        model: the model.
        nodes: what was written.
        names: for each value of the file that was written its name in the model.
        shapes: the constants that spell shapes of what is filled.
    """

    source: ConstantNodes
    model: Model
    nodes: list[NodeProto] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    shapes: dict[Shape, str] = field(default_factory=dict)

    def restore(self, weights: Sequence[Weight]) -> None:
        """Make constants of the model by nodes, if these make the same and take fewer bytes: all together, else each alone."""
        if self._written(weights):
            return
        for weight in weights:
            if len(weights) == 1 or not self._written([weight]):
                self._fill(weight, constant_bytes(self.model, weight))

    def _written(self, weights: Sequence[Weight]) -> bool:
        """Make all these by nodes, or none; tells which."""
        chains = [self.source.chain(weight.origin) for weight in weights]
        room = sum(constant_bytes(self.model, weight) for weight in weights)
        needed = {tuple(node.output): node for chain in chains for node in chain}
        new = [node for node in needed.values() if self.names.keys().isdisjoint(node.output)]
        constants = {name: one for name, one in self.source.constants(new).items() if not self._has(one)}
        smaller = self._bytes(new, constants.values()) < room
        if not smaller or not all(map(self._makes, chains, weights)):
            return False
        for weight in weights:
            del self.model.weights[weight.name]
        for name, one in constants.items():
            self.names[name] = self.model.fresh_name(name)
            self.model.weights[self.names[name]] = one.renamed(self.names[name])
        for node in new:
            self._write(node, {weight.origin: weight.name for weight in weights})
        for weight in weights:
            self._read(weight)
        return True

    def _bytes(self, nodes: Iterable[NodeProto], constants: Iterable[Weight]) -> int:
        """What nodes and constants take in the file."""
        of_nodes = sum(field_bytes(node.ByteSize()) for node in nodes)
        return of_nodes + sum(constant_bytes(self.model, one) for one in constants)

    def _makes(self, chain: Sequence[NodeProto], weight: Weight) -> bool:
        value = self.source.value(weight.origin, chain)
        return value is not None and _same(value, weight.array())

    def _fill(self, weight: Weight, room: int) -> None:
        """Make a constant of equal elements by a node that fills it, if that takes fewer bytes than ``room``.

        What nodes filled is filled, too, when it is cut. Constants of one shape share the constant that spells it.
        """
        array = weight.array()
        first = np.ascontiguousarray(array).reshape(-1)[:1]
        if self.model.opset < _FILLS or not weight.is_float or not _same(np.broadcast_to(first, array.shape), array):
            return
        maker = self.source.nodes[self.source.makers[weight.origin]]
        filled = maker.op_type == "ConstantOfShape"
        name = self.shapes.get(weight.shape)
        new = (
            [] if name else [Weight(maker.input[0] if filled else f"{weight.name}__shape", None, np.array(array.shape, np.int64))]
        )
        node = helper.make_node("ConstantOfShape", [name or new[0].name], [weight.name], value=numpy_helper.from_array(first))
        node.name = maker.name if filled else ""
        if self._bytes([node], new) >= room:
            return
        del self.model.weights[weight.name]
        for one in new:
            node.input[0] = self.shapes[weight.shape] = self.model.fresh_name(one.name)
            self.model.weights[node.input[0]] = one.renamed(node.input[0])
        self.nodes.append(node)

    def _has(self, constant: Weight) -> bool:
        """Tell whether a constant of the file is in the model, or was written."""
        if constant.name in self.names:
            return True
        there = self.model.weights.get(constant.name)
        if there is None or there.nbytes != constant.nbytes or not _same(there.array(), constant.array()):
            return False
        self.names[constant.name] = constant.name
        return True

    def _write(self, node: NodeProto, wanted: dict[str, str]) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        for at, name in enumerate(node.output):
            if name:
                self.names[name] = copy.output[at] = wanted.get(name) or self.model.fresh_name(name)
        for at, name in enumerate(node.input):
            if name:
                copy.input[at] = self.names[name]
        self.nodes.append(copy)

    def _read(self, weight: Weight) -> None:
        """Let readers of a second copy of a constant read what was written for the first."""
        made = self.names[weight.origin]
        if made == weight.name:
            return
        if any(value.name == weight.name for value in self.model.graph.output):
            self.nodes.append(NodeProto(op_type="Identity", input=[made], output=[weight.name]))
            return
        for node, position in self.model.consumers().get(weight.name, []):
            if position >= 0:
                node.input[position] = made


def _same(one: Array, other: Array) -> bool:
    """Whether two arrays are equal bit for bit."""
    return one.dtype == other.dtype and one.shape == other.shape and np.ascontiguousarray(one).tobytes() == other.tobytes()
