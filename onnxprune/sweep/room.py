"""How much memory a task takes, about, before it starts: of the graph, the weights and the samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.data.calibration import LARGEST_BATCH
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.linear.moments import rows_wanted
from onnxprune.linear.regression import MOST_FEATURES
from onnxprune.runtime.memory import batch_bytes, left
from onnxprune.runtime.stages import HELD_BYTES
from onnxprune.shapes.run_memory import runs_that_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.sweep.inputs import Input
    from onnxprune.sweep.tasks import Task

__all__ = ["check_room", "task_bytes"]

_PROCESS = 180 << 20
"""Bytes of a worker that has imported everything and done nothing."""
_COPIES = 4
"""Copies of the weights that are alive together: the original, in float32, what is fitted, and those in sessions."""
_ALIVE = 4
"""What layers read of a batch is looked at together, beside what is alive at the worst node: about so many times that."""
_TAPS = 9
"""Rows of a layer hold each activation so many times, about, where it is a convolution."""
_FLOAT = 4


def task_bytes(task: Task, threads: int) -> int:
    """Bytes that a task takes at its peak, about.

    Args:
        task: the task.
        threads: of a worker; so many batches are under way at a time.
    """
    model = Model.of(Path(task.model.text))
    given = [one.nbytes for one in task.samples.values()]
    fitted = _fitting(model, task.samples["calib"], threads) if "calib" in task.samples else 0
    return _PROCESS + _COPIES * task.model.nbytes + sum(given) + fitted


def _fitting(model: Model, samples: Input, threads: int) -> int:
    """Bytes of what is fitted on samples: moments, batches, and activations and rows of two models, of which one is repaired."""
    features = [count for weight in model.weights.values() if (count := _features(weight.shape))]
    moments = 2 * sum(_FLOAT * min(count, MOST_FEATURES) ** 2 for count in features)
    size, taken = runs_that_fit(model, LARGEST_BATCH)
    batches = threads * min(batch_bytes(), _ALIVE * taken)
    every = samples.nbytes // _sample_bytes(model) * (taken // size)
    rows = max((_FLOAT * count * rows_wanted(count, count) for count in features), default=0)
    return moments + batches + 2 * min(HELD_BYTES, every) + 2 * min(rows, _TAPS * every)


def _sample_bytes(model: Model) -> int:
    """Bytes of one sample, as far as the sizes of inputs are known."""
    dims = [[dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim][1:] for value in model.inputs]
    return max(sum(_FLOAT * math.prod(one) for one in dims), 1)


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
