"""How good a result is beside the original: on samples that nothing was learnt from, and whether that is enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from onnxprune.data.samples import held_out, in_multiples, open_samples, optional_samples, sized
from onnxprune.errors import InputError, OptionError, QualityError
from onnxprune.ir.model import Model
from onnxprune.options.gates import parse_drop, parse_share
from onnxprune.verify.drift import Drift, measure_drift
from onnxprune.verify.metrics import Evaluation, QualityScore, check_first_labels, find_metric, resolve_metric

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import ModelSource
    from onnxprune.options.gates import Gates
    from onnxprune.options.optimize import OptimizeRecipe

__all__ = ["Judgement", "Jury", "Level", "hold", "judge_optimized"]

_EVERY, _FEWEST, _HELD = 8, 32, 64
"""Of so many samples one is held out; how many there must be for that; and about how many are held out at most."""
_JUDGED = 1024
"""Samples of ``--eval`` that outputs are compared on, at most; a score is of all."""
_HALF = 0.5
_COMPARED = frozenset({"agreement", "cosine"})
"""Metrics whose score the drift of outputs has as well."""
_NOTICED = 0.05
"""What a result may lose without a word."""


class Level(StrEnum):
    """How good a result is, in one word."""

    GOOD = "good"
    """About as good as the original."""
    WORSE = "worse"
    """It lost more than a few percent."""
    COLLAPSED = "collapsed"
    """It lost most of what the original knew."""
    UNKNOWN = "unknown"
    """There were no samples to tell."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How good a result is.

    Attributes:
        score: of the original and the result; ``None`` where no score was taken.
        drift: outputs against the original's; ``None`` where they were not compared.
        sampled: whether that was on samples, and not on noise.
        exact: whether the result is proven to compute what the original computes.
        note: why there is no score, although there are labels; empty otherwise.
    """

    score: QualityScore | None = None
    drift: Drift | None = None
    sampled: bool = False
    exact: bool = False
    note: str = ""

    @property
    def level(self) -> Level:
        """In one word: by the score, else by the outputs."""
        share = self.share
        if self.exact:
            return Level.GOOD
        if share is not None and share < _HALF:
            return Level.COLLAPSED
        if share is None or not self.sampled:
            return Level.UNKNOWN
        return Level.WORSE if share < 1 - _NOTICED else Level.GOOD

    @property
    def share(self) -> float | None:
        """What is left of the original's score above chance, or of its answers; ``None`` where nothing was measured."""
        if self.score and self.score.original > self.score.chance:
            return (self.score.pruned - self.score.chance) / (self.score.original - self.score.chance)
        return self.drift.alike if self.drift else None

    @property
    def text(self) -> str:
        """In one sentence, what the level means here."""
        if self.exact:
            return "the outputs are the original's"
        found = _told(self.score, self.drift)
        if self.level is Level.COLLAPSED:
            return f"accuracy collapsed: {found}"
        if self.level is Level.UNKNOWN:
            return "accuracy is unknown: " + (f"no samples were given; {found}" if self.drift else "outputs were not compared")
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        score, drift = (one and dataclasses.asdict(one) for one in (self.score, self.drift))
        told = {"level": str(self.level), "text": self.text, "share": self.share, "exact": self.exact}
        return {**told, "score": score, "drift": drift}


def _told(score: QualityScore | None, drift: Drift | None) -> str:
    if score:
        chance = f", where guessing gives {score.chance:.1%}" if score.chance else ""
        return f"{score.metric} {score.original:.1%} -> {score.pruned:.1%}{chance}"
    if drift is None:
        return ""
    if drift.classes:
        return f"{drift.agreement:.0%} of {drift.samples} samples ({drift.source}) get the original's answer"
    return f"outputs have a cosine of {drift.cosine:.2f} with the original's on {drift.samples} samples ({drift.source})"


