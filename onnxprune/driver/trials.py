"""Mixtures of levers, tried: built, timed beside the original, and judged on samples that no lever saw."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.driver.levers.base import Made, Mixture
from onnxprune.driver.search import lost_share
from onnxprune.errors import OnnxPruneError, TargetError
from onnxprune.ir.files import source_bytes, written_bytes
from onnxprune.ir.model import Model

if TYPE_CHECKING:
    from onnxprune.driver.levers.base import Lever
    from onnxprune.driver.progress import Stages
    from onnxprune.options.targets import Target
    from onnxprune.verify.metrics import Evaluation, QualityScore

__all__ = ["Meets", "Ratios", "Trial", "Trials", "Wish", "WithinDrop", "size_share"]

Ratios = Callable[[Model, Sequence[Model], float], list[float]]
"""Times models: their latencies as fractions of the first one's, from measurements of so many seconds each."""
_SECONDS = 0.7
"""Of a measurement, for each model."""
_NOISE = 0.02
"""By how much, relatively, two measurements of one model's latency differ: one took 0.69 and 0.70 of the original's."""
_CLEAR = 0.01
"""By how much a model must be faster than the original: timed for longer, latencies err by less than in trials."""
_HELD = 1 << 30
"""Bytes of models that are kept, 1 GiB; others are made again when they are needed."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a mixture came to.

    Attributes:
        mixture: the choices.
        latency: as a fraction of the original's.
        size: of the file, likewise.
        score: on the samples that judge.
    """

    mixture: Mixture
    latency: float
    size: float
    score: float


@dataclass(frozen=True, slots=True)
class WithinDrop:
    """The fastest model is wanted whose score is high enough.

    Attributes:
        original: the original's score.
        drop: how far below it a score may be.
    """

    original: float
    drop: float

    def holds(self, trial: Trial) -> bool:
        """Whether a trial may be taken."""
        return self.lost(trial) <= 1

    def lost(self, trial: Trial) -> float:
        """What a trial lost, as a share of what it may."""
        return lost_share(self.original, trial.score, self.drop)

    def improves(self, trial: Trial) -> bool:
        """Whether a trial that was timed afresh is clearly faster than the original."""
        return trial.latency * (1 + _CLEAR) < 1

    def rank(self, trial: Trial) -> tuple[float, ...]:
        """Sorts trials that hold, the best first."""
        return trial.latency, -trial.score, trial.size

    def choose(self, trials: Sequence[Trial]) -> Trial:
        """The best of trials that hold: where the clock does not tell them apart, the one that kept most."""
        most = min(trial.latency for trial in trials) * (1 + _NOISE)
        return min((trial for trial in trials if trial.latency <= most), key=lambda trial: (-trial.score, trial.latency))


@dataclass(frozen=True, slots=True)
class Meets:
    """The most accurate model is wanted that is fast, or small, enough.

    Attributes:
        target: the fraction of the original's latency or size.
    """

    target: Target

    def of(self, trial: Trial) -> float:
        """The fraction that a trial obtained."""
        return trial.size if self.target.metric == "size" else trial.latency

    def holds(self, trial: Trial) -> bool:
        """Whether a trial may be taken."""
        return self.of(trial) <= self.target.fraction

    def improves(self, trial: Trial) -> bool:
        """Whether a trial is better than the original: where it holds, it is."""
        return True

    def rank(self, trial: Trial) -> tuple[float, ...]:
        """Sorts trials that hold, the best first."""
        return -trial.score, self.of(trial)

    def choose(self, trials: Sequence[Trial]) -> Trial:
        """The best of trials that hold."""
        return min(trials, key=self.rank)


Wish = WithinDrop | Meets


def size_share(model: Model, original: Model) -> float:
    """The bytes that are written of a model, as a fraction of the original file's."""
    return written_bytes(model) / max(source_bytes(original), 1)


