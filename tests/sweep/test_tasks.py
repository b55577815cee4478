"""A key says all that a result depends on, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import OptionError
from onnxprune.runtime import memory
from onnxprune.sweep import tasks as module
from onnxprune.sweep.tasks import Task, by_model, subjects_of, tasks_of
from sweep_work import recipe_in, write_models


def tasks_in(folder: Path, table: dict[str, Any] | None = None, **given: Any) -> list[Task]:
    return tasks_of(subjects_of(recipe_in(folder, **given), table or {}, machine="here"))


def one_in(folder: Path, **given: Any) -> Task:
    (found,) = tasks_in(folder, **{"target": ("macs=0.5",), **given})
    return found


def test_every_setting_of_every_model_is_a_task(tmp_path: Path) -> None:
    found = tasks_in(write_models(tmp_path, "a", "b"), {"criterion": ["obs", "l2"]}, option=("align=1", "seed=0,1"))
    assert len(found) == len({task.key for task in found}) == 2 * 2 * 2 * 2
    assert found[0].settings == {"target": "macs=0.8", "criterion": "obs", "seed": "0"}
    assert [model.text for model, _ in by_model(found)] == [str(tmp_path / "models" / f"{name}.onnx") for name in "ab"]
    assert {task.samples["calib"].text for task in found} == {str(tmp_path / "data" / f"{name}.npz") for name in "ab"}


def test_the_key_is_of_what_is_in_the_files_and_of_names_that_stand_in_results(tmp_path: Path) -> None:
    first = one_in(write_models(tmp_path, "a"))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path, elsewhere)
    assert one_in(elsewhere).key == first.key
    assert one_in(tmp_path, option=("align=1", "criterion=auto")).key == first.key  # the default, written down
    (elsewhere / "models" / "a.onnx").rename(elsewhere / "models" / "b.onnx")
    assert one_in(elsewhere, calib=str(elsewhere / "data" / "a.npz")).key == first.key
    (elsewhere / "data" / "a.npz").rename(elsewhere / "data" / "b.npz")  # histories tell the name of samples
    assert one_in(elsewhere).key != first.key


def test_whatever_changes_a_result_changes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_models(tmp_path, "a")
    keys = [one_in(folder, **given).key for given in ({}, {"option": ("align=4",)}, {"target": ("macs=0.4",)}, {"calib": ""})]
    monkeypatch.setenv(memory.VARIABLE, "2000000000")
    keys.append(one_in(folder).key)
    monkeypatch.delenv(memory.VARIABLE)
    monkeypatch.setattr(module, "version", lambda: "0.0.1")
    keys.append(one_in(folder).key)
    monkeypatch.undo()
    np.savez(folder / "data" / "a.npz", x=np.zeros((48, 3, 8, 8), np.float32))
    keys.append(one_in(folder).key)
    write_models(folder, "x", "a")
    (folder / "models" / "x.onnx").unlink()
    keys.append(one_in(folder).key)
    assert len(set(keys)) == len(keys)


def test_what_is_measured_holds_for_a_machine(tmp_path: Path) -> None:
    folder = write_models(tmp_path, "a")
    timed, counted = (one_in(folder, target=(target,)) for target in ("latency=0.5", "macs=0.5"))
    assert (timed.is_timed, counted.is_timed) == (True, False)
    other = tasks_of(subjects_of(recipe_in(folder, target=("latency=0.5", "macs=0.5")), {}, machine="there"))
    assert other[0].key != timed.key
    assert other[1].key == counted.key


def test_a_table_of_another_device_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    folder = write_models(tmp_path, "a")
    given = {"target": ("latency=0.5",), "option": (f"device_table={folder / 'device.db'}",)}
    (folder / "device.db").write_bytes(b"1")
    first = one_in(folder, **given)
    assert not first.is_timed
    assert "device_table" in first.samples
    (folder / "device.db").write_bytes(b"2")
    assert one_in(folder, **given).key != first.key
    (folder / "device.db").unlink()
    with pytest.raises(OptionError, match=r"--device-table .*device\.db: there is no such file"):
        one_in(folder, **given)


def test_who_does_the_work_is_no_part_of_a_key(tmp_path: Path) -> None:
    folder = write_models(tmp_path, "a")
    assert one_in(folder, option=("align=1", "engine=local")).key == one_in(folder).key


def test_tasks_share_the_stages_that_do_not_differ(tmp_path: Path) -> None:
    folder = write_models(tmp_path, "a")
    found = tasks_in(folder, option=("align=1,4", "criterion=obs,l2"), target=("macs=0.5", "channels=0.5"))
    stages = {(task.settings["target"], task.settings["criterion"]): task.stages for task in found}
    obs, l2 = stages["macs=0.5", "obs"], stages["macs=0.5", "l2"]
    assert [stage.split("/")[1].partition("-")[0] for stage in obs] == ["statistics", "scores", "curves"]
    assert obs[0] == l2[0]
    assert obs[1:] != l2[1:]
    assert stages["channels=0.5", "obs"] == obs[:2]
    assert len({task.stages for task in found}) == 4
    assert one_in(folder, calib="").stages == ()
    assert one_in(folder, calib="noise").stages == ()
    assert one_in(folder, option=("lossless=true",)).stages == ()
    assert one_in(folder, step="quantize", target=(), option=()).stages == ()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"option": ("calib=a,b",)}, "write --calib DATA"),
        ({"option": ("speed=1",)}, "the step has no option 'speed'"),
        ({"target": ("speed=0.5",)}, "target 'speed=0.5': write one of"),
        ({"calib": "{stem}.npz"}, "--calib a.npz: there is no such file"),
        ({"step": "quantize", "target": ("macs=0.5",)}, "the step has no option 'target'"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=words):
        tasks_in(write_models(tmp_path, "a"), **given)
