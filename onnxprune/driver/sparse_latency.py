"""The zeros with which a model is fast enough by its sparse kernels, found by measuring it whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.driver.search import LEAST, approach
from onnxprune.errors import TargetError
from onnxprune.latency.timer import measure_spreads
from onnxprune.passes.use_kernels import PAYS

if TYPE_CHECKING:
    from onnxprune.driver.sparsifier import Sparsified, Sparsifier
    from onnxprune.ir.model import Model
    from onnxprune.latency.interleave import Quartiles
    from onnxprune.options.targets import Goal

__all__ = ["at_latency"]

_SECONDS = 2.0
"""Of a measurement, for each model."""
_FITS = 3
"""How often a model is fitted, at most: the zeros of a draft lie elsewhere, and it may be faster by a percent."""
_LESS = 0.97
"""What the next fit aims at, as a share of what is asked for."""


def at_latency(worker: Sparsifier, original: Model, goal: Goal) -> tuple[Sparsified, Quartiles]:
    """The least sparse model that takes no more than a fraction of the original's time; with what it takes.

    Drafts are timed until one takes what is asked for or little less, and that one is fitted. Layers that a kernel does not make
    faster stay dense.

    Args:
        worker: makes models sparse.
        original: what they are timed beside.
        goal: the fraction.

    Raises:
        TargetError: no draft is so fast; says which is the fastest. Or a kernel makes no layer faster.
    """
    worker = worker.among_faster()

    def timed(model: Model) -> Quartiles:
        return measure_spreads(original, [model], seconds=_SECONDS)[0]

    def measure(share: float) -> float:
        sparsity = _sparsity(share)
        try:
            draft = worker.draft(worker.paying(worker.shares(sparsity)))
        except TargetError:
            return 1.0  # no layer has a kernel, and the draft is the original
        with worker.stages("measuring", f"timing a sparsity of {sparsity:.2f}"):
            return timed(draft.model).median

    tried = approach(measure, goal.value, goal.value)
    met = [(measured, share) for share, measured in tried.items() if measured <= goal.value]
    if not met:
        least, share = min((measured, share) for share, measured in tried.items())
        raise TargetError(
            f"target {goal} cannot be reached: the fastest of {len(tried)} models has latency={least:.3f}, measured, with a "
            f"sparsity of {_sparsity(share):.2f} in the layers that sparse kernels make faster"
        )
    share = max(met)[1]
    for _ in range(_FITS):
        made = worker.with_counts(worker.paying(worker.shares(_sparsity(share))))
        with worker.stages("latency", "timing the result"):
            taken = timed(made.stored)
        if taken.median <= goal.value:
            return made, taken
        share *= _LESS * goal.value / taken.median
    raise TargetError(f"target {goal} cannot be reached: the last of {_FITS} models has latency={taken.median:.3f}, measured")


def _sparsity(share: float) -> float:
    """A kernel that reads the share `PAYS` of a weight takes about as long as all of it does."""
    return 1 - max(share, LEAST) * PAYS
