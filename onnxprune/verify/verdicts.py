"""What a comparison says of each output, and whether it can say anything: an output that never moves tests nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.ir.node import subgraphs, values_read
from onnxprune.verify.shaking import sparse_weights

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.ir.model import Model

__all__ = [
    "Check",
    "OutputVerdict",
    "Verdict",
    "ancestors",
    "best",
    "front",
    "reached",
    "silence",
]


class Verdict(StrEnum):
    """What is known of an output of a model that was changed."""

    PROVEN = "proven"
    """Equal bit for bit, or in float64 to the tolerance of float64."""
    TESTED = "tested"
    """Equal to the tolerance of its type on inputs that would have shown a difference."""
    NOT_TESTED = "not tested"
    """Nothing says anything of it."""


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """The verdict on one output.

    Attributes:
        output: its name.
        verdict: what is known.
        why: where it was compared, if that was not itself; or why it was not tested.
    """

    output: str
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of comparing two models.

    Attributes:
        ok: whether they agree.
        error: the largest difference, relative to the largest absolute value of that output; infinite if one did not run.
        text: what went wrong, in one sentence; empty if nothing did.
        runs: how many sizes of inputs were compared.
        behind: outputs that depend on a choice (``TopK``, a threshold) and were compared where the choice is made.
        notes: how the models were compared, where that was not as they are.
        outputs: what is known of each output, if they agree.
    """

    ok: bool
    error: float
    text: str = ""
    runs: int = 0
    behind: int = 0
    notes: tuple[str, ...] = ()
    outputs: tuple[OutputVerdict, ...] = ()

    @property
    def untested(self) -> tuple[OutputVerdict, ...]:
        """The outputs of which nothing is known."""
        return tuple(one for one in self.outputs if one.verdict is Verdict.NOT_TESTED)


def best(ways: Sequence[tuple[OutputVerdict, ...]]) -> tuple[OutputVerdict, ...]:
    """For each output of the first way that a model runs, its verdict; that of another way where the first does not test it."""
    first, *rest = ways
    others = {one.output: one for way in rest for one in way if one.verdict is not Verdict.NOT_TESTED}
    return tuple(others.get(one.output, one) if one.verdict is Verdict.NOT_TESTED else one for one in first)


def reached(model: Model, names: Collection[str]) -> set[str]:
    """The values of the main graph that depend on constants named in ``names``; its nodes are in order."""
    found = set(names)
    for node in model.graph.node:
        if not found.isdisjoint(values_read(node)):
            found.update(name for name in node.output if name)
    return found


def silence(arrays: Sequence[Any], moves: Callable[[], bool]) -> str:
    """Why the values of an output, one for each run, say nothing of weights; empty if they do.

    Args:
        arrays: its values.
        moves: whether it moves when the weights that it depends on do; always, where it depends on none.
    """
    dense = [array for array in arrays if isinstance(array, np.ndarray)]
    full = [array for array in dense if array.size]
    if dense and not full:
        return "" if moves() else "is empty"
    floats = full if full and full[0].dtype.kind == "f" else []
    if floats and not any(np.isfinite(array).any() for array in floats):
        return "is nowhere finite"
    if moves():
        return ""
    constant = sum(a.size for a in floats) > 1 and len({value for a in floats for value in (a.min(), a.max())}) == 1
    return "is constant" if constant else "does not move when weights do"


def ancestors(model: Model, names: Collection[str], depth: int) -> list[str]:
    """Values of the main graph that others are computed from in at most ``depth`` steps, these included; in graph order."""
    makers = _makers(model)
    found, layer = set(names), set(names)
    for _ in range(depth):
        layer = {name for made in layer if made in makers for name in values_read(makers[made]) if name in makers} - found
        found |= layer
    return [name for name in makers if name in found]


def _makers(model: Model) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output if name}


def front(model: Model, output: str, moving: Collection[str], heard: Callable[[str], bool | None]) -> set[str] | None:
    """The nearest values that an output is computed from, that say something; ``None`` where there are none.

    Nothing between these values and the output reads a weight that matters, so that they decide for it.

    Args:
        model: its nodes are in order.
        output: says nothing itself.
        moving: the weights that matter.
        heard: whether a value says something; ``None`` where that is not known.
    """
    makers, matter, weights = _makers(model), reached(model, moving), {*model.weights, *sparse_weights(model)}
    found: set[str] = set()
    seen, left = {output}, [output]
    while left:
        node = makers.get(left.pop())
        if node is None or any(True for _ in subgraphs(node)) or not matter.isdisjoint(weights.intersection(node.input)):
            return None
        for name in (name for name in node.input if name in matter and name not in seen):
            seen.add(name)
            says = heard(name)
            if says is None:
                return None
            if says:
                found.add(name)
            else:
                left.append(name)
    return found or None
