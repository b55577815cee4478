"""Tell repair from damage: a model that is cut again takes from a file what repair may have changed there, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.ir.model import Model
from onnxprune.linear.linear_groups import linear_groups
from onnxprune.passes.base import Pass
from onnxprune.passes.repair import repair_tasks

if TYPE_CHECKING:
    from onnxprune.axes.plan import Plan
    from onnxprune.linear.layers import Reader
    from onnxprune.passes.analysis import Analysis

__all__ = ["Refill", "Refilled"]


@dataclass(frozen=True, slots=True)
class Refilled:
    """Attributes:
    model: with the weights of the file.
    repaired: the weights that it had otherwise, or not at all.
    """

    model: Model
    repaired: tuple[str, ...]


@dataclass(frozen=True)
class Refill(Pass):
    """Take from a file the weights and biases that `Repair` may change, and those that `Rotate` may, where they have one shape.

    Where the result is not the file, that was not made by repair.
    """

    def run(self, pruned: Model, original: Analysis, plan: Plan, file: Model) -> Refilled:
        """The pruned model with the weights of the file.

        Args:
            pruned: the original, cut down to the plan.
            original: the original and its groups.
            plan: what remains.
            file: the pruned model as it was written, repaired or not.
        """
        model, coupling = pruned.copy(), original.coupling
        keep = plan.positions(coupling)
        counts = {factor: len(kept) for factor, kept in keep.items()}
        readers = [task.reader for task in repair_tasks(pruned, original)]
        rotated = (found for found in linear_groups(original.model, coupling) if found.group.factor in keep)
        names = {name for reader in readers for name in reader.constants}
        names |= {name for found in rotated for name, _ in found.constants}
        repaired = [name for name in pruned.weights if name in names and _taken(model, file, name)]
        makers = {node.output[0]: node for node in file.graph.node if node.output}
        for reader in (reader for reader in readers if reader.can_add_bias):
            twin = makers.get(reader.node.view.outputs[0])
            name = twin.input[2] if twin is not None and len(twin.input) == 3 else ""
            if name and name not in model.weights and _fits(reader.cut(counts), file, name):
                _grow(model, reader, file, name)
                repaired.append(name)
        return Refilled(model, tuple(repaired))


def _taken(model: Model, file: Model, name: str) -> bool:
    """Take a weight of the file, if it is another of the same shape and type."""
    mine, theirs = model.weights[name], file.weights.get(name)
    if theirs is None or (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
        return False
    model.weights[name] = theirs
    return not mine.equals(theirs)


def _fits(reader: Reader, file: Model, name: str) -> bool:
    bias = file.weights.get(name)
    return bias is not None and bias.shape == (reader.groups * reader.roles.size("output"),)


def _grow(model: Model, reader: Reader, file: Model, name: str) -> None:
    """Give a reader the bias that it has in the file."""
    inputs = model.graph.node[reader.node.index].input
    del inputs[2:]
    inputs.append(name)
    model.weights[name] = file.weights[name]
