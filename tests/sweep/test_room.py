"""What a task takes is estimated before it starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command import DIGITS
from onnxprune.errors import OptionError
from onnxprune.options.sweep import SweepRecipe
from onnxprune.sweep.room import check_room, task_bytes
from onnxprune.sweep.tasks import Task, subjects_of, tasks_of
from sweep_work import recipe_in, write_models


def of(recipe: SweepRecipe) -> Task:
    return tasks_of(subjects_of(recipe, {}))[0]


def test_it_grows_with_weights_samples_and_threads(tmp_path: Path) -> None:
    folder = write_models(tmp_path, "a")
    without, plain = of(recipe_in(folder, calib="")), of(recipe_in(folder))
    few = task_bytes(plain, 1)
    assert task_bytes(without, 1) == task_bytes(without, 4) < task_bytes(plain, 1) < task_bytes(plain, 4)
    np.savez(folder / "data" / "a.npz", x=np.zeros((4800, 3, 8, 8), np.float32))
    assert task_bytes(of(recipe_in(folder)), 1) > few + 100 * 48 * 3 * 8 * 8 * 4
    large = of(recipe_in(folder, models=(Path(DIGITS),), calib=""))
    assert task_bytes(large, 1) > task_bytes(without, 1)


def test_one_that_can_never_fit_is_told(tmp_path: Path) -> None:
    task = of(recipe_in(write_models(tmp_path, "a")))
    check_room(task, 10, 10)
    with pytest.raises(OptionError, match=r"a\.onnx: a task takes about 3\.0 GB, and 2\.0 GB are left here"):
        check_room(task, 3 * 10**9, 2 * 10**9)
