"""Scores a model on evaluation samples: by labels, or by the original's outputs where there are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from onnxprune.data.samples import in_multiples
from onnxprune.errors import ModelError, OptionError
from onnxprune.options.functions import guarded, load_named
from onnxprune.runtime.memory import spare
from onnxprune.runtime.parallel import at_once, map_ordered
from onnxprune.runtime.session import Session
from onnxprune.shapes.run_memory import runs_that_fit
from onnxprune.verify.ctc import edit_distance, letters
from onnxprune.verify.detections import same_detections
from onnxprune.verify.divergence import comparable, cosines, finite_rows
from onnxprune.verify.suited import suited_metric

if TYPE_CHECKING:
    from onnxprune.data.batching import Batch
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array

__all__ = [
    "QUALITY_METRICS",
    "Evaluation",
    "MeanScore",
    "QualityMetric",
    "Weighted",
    "check_first_labels",
    "check_labels",
    "find_metric",
    "metric_name",
    "resolve_metric",
]

_BATCH = 64
"""Samples of a batch that is scored, at most."""

_KEPT, _PART = 1 << 28, 16
"""Bytes of the original's outputs that are kept, 256 MiB, and the part of the memory which they may take; others are computed
again. A recogniser of text has a megabyte of them for each line."""


class Weighted(NamedTuple):
    """A score that counts as much as there is that it was taken of, which need not be the samples."""

    score: float
    weight: float


QualityMetric = Callable[[Sequence[Any], Sequence[Any], Any], float | Weighted]
"""From a batch's outputs, the original's, and the labels (``None`` if there are none), to a score; higher is better. A number
counts once for each sample."""


class MeanScore:
    """The mean of the scores of batches."""

    def __init__(self) -> None:
        """Of none."""
        self._total = self._weight = 0.0

    def add(self, score: float | Weighted, samples: int) -> None:
        """Take in the score of a batch of so many samples."""
        score, weight = score if isinstance(score, Weighted) else (score, samples)
        self._total += score * weight
        self._weight += weight

    @property
    def value(self) -> float:
        """The mean; 1 where nothing counted in any batch, so that nothing is wrong."""
        return self._total / self._weight if self._weight else 1.0


def top1(outputs: Sequence[Any], reference: Sequence[Any], labels: Any) -> float:
    """Share of samples whose largest entry of the first output is at the label."""
    found: Array = _scores(outputs).argmax(-1) == np.asarray(labels).reshape(-1)
    return float(found.mean())


def agreement(outputs: Sequence[Any], reference: Sequence[Any], labels: Any) -> float:
    """Share of samples whose largest entry of the first output is where the original's is."""
    found: Array = _scores(outputs).argmax(-1) == _scores(reference).argmax(-1)
    return float(found.mean())


def mse(outputs: Sequence[Any], reference: Sequence[Any], labels: Any) -> float:
    """One minus the mean squared error over the variance of the original's outputs."""
    pairs = _pairs(outputs, reference)
    return 1 - float(np.mean([np.square(a - b).mean() / max(b.var(), 1e-30) for a, b in pairs]))


def cosine(outputs: Sequence[Any], reference: Sequence[Any], labels: Any) -> float:
    """Mean cosine similarity of each sample's outputs to the original's."""
    return float(np.mean([cosines(x, y).mean() for x, y in _pairs(outputs, reference)]))


def position_agreement(outputs: Sequence[Any], reference: Sequence[Any], labels: Any) -> Weighted:
    """Share of positions [samples, positions, ..., classes] whose largest entry of the first output is where the original's is.

    Positions at which both have the class that the original has most often are left out: words without a tag, padding and
    background would hide all others.
    """
    found, wanted = (_first(values, 3, "positions, classes").argmax(-1) for values in (outputs, reference))
    usual = np.bincount(wanted.reshape(-1)).argmax()
    counted = (found != usual) | (wanted != usual)
    count = int(counted.sum())
    return Weighted(float((found == wanted)[counted].mean()) if count else 1.0, count)


def ctc_agreement(outputs: Sequence[Any], reference: Sequence[Any], labels: Any) -> Weighted:
    """One minus the rate of letters [samples, steps, classes] that are read otherwise than by the original, whose text counts.

    The blank is the class that the original has most often; see `onnxprune.verify.ctc`.
    """
    found, wanted = (_first(values, 3, "steps, classes", 3).argmax(-1) for values in (outputs, reference))
    blank = int(np.bincount(wanted.reshape(-1)).argmax())
    texts = [(letters(ours, blank), letters(theirs, blank)) for ours, theirs in zip(found, wanted, strict=True)]
    count = sum(max(len(ours), len(theirs)) for ours, theirs in texts)
    wrong = sum(edit_distance(ours, theirs) for ours, theirs in texts)
    return Weighted(1 - wrong / count if count else 1.0, count)


