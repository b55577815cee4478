"""Scores on evaluation samples: of a module while it is trained, and of the models before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxprune.data.samples import in_multiples
from onnxprune.ir.weights import Array
from onnxprune.torch.module import GraphModule
from onnxprune.verify import metrics

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model

__all__ = ["ModuleEvaluator", "score_report"]

_BATCH = 64
"""Samples at a time: enough to be fast, and their activations fit in memory."""


class ModuleEvaluator:
    """Scores modules by one metric on the same samples.

    Attributes:
        metric: its name, or a function of the user's.
    """

    def __init__(
        self, samples: Samples, model: Model, reference: GraphModule, metric: str | metrics.QualityMetric = "auto"
    ) -> None:
        """Choose the metric, as `metrics.resolve_metric` does.

        Args:
            samples: they are streamed.
            model: that the modules were made from.
            reference: the module whose outputs are right where there are no labels.
            metric: its name, or a function.

        Raises:
            OptionError: there is no such metric, or it needs labels that the samples do not have.
        """
        in_multiples(model, samples)
        self.metric = metrics.resolve_metric(metric, model, samples)
        self._score, self._samples, self._reference = metrics.find_metric(self.metric), samples, reference
        self._expected: list[list[Array]] = []

    def __call__(self, module: GraphModule) -> float:
        """The score of a module, which must be in evaluation mode."""
        mean, count = metrics.MeanScore(), 0
        for number, batch in enumerate(self._samples.batches(_BATCH)):
            if len(self._expected) == number:
                self._expected.append([] if self.metric == "top1" else _outputs(self._reference.eval(), batch.feeds))
            outputs = _outputs(module, batch.feeds)
            if self.metric == "top1":
                metrics.check_labels(outputs, batch.labels, self._samples.source, count)
            mean.add(self._score(outputs, self._expected[number], batch.labels), batch.size)
            count += batch.size
        return mean.value


def score_report(before: float, after: metrics.QualityScore) -> dict[str, Any]:
    """The scores of the original, and of a model before and after its training, as plain data."""
    return {
        "metric": after.metric,
        "original": after.original,
        "before": before,
        "after": after.pruned,
        "samples": after.samples,
        "source": after.source,
        "notice": after.notice,
    }


def _outputs(module: GraphModule, feeds: dict[str, Array]) -> list[Array]:
    with torch.no_grad():
        found: Sequence[torch.Tensor] = tuple(module.compute(feeds).values())
    return [np.asarray((x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()) for x in found]
