"""The score of a module on evaluation samples, while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from onnxprune.ir.weights import Array
from onnxprune.torch.module import GraphModule
from onnxprune.verify import metrics

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model

__all__ = ["Judge"]

_BATCH = 64


class Judge:
    """Scores modules by one metric on the same samples.

    Attributes:
        metric: its name.
    """

    def __init__(self, samples: Samples, model: Model, reference: GraphModule, metric: str = "auto") -> None:
        """Choose the metric, as `metrics.settled` does.

        Args:
            samples: are streamed.
            model: that the modules were made from.
            reference: whose outputs are right where there are no labels.
            metric: its name.

        Raises:
            OptionError: there is no such metric, or it needs labels that the samples lack.
        """
        self.metric = metrics.settled(metric, model, samples)
        self._score, self._samples, self._reference = metrics.find(self.metric), samples, reference
        self._right: list[list[Array]] = []

    def __call__(self, module: GraphModule) -> float:
        """The score; the module must be in evaluation mode."""
        total, count = 0.0, 0
        for number, batch in enumerate(self._samples.batches(_BATCH)):
            if len(self._right) == number:
                self._right.append([] if self.metric == "top1" else _run(self._reference.eval(), batch.feeds))
            total += self._score(_run(module, batch.feeds), self._right[number], batch.labels) * batch.size
            count += batch.size
        return total / max(count, 1)


def _run(module: GraphModule, feeds: dict[str, Array]) -> list[Array]:
    with torch.no_grad():
        found: Sequence[torch.Tensor] = tuple(module.compute(feeds).values())
    return [np.asarray((x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()) for x in found]
