"""What a worker makes is what `prune` alone writes, byte by byte."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command import names
from onnxprune.driver.prune import prune
from onnxprune.errors import InputError, OptionError, OutputError
from onnxprune.options.prune import Recipe
from onnxprune.pipeline.steps import STEPS
from onnxprune.sweep import work
from onnxprune.sweep.store import DONE, FAILED, Store
from onnxprune.sweep.tasks import Task, subjects_of, tasks_of
from onnxprune.sweep.work import carry_out, failed, order_of
from sweep_work import recipe_in, write_models


def tasks_in(folder: Path, **given: Any) -> list[Task]:
    return tasks_of(subjects_of(recipe_in(folder, **given), {}))


@pytest.mark.parametrize("calib", ["data/{stem}.npz", ""])
def test_results_are_what_prune_alone_writes(calib: str, tmp_path: Path) -> None:
    folder, store = write_models(tmp_path, "a", "b"), Store(str(tmp_path / "sweep"))
    for task in tasks_in(folder, calib=calib and str(folder / calib), option=("align=1", "criterion=l2")):
        found = carry_out(order_of(task, store))
        assert found.state == DONE
        recipe = Recipe.from_dict({**task.table, **{name: one.text for name, one in task.samples.items()}})
        prune(task.model.text, recipe).save(tmp_path / "alone.onnx", force=True)
        alone = (tmp_path / "alone.onnx").read_bytes()
        made = store.fetch_model(found.sha256, tmp_path)
        assert made is not None
        assert made.read_bytes() == alone
        assert found.sha256 == hashlib.sha256(alone).hexdigest()
        assert found.report["obtained"]["macs"] <= float(task.settings["target"].partition("=")[2])
        assert store.result(task.key) == found


def test_what_would_fail_again_is_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "sweep"))
    (task,) = tasks_in(write_models(tmp_path, "a"), target=("macs=0.001",))
    found = carry_out(order_of(task, store))
    assert (found.state, found.kind, found.lasting) == (FAILED, "TargetError", True)
    assert store.result(task.key) == found
    assert names(tmp_path / "sweep") == {"results", "shared"}


def test_files_that_changed_are_told(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "sweep"))
    first, second = tasks_in(write_models(tmp_path, "a"))
    with (tmp_path / "data" / "a.npz").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"a\.npz: is not what it was when the sweep began"):
        carry_out(order_of(first, store))
    (tmp_path / "models" / "a.onnx").unlink()
    with pytest.raises(InputError, match=r"a\.onnx: is not what it was when the sweep began"):
        carry_out(order_of(second, store))
    assert not store.keys()


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "sweep").write_bytes(b"")
    (task, _) = tasks_in(write_models(tmp_path, "a"))
    with pytest.raises(OutputError, match="cannot be made"):
        carry_out(order_of(task, Store(str(tmp_path / "sweep"))))


def test_errors_that_nobody_foresaw_say_whose_fault_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task, _) = tasks_in(write_models(tmp_path, "a"))

    def broken(*_: object) -> None:
        raise RuntimeError("odd")

    steps = {"prune": replace(STEPS["prune"], run=broken)}  # type: ignore[arg-type]
    monkeypatch.setattr(work, "STEPS", steps)
    with pytest.raises(AssertionError, match="RuntimeError: odd; this is a defect of onnxprune"):
        carry_out(order_of(task, Store(str(tmp_path / "sweep"))))
    with pytest.raises(OptionError):
        carry_out({**order_of(task, Store(str(tmp_path / "sweep"))), "table": {"target": "odd"}})


def test_a_process_keeps_the_stages_of_few_families(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "sweep"))
    work._kept.clear()
    for task in tasks_in(write_models(tmp_path, "a", "b", "c"), target=("macs=0.8",)):
        carry_out(order_of(task, store))
    assert [Path(path).stem for _, path in work._kept] == ["b", "c"]
    work._kept.clear()


def test_failures_in_words() -> None:
    found = failed(ValueError("a\n b"), key="k")
    assert (found.state, found.error, found.kind, found.lasting) == (FAILED, "a b", "ValueError", False)
    assert failed(KeyError(), key="k").error == "KeyError"