class Trials:
    """Tries mixtures, each once, until the time is over.

    Attributes:
        original: what mixtures are made of.
        levers: in the order in which they are carried out.
        evaluation: judges them.
        tried: what came of each mixture, in order.
        failed: mixtures that could not be made, with the reason.
    """

    def __init__(
        self, original: Model, levers: Sequence[Lever], evaluation: Evaluation, ratios: Ratios, stages: Stages, until: float
    ) -> None:
        """Nothing is tried but the original.

        Args:
            original: see the class.
            levers: see the class.
            evaluation: judges.
            ratios: times models.
            stages: announces and times what is done.
            until: when the time is over, by `time.monotonic`.
        """
        self.original, self.levers, self.evaluation = original, tuple(levers), evaluation
        self._ratios, self._stages, self._until = ratios, stages, until
        self._made: dict[Mixture, Made] = {Mixture(): Made(Mixture(), original)}
        self.tried = {Mixture(): Trial(Mixture(), 1.0, 1.0, evaluation.original)}
        self.failed: dict[Mixture, str] = {}
        self._scores: dict[Mixture, QualityScore] = {}

    @property
    def over(self) -> bool:
        """Whether the time is."""
        return time.monotonic() > self._until

    def of(self, mixture: Mixture) -> Trial:
        """What a mixture comes to.

        Raises:
            TargetError: it cannot be made.
            TimeoutError: the time is over, and it was not tried yet.
        """
        if mixture in self.tried:
            return self.tried[mixture]
        if mixture in self.failed:
            raise TargetError(self.failed[mixture])
        if self.over:
            raise TimeoutError
        try:
            model = self.made(mixture).model
            with self._stages("measuring", f"timing {mixture}"):
                latency = self._ratios(self.original, [model], _SECONDS)[0]
        except OnnxPruneError as error:
            self.failed[mixture] = str(error)
            raise TargetError(str(error)) from error
        score = self.score(mixture).pruned
        found = Trial(mixture, latency, size_share(model, self.original), score)
        self.tried[mixture] = found
        return found

    def draft(self, mixture: Mixture, lever: Lever) -> Trial | None:
        """What a mixture takes, by models that are made in less time from a lever on; it has no score.

        ``None`` where one of these levers makes none, or the mixture cannot be made.

        Raises:
            TimeoutError: the time is over.
        """
        if self.over:
            raise TimeoutError
        chosen = dict(mixture.choices)
        drafted = [one for one in self.levers[self.levers.index(lever) :] if one.name in chosen]
        before = mixture
        for one in drafted:
            before = before.without(one.name)
        try:
            made: Made | None = self.made(before)
            for one in drafted:
                made = made and one.draft(made, chosen[one.name])
            if made is None:
                return None
            with self._stages("measuring", f"timing a draft of {mixture}"):
                latency = self._ratios(self.original, [made.model], _SECONDS)[0]
        except OnnxPruneError:
            return None
        return Trial(mixture, latency, size_share(made.model, self.original), math.nan)

    def add(self, made: Made, latency: float) -> Trial:
        """What a model comes to that no lever made, which takes the time of one of the same nodes."""
        self._made[made.mixture] = made
        score = self.score(made.mixture).pruned
        found = self.tried[made.mixture] = Trial(made.mixture, latency, size_share(made.model, self.original), score)
        return found

    def score(self, mixture: Mixture) -> QualityScore:
        """The score of a mixture beside the original's; each is judged once.

        Raises:
            OnnxPruneError: it cannot be made.
        """
        if mixture not in self._scores:
            model = self.made(mixture).model
            with self._stages("evaluation", f"judging {mixture}"):
                self._scores[mixture] = self.evaluation.of(model)
        return self._scores[mixture]

    def made(self, mixture: Mixture) -> Made:
        """The model of a mixture.

        Raises:
            OnnxPruneError: it cannot be made.
        """
        if mixture in self._made:
            return self._made[mixture]
        last = next(lever for lever in reversed(self.levers) if lever.name in dict(mixture.choices))
        before = self.made(mixture.without(last.name))
        found = last.carry_out(before, dict(mixture.choices)[last.name])
        self._made[mixture] = found
        self._forget()
        return found

    def ranked(self, wish: Wish) -> list[Trial]:
        """The trials that hold, the best first."""
        return sorted(filter(wish.holds, self.tried.values()), key=wish.rank)

    def _forget(self) -> None:
        """Let go of the models that were made first, where they take much memory; not of the original, nor of the latest."""
        *old, _ = [mixture for mixture in self._made if mixture.choices]
        held = sum(made.model.nbytes for made in self._made.values())
        for mixture in old:
            if held <= _HELD:
                return
            held -= self._made.pop(mixture).model.nbytes