@dataclass(frozen=True, slots=True)
class Jury:
    """The samples that a result is judged by, apart from those that it learns from.

    Attributes:
        gates: what is asked of the result.
        original: what it is compared with.
        learnt: what may be learnt from; ``None`` where there are no samples.
        judges: what the result is judged by; ``None`` where there are no samples.
        apart: whether nothing is learnt from the judges.
    """

    gates: Gates
    original: Model
    learnt: Samples | None
    judges: Samples | None
    apart: bool

    @classmethod
    def of(cls, gates: Gates, original: Model, given: Samples | None, preprocess: str = "") -> Jury:
        """Samples in two parts, and those of ``--eval`` where there are any.

        What is learnt from does not depend on ``--eval``, so that a plan is carried out alike with and without.

        Raises:
            OptionError: a gate needs samples, and there are none; or the samples do not fit.
        """
        learnt, judges, apart = given, given, False
        if given is not None and _enough(given):
            every = max(1, (given.count or 0) // _HELD // _EVERY) * _EVERY  # a multiple: `optimize` holds out each fourth
            try:
                learnt, judges = held_out(given, original.inputs, every)
                apart = True
            except OptionError:  # few batches of a fixed size
                learnt = judges = given
        if gates.eval:
            judges, apart = open_samples(gates.eval, original.inputs, option="--eval", preprocess=preprocess or None), True
        if judges is None and gates.asked:
            raise OptionError(f"{gates.asked} needs samples to judge by: add --eval DATA")
        if judges is not None and gates.scored:
            resolve_metric(gates.metric, original, judges)
        elif gates.metric != "auto":
            find_metric(gates.metric)
        return cls(gates, original, learnt, judges, apart)

    def sized(self) -> Jury:
        """The same, with the original at the sizes of ``--eval`` where it has no others; a score that is asked for is one.

        Raises:
            OptionError: a sample has another size than the user gave, or labels are no classes of the model.
        """
        original = self.original
        if self.gates.eval and self.judges is not None:
            if self.learnt is None:
                original = sized(original, self.judges)
            else:
                in_multiples(original, self.judges)
        if self.gates.scored and self.judges is not None:
            check_first_labels(original, self.judges, self.gates.metric)
        return dataclasses.replace(self, original=original)

    def judge(
        self,
        made: Model,
        *,
        compare: bool = True,
        seed: int = 0,
        score: QualityScore | None = None,
        exact: bool = False,
        evaluation: Evaluation | None = None,
    ) -> Judgement:
        """How good a model is, which must be as good as the gates say.

        Args:
            made: the model.
            compare: whether outputs are compared where no gate asks for it.
            seed: of noise, where there are no samples.
            score: if it is known.
            exact: whether the model is proven to compute what the original computes.
            evaluation: with the original's score, if that was taken.

        Raises:
            ModelError: a model does not run on the samples.
            OptionError: labels are no classes of the model.
            QualityError: it is not as good.
        """
        gates, note = self.gates, ""
        if score is None and self.judges is not None and (gates.scored or compare):
            metric = resolve_metric(gates.metric, self.original, self.judges)
            try:
                if gates.scored or metric not in _COMPARED:
                    score = (evaluation or Evaluation(self.original, self.judges, metric)).of(made)
            except InputError as error:
                if gates.scored:
                    raise
                note = f"no score: {error}"
        drift = None
        if compare or gates.min_agreement:
            drift = measure_drift(made, self.original, self.judges, seed=seed, **({"count": _JUDGED} if gates.eval else {}))
            drift = dataclasses.replace(drift, source=f"{drift.source}{self._whose}")
            if score and not gates.eval:
                score = dataclasses.replace(score, source=f"{score.source}{self._whose}")
        found = Judgement(score, drift, self.judges is not None, exact, note)
        hold(gates, found, self.original.name)
        return found

    @property
    def _whose(self) -> str:
        if self.judges is None or self.gates.eval:
            return ""
        return ", held out" if self.apart else ", too few to hold any out"


def judge_optimized(source: ModelSource, recipe: OptimizeRecipe, gates: Gates, made: Model, score: QualityScore) -> Judgement:
    """How good a model of `optimize` is, on samples that it judged by.

    Raises:
        QualityError: it is not as good as a gate asks.
    """
    original = Model.of(source, recipe.shape)
    given = optional_samples(recipe.calib, original.inputs, recipe.preprocess)
    jury = Jury.of(gates, sized(original, given), given, recipe.preprocess)
    return jury.judge(made, seed=recipe.seed, score=score)


def _enough(samples: Samples) -> bool:
    """Whether there are enough samples to hold some out."""
    if samples.count is not None:
        return samples.count >= _FEWEST
    seen = 0
    for batch in samples.batches():
        seen += batch.size
        if seen >= _FEWEST:
            return True
    return False


def hold(gates: Gates, found: Judgement, name: str) -> None:
    """Nothing happens where a result is as good as asked.

    Raises:
        QualityError: it is not; says what it is, what was asked, and the way out.
    """
    score, drift = found.score, found.drift
    checks: list[tuple[str, Callable[[], str]]] = [
        (gates.min_score, lambda: _below_score(gates.min_score, score)),
        (gates.max_drop, lambda: _dropped(gates.max_drop, score)),
        (gates.min_agreement, lambda: _below_agreement(gates.min_agreement, drift)),
    ]
    missed = [text for asked, check in checks if asked and (text := check())]
    if missed:
        raise QualityError(f"{name}: {'; '.join(missed)}: nothing was written; ask for less, or give more samples (--calib)")


def _below_score(asked: str, score: QualityScore | None) -> str:
    if score is None or score.pruned >= parse_share(asked, "--min-score", ""):
        return ""
    return f"{score.metric} is {score.pruned:.4f} on {score.samples} samples ({score.source}), below --min-score {asked}"


def _dropped(asked: str, score: QualityScore | None) -> str:
    if score is None or score.original - score.pruned <= parse_drop(asked) + 1e-9:
        return ""
    where = f"on {score.samples} samples ({score.source})"
    return f"{score.metric} fell from {score.original:.4f} to {score.pruned:.4f} {where}, by more than --max-drop {asked}"


def _below_agreement(asked: str, drift: Drift | None) -> str:
    if drift is None or drift.agreement >= parse_share(asked, "--min-agreement", ""):
        return ""
    where = f"of {drift.samples} samples ({drift.source})"
    return f"{drift.agreement:.1%} {where} have the original's answer, below --min-agreement {asked}"
