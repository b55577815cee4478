"""What is known of a task before it is done."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from onnxprune.sweep import work
from onnxprune.sweep.preview import can_preview, preview
from onnxprune.sweep.store import Store
from onnxprune.sweep.tasks import Task, subjects_of, tasks_of
from onnxprune.sweep.work import carry_out, order_of
from sweep_work import recipe_in, write_models


def tasks_in(folder: Path, **given: Any) -> list[Task]:
    return tasks_of(subjects_of(recipe_in(folder, **given), {}))


@pytest.mark.parametrize("repair", ["true", "false"])
def test_it_promises_what_the_task_comes_to(tmp_path: Path, repair: str) -> None:
    work._kept.clear()
    store = Store(str(tmp_path / "sweep"))
    tasks = tasks_in(write_models(tmp_path, "a"), target=("macs=0.8,0.4,0.001",), option=(f"repair={repair}",))
    found = [preview(order_of(task, store)) for task in tasks]
    for promised, task in zip(found[:2], tasks, strict=False):
        obtained = carry_out(order_of(task, store)).report["obtained"]
        assert promised["macs"] == pytest.approx(obtained["macs"], abs=1e-6)
        assert promised["params"] <= obtained["params"] + 1e-6
        if repair == "false":  # a repair may add biases
            assert promised["params"] == pytest.approx(obtained["params"], abs=1e-6)
    drifts = [one["drift"] for one in found]
    assert drifts[0] is not None
    assert drifts[1] is not None
    assert 0 < drifts[0] < drifts[1] < math.inf == drifts[2]
    assert not list(store.place.names("models"))[2:]  # nothing is made of what is only looked at
    work._kept.clear()


def test_of_some_tasks_nothing_is_known_before(tmp_path: Path) -> None:
    folder = write_models(tmp_path, "a")
    assert all(map(can_preview, tasks_in(folder)))
    for given in ({"calib": ""}, {"option": ("lossless=true",)}, {"target": ("latency=0.5",)}):
        assert not any(map(can_preview, tasks_in(folder, **given)))
    assert not any(map(can_preview, tasks_in(folder, step="quantize", target=(), option=())))