def detections(outputs: Sequence[Any], reference: Sequence[Any], labels: Any) -> Weighted:
    """F1 score of what anchors found, against what they find in the original: twice what is the same, of what both found."""
    same, found = same_detections(*(_first(values, 3, "numbers, anchors", 3) for values in (outputs, reference)))
    return Weighted(2 * same / found if found else 1.0, found)


QUALITY_METRICS: dict[str, QualityMetric] = {
    f.__name__: f for f in (top1, agreement, position_agreement, ctc_agreement, detections, mse, cosine)
}
"""Every metric by name."""


def _scores(outputs: Sequence[Any]) -> Array:
    return _first(outputs, 2, "classes", 2)


def _first(outputs: Sequence[Any], least: int, axes: str, most: float = math.inf) -> Array:
    """The first output, which has so many axes; those behind the samples are called ``axes`` where it has not."""
    first: Array = np.asarray(outputs[0])
    if not least <= first.ndim <= most:
        raise ModelError(
            f"the first output has {first.ndim} axes, not [samples, {axes}]: use --metric cosine, mse or package.module:function"
        )
    return first


def _pairs(outputs: Sequence[Any], reference: Sequence[Any]) -> list[tuple[Array, Array]]:
    pairs = [finite_rows(a, b) for a, b in zip(outputs, reference, strict=True) if comparable(a, b)]
    if not pairs:
        raise ModelError("the model has no floating-point output to compare: use --metric package.module:function")
    return pairs


