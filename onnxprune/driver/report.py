"""What happened, as data: the same for people (tables) and for machines (JSON).

A report has an attribute for each key of the JSON document that a command prints, however many these are.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxprune.pages.brief import brief

if TYPE_CHECKING:
    from onnxprune.driver.judgement import Judgement
    from onnxprune.latency.benchmark import BenchReport
    from onnxprune.linear.reconstruction import Repaired
    from onnxprune.options.targets import Target
    from onnxprune.pruning.cost import Cost
    from onnxprune.sparse.kernel_nodes import KernelLayer
    from onnxprune.verify.drift import Drift
    from onnxprune.verify.metrics import QualityScore
    from onnxprune.verify.verdicts import Check

__all__ = ["GroupReport", "LeverReport", "OptimizeReport", "QuantReport", "Report", "SparseLayer", "SparseReport"]


class _Told(ABC):
    """A report that Python shows on a few lines."""

    __slots__ = ()

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """As plain data."""

    def __repr__(self) -> str:
        """Accuracy, costs and the proof."""
        return brief(type(self).__name__, self.to_dict())


def _plain(report: Any, judgement: Judgement | None) -> dict[str, Any]:
    """A report as plain data."""
    return {**dataclasses.asdict(report), "judgement": judgement.to_dict() if judgement else None}


@dataclass(frozen=True, slots=True)
class GroupReport:
    """One group: how many positions it has and keeps, whether it is exact, where it starts."""

    id: str
    size: int
    kept: int
    exact: bool
    members: int


@dataclass(frozen=True, slots=True, repr=False)
class Report(_Told):
    """What was asked for, what came of it, and what it cost; an attribute for each key of the JSON document.

    Attributes:
        model: the input.
        requested: the target.
        obtained: the fraction of each metric that remains.
        before: costs of the original.
        after: costs of the pruned model.
        groups: every group.
        refusals: every axis of a constant that could not be pruned, as a plan lists them.
        verification: pruned against masked, or against the original where nothing but the lossless was asked for; ``None``
            when it was switched off.
        repairs: the readers that were repaired since, with their errors before and after.
        score: how good the model is on samples with labels, or on those of ``--eval``; ``None`` if there were none.
        tried: the targets that were tried to find it, with the score of each.
        frozen: groups that were left whole because the verifier found them wrong, with the reason.
        drift: outputs of the pruned model against the original's; ``None`` when it was switched off.
        benchmark: latency of the original and the pruned model; ``None`` when it was switched off.
        seconds: wall time of each stage.
        notes: what else the user should know.
        lossless: how many positions went without loss for each reason, and the proof that the outputs are the original's;
            ``None`` where that was not asked for.
        judgement: how good the model is beside the original.
        max_drop: what the score might lose, as the user wrote it; empty where the target was not searched for.
        predicted: the device that latency was planned for, with what it is predicted to be there; ``None`` for this machine.
    """

    model: str
    requested: str
    obtained: Mapping[str, float]
    before: Cost
    after: Cost
    groups: tuple[GroupReport, ...]
    refusals: tuple[Mapping[str, Any], ...]
    verification: Check | None = None
    repairs: tuple[Repaired, ...] = ()
    score: QualityScore | None = None
    tried: tuple[tuple[Target, float], ...] = ()
    frozen: Mapping[str, str] = field(default_factory=dict)
    drift: Drift | None = None
    benchmark: BenchReport | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lossless: Mapping[str, Any] | None = None
    judgement: Judgement | None = None
    max_drop: str = ""
    predicted: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return _plain(self, self.judgement)


@dataclass(frozen=True, slots=True)
class SparseLayer:
    """A layer that may be sparse.

    Attributes:
        node: its node.
        weight: its initializer, as the normalised graph names it.
        shape: of the weight.
        size: how many elements it has.
        kept: how many of them are not zero.
        energy: the share of the sum of their squares, in the original, that lies where they are not zero.
    """

    node: str
    weight: str
    shape: tuple[int, ...]
    size: int
    kept: int
    energy: float


@dataclass(frozen=True, slots=True, repr=False)
class SparseReport(_Told):
    """What was asked for, and what came of it; an attribute for each key of the JSON document.

    Attributes:
        model: the input.
        requested: the target, or the pattern where that says all.
        pattern: what could be kept.
        method: how it was chosen.
        allocation: how the sparsity was shared out; empty where the pattern or a threshold says that.
        layers: those that may be sparse.
        dense: the weights of layers that stay dense because they come first or last.
        left: other matrices that stay dense, by name, with the reason.
        parameters: floating-point constants of the whole model.
        zeros: how many of them are zero in the layers.
        size: bytes of the original and of what is written.
        gzip: the same after gzip.
        before: MACs, parameters and bytes of the original.
        after: likewise of the result, whose zeros count as well.
        permuted: groups whose channels changed places, proven to compute the same.
        verification: the result against the original with the same weights in its own constants.
        repairs: the readers that were refit, with their errors: weights only cut, and refit.
        drift: outputs against the original's; ``None`` when it was switched off.
        seconds: wall time of each stage.
        kernels: the layers that have sparse kernels.
        latency: as a fraction of the original's, measured here on one thread, where that was asked for: the median.
        spread: the quartiles of it.
        notes: what else the user should know.
        score: how good the model is on samples with labels, or on those of ``--eval``; ``None`` if there were none.
        judgement: how good the model is beside the original.
    """

    model: str
    requested: str
    pattern: str
    method: str
    allocation: str
    layers: tuple[SparseLayer, ...]
    dense: tuple[str, ...]
    parameters: int
    zeros: int
    size: tuple[int, int]
    gzip: tuple[int, int]
    before: Cost | None = None
    after: Cost | None = None
    left: Mapping[str, str] = field(default_factory=dict)
    permuted: tuple[str, ...] = ()
    verification: Check | None = None
    repairs: tuple[Repaired, ...] = ()
    drift: Drift | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    kernels: tuple[KernelLayer, ...] = ()
    latency: float | None = None
    spread: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    score: QualityScore | None = None
    judgement: Judgement | None = None

    @property
    def sparsity(self) -> float:
        """Share of zeros in the layers that may be sparse."""
        return self.zeros / max(sum(layer.size for layer in self.layers), 1)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        overall = self.zeros / max(self.parameters, 1)
        kernels = [layer.to_dict() for layer in self.kernels]
        return {**_plain(self, self.judgement), "kernels": kernels, "sparsity": self.sparsity, "overall": overall}


@dataclass(frozen=True, slots=True, repr=False)
class QuantReport(_Told):
    """What was quantised, and what came of it; an attribute for each key of the JSON document.

    Attributes:
        model: the input.
        recipe: how, with what was decided.
        nodes: how many nodes compute in int8, by operator.
        kept: nodes that compute in floating point, each with its name ``node``, its ``op`` and ``why``.
        weights: how many weights are in int8.
        rounded: for how many of them integers were chosen on samples, so that layers output what they did.
        elements: how many elements they have.
        zeros: how many of these are zero, before and after; every one that was zero is.
        size: bytes of the original and of the result.
        before: MACs, parameters and bytes of the original; ``None`` where it cannot be analysed.
        after: likewise of the result, which has the MACs and parameters that it had in float.
        verification: what was quantised (decoded, folded) against the original; not the rounding to int8, which nothing proves.
        drift: outputs against the original's, in exact arithmetic; ``None`` when it was switched off.
        arithmetic: how far outputs of int8 kernels, here, are from exact arithmetic: the relative difference.
        score: how good both are on samples with labels, or on those of ``--eval``, computed by int8 kernels, here; ``None`` if
            there were none.
        seconds: wall time of each stage.
        notes: what else the user should know.
        judgement: how good the model is beside the original.
    """

    model: str
    recipe: Mapping[str, Any]
    nodes: Mapping[str, int]
    kept: tuple[Mapping[str, str], ...]
    weights: int
    rounded: int
    elements: int
    zeros: tuple[int, int]
    size: tuple[int, int]
    before: Cost | None = None
    after: Cost | None = None
    verification: Check | None = None
    drift: Drift | None = None
    arithmetic: float = 0.0
    score: QualityScore | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    judgement: Judgement | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return _plain(self, self.judgement)


@dataclass(frozen=True, slots=True)
class LeverReport:
    """What one lever gave.

    Attributes:
        lever: its name.
        choice: what was chosen.
        exact: whether the result equals what it was made of.
        latency: as a fraction of the original's, when this lever and those before it are pulled.
        size: likewise.
        score: likewise the score.
        drift: outputs against the original's after each thing that it did, by what that was: ``cut``, ``repaired``,
            ``refit``, ``rounded``.
        check: the proof of what is exact in it; ``None`` where nothing is.
        kept: nodes or groups that it left alone, each with its name ``node``, its ``op`` and ``why``.
    """

    lever: str
    choice: str
    exact: bool
    latency: float
    size: float
    score: float
    drift: Mapping[str, Drift]
    check: Check | None
    kept: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True, repr=False)
class OptimizeReport(_Told):
    """What was asked for, what was tried, and what was chosen; an attribute for each key of the JSON document.

    Attributes:
        model: the input.
        requested: the target, or the drop.
        chosen: the choices that were taken, in words.
        latency: of the result, as a fraction of the original's, measured afresh after the search.
        size: likewise its bytes.
        score: how good both are on the samples that judge.
        levers: what each lever gave, in the order in which they were pulled.
        tried: every mixture that was built, in order, with its ``latency``, ``size`` and ``score``, whether it ``holds``, and
            whether it was ``chosen``.
        failed: mixtures that could not be built, with the reason.
        before: MACs, parameters and bytes of the original.
        after: likewise of the result.
        nbytes: of the original and the result.
        judged: which samples judged, and which were learnt from.
        machine: that latencies hold for.
        seconds: wall time of each stage.
        kernels: the layers that have sparse kernels.
        notes: what else the user should know.
    """

    model: str
    requested: str
    chosen: str
    latency: float
    size: float
    score: QualityScore
    levers: tuple[LeverReport, ...]
    tried: tuple[Mapping[str, Any], ...]
    failed: Mapping[str, str]
    before: Cost
    after: Cost
    nbytes: tuple[int, int]
    judged: str
    machine: Mapping[str, str | int]
    seconds: Mapping[str, float] = field(default_factory=dict)
    kernels: tuple[KernelLayer, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**dataclasses.asdict(self), "kernels": [layer.to_dict() for layer in self.kernels]}
