"""How much memory a task takes, about, before it starts: of the graph, the weights and the samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.data.calibration import LARGEST_BATCH
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.linear.regression import MOST_FEATURES
from onnxprune.runtime.memory import batch_bytes, left
from onnxprune.shapes.run_memory import runs_that_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.sweep.tasks import Task

__all__ = ["check_room", "task_bytes"]

_PROCESS = 180 << 20
"""Bytes of a worker that has imported everything and done nothing."""
_ALIVE = 4
"""What layers read of a batch is looked at together, beside what is alive at the worst node: about so many times that."""
_COPIES = 4
"""Copies of the weights that are alive together: the original, in float32, what is fitted, and those in sessions."""


def task_bytes(task: Task, threads: int) -> int:
    """Bytes that a task takes at its peak, about.

    Args:
        task: the task.
        threads: of a worker; so many batches are under way at a time.
    """
    model = Model.of(Path(task.model.text))
    fitted = 0
    if "calib" in task.samples:
        moments = sum(
            4 * min(count, MOST_FEATURES) ** 2 for weight in model.weights.values() if (count := _features(weight.shape))
        )
        batch = min(batch_bytes(), _ALIVE * runs_that_fit(model, LARGEST_BATCH)[1])
        fitted = 2 * moments + threads * batch + task.samples["calib"].nbytes
    judged = task.samples["eval"].nbytes if "eval" in task.samples else 0
    return _PROCESS + _COPIES * task.model.nbytes + fitted + judged


def _features(shape: Sequence[int]) -> int:
    """What a weight of this shape multiplies, about; 0 for one that is no matrix."""
    return math.prod(shape) // max(shape[0], 1) if len(shape) > 1 else 0


def check_room(task: Task, needed: int, have: int | None = None) -> None:
    """Nothing happens if a task can ever fit into this machine.

    Raises:
        OptionError: it cannot; says how much it takes.
    """
    have = left() if have is None else have
    if have is not None and needed > have:
        raise OptionError(
            f"{task.model.text}: a task takes about {needed / 1e9:.1f} GB, and {have / 1e9:.1f} GB are left here: give fewer "
            "--threads or fewer samples, or use the workers of a larger machine with --engine"
        )