def metric_name(metric: str | QualityMetric) -> str:
    """What a metric is called: its name, or that of the function."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def resolve_metric(metric: str | QualityMetric, model: Model, samples: Samples) -> str | QualityMetric:
    """A metric: for ``auto`` ``top1`` where there are labels, otherwise what suits the first output.

    See `onnxprune.verify.suited`.

    Raises:
        OptionError: there is none of that name, or it needs labels that the samples lack.
    """
    if metric != "auto":
        find_metric(metric)
    if metric == "top1" and not samples.labelled:
        raise OptionError(f"--metric top1 needs labels, and {samples.source} has none: use --metric agreement")
    if metric != "auto":
        return metric
    return "top1" if samples.labelled else suited_metric(model, samples)


def find_metric(name: str | QualityMetric) -> QualityMetric:
    """A metric: by its name, as ``package.module:function``, or a function of the user's.

    Raises:
        OptionError: there is none.
    """
    if not isinstance(name, str):
        return guarded(name, f"metric {metric_name(name)}")
    if name in QUALITY_METRICS:
        return QUALITY_METRICS[name]
    if ":" not in name:
        raise OptionError(
            f"there is no metric {name!r}; there are {', '.join(QUALITY_METRICS)}, or write package.module:function"
        )
    found = load_named(name, f"--metric {name}")
    if not callable(found):
        raise OptionError(f"--metric {name}: is not a function of (outputs, reference, labels)")
    metric: QualityMetric = guarded(found, f"--metric {name}")
    return metric


def check_labels(outputs: Sequence[Any], labels: Any, where: str, seen: int = 0) -> None:
    """Check that labels are classes of the first output [samples, classes]: `top1` would take any others for wrong answers.

    Args:
        outputs: of a batch.
        labels: of its samples.
        where: they come from, for messages.
        seen: samples before the batch.

    Raises:
        OptionError: a label is none of the classes; names the sample.
    """
    classes, marks = _scores(outputs).shape[-1], np.asarray(labels)
    if marks.size != len(marks):
        raise OptionError(
            f"{where}: labels of a batch have shape {list(marks.shape)}: give the index of one class for each sample"
        )
    marks = marks.reshape(-1)
    wrong = np.flatnonzero((marks < 0) | (marks >= classes) | (marks != np.floor(marks)))
    if wrong.size:
        at = int(wrong[0])
        raise OptionError(
            f"{where}: label {marks[at]} of sample {seen + at} is no class of the model, which has 0 to {classes - 1}"
        )


def check_first_labels(original: Model, samples: Samples, metric: str | QualityMetric = "auto") -> None:
    """Check the labels of the first batch, before anything is computed that a score is taken of.

    Raises:
        OptionError: as `check_labels` does.
    """
    if resolve_metric(metric, original, samples) == "top1":
        batch = next(iter(samples.batches(runs_that_fit(original, _BATCH)[0])))
        check_labels(Session(original).run(batch.feeds), batch.labels, samples.source)


def chance_notice(score: float, outputs: Sequence[Any], samples: int, where: str) -> str:
    """A notice where the original's `top1` is no better than guessing; empty otherwise.

    Guessing is right once in as many samples as there are classes; two standard deviations above that may be luck.
    """
    chance = 1 / max(_scores(outputs).shape[-1], 1)
    if score > chance + 2 * math.sqrt(chance * (1 - chance) / max(samples, 1)):
        return ""
    return f"{where}: the original's top1 of {score:.4f} is no better than guessing: the labels may be those of other classes"


@dataclass(frozen=True, slots=True)
class QualityScore:
    """Attributes:
    metric: its name.
    original: the original's score.
    pruned: the pruned model's.
    samples: how many samples.
    source: where they came from.
    notice: what makes the score doubtful; empty if nothing does.
    chance: what guessing scores, on average; 0 where that is not known.
    """

    metric: str
    original: float
    pruned: float
    samples: int
    source: str
    notice: str = ""
    chance: float = 0.0


class Evaluation:
    """Scores models on the same samples; the samples are streamed.

    Attributes:
        metric: its name.
        original: the original's score.
        count: how many samples there are.
        notice: what makes that score doubtful; empty if nothing does.
        answers: the classes that the original gives, where agreement with them is the metric.
    """

    def __init__(self, original: Model, samples: Samples, metric: str | QualityMetric = "auto") -> None:
        """Take the original's score.

        Raises:
            OptionError: there is no such metric, it needs labels that the samples lack, or labels are no classes of the model.
        """
        in_multiples(original, samples)
        chosen = resolve_metric(metric, original, samples)
        self.metric, self._score = metric_name(chosen), find_metric(chosen)
        self._samples, self._model = samples, original
        self._names = [output.name for output in original.graph.output]
        self._session = Session(original, self._names, fuse=True)
        self._size, self._needed = runs_that_fit(original, _BATCH)
        self._kept: list[Sequence[Any]] = []
        self._room = 0 if samples.fresh else spare(_PART, _KEPT)
        self.notice, self._chance = "", 0.0
        self.answers: set[int] = set()
        self.original = self._run(original)

    def of(self, model: Model) -> QualityScore:
        """The score of a model beside the original's."""
        score = self._run(model)
        return QualityScore(self.metric, self.original, score, self.count, self._samples.source, self.notice, self._chance)

    def _run(self, model: Model) -> float:
        session = Session(model, self._names, fuse=True)
        mean, self.count = MeanScore(), 0
        outputs: Sequence[Any] = ()

        def run(numbered: tuple[int, Batch]) -> tuple[Batch, Sequence[Any], Sequence[Any]]:
            number, batch = numbered
            outputs = session.run(batch.feeds)
            return batch, outputs, outputs if model is self._model else self._reference(number, batch.feeds)

        batches = enumerate(self._samples.batches(self._size))
        for number, (batch, outputs, reference) in enumerate(map_ordered(run, batches, at_once(self._needed))):
            if self.metric == "top1":
                check_labels(outputs, batch.labels, self._samples.source, self.count)
            if model is self._model:
                self._keep(number, outputs)
                if self.metric == "agreement":
                    self.answers.update(np.unique(_scores(outputs).argmax(-1)).tolist())
            mean.add(self._score(outputs, reference, batch.labels), batch.size)
            self.count += batch.size
        score = mean.value
        if model is self._model and self.metric == "top1":
            self._chance = 1 / max(_scores(outputs).shape[-1], 1)
            self.notice = chance_notice(score, outputs, self.count, self._samples.source)
        return score

    def _keep(self, number: int, outputs: Sequence[Any]) -> None:
        """Keep the original's outputs for a batch, while there is room for all up to it."""
        self._room -= sum(value.nbytes if isinstance(value, np.ndarray) else _KEPT for value in outputs)
        if self._room >= 0 and number == len(self._kept):
            self._kept.append(outputs)

    def _reference(self, number: int, feeds: Mapping[str, Any]) -> Sequence[Any]:
        return self._kept[number] if number < len(self._kept) else self._session.run(feeds)
