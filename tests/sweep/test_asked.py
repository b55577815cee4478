"""What a sweep is asked for, before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.engines import EngineOptions
from onnxprune.sweep import room, search
from onnxprune.sweep.asked import Sweep
from sweep_work import recipe_in, write_models


def test_what_is_to_be_done_is_plain_data(tmp_path: Path) -> None:
    sweep = Sweep.of(recipe_in(write_models(tmp_path, "a")), EngineOptions(workers=1))
    found = sweep.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert [task["settings"] for task in found["tasks"]] == [{"target": "macs=0.8"}, {"target": "macs=0.6"}]
    assert found["asked"]["workers"] == 1
    with pytest.raises(OptionError, match="no place for results"):
        Sweep.of(recipe_in(tmp_path, store=""))


def test_what_tasks_take_is_known_for_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_models(tmp_path, "a", "b")
    few, many = (Sweep.of(recipe_in(folder), EngineOptions(workers=2, threads=threads)).needed() for threads in (1, 8))
    assert few.keys() == many.keys() == {str(folder / "models" / f"{name}.onnx") for name in "ab"}
    assert all(many[name] > few[name] for name in few)
    monkeypatch.setattr(room, "left", lambda: 10**6)
    with pytest.raises(OptionError, match="a task takes about"):
        Sweep.of(recipe_in(folder)).needed()
    assert Sweep.of(recipe_in(folder), EngineOptions(engine="dask", scheduler="tcp://host:1")).needed()  # it has its own memory


def test_a_model_that_is_there_twice_is_told(tmp_path: Path) -> None:
    folder = write_models(tmp_path, "a", "b")
    assert not list(Sweep.of(recipe_in(folder)).repeated())
    (folder / "models" / "c.onnx").write_bytes((folder / "models" / "a.onnx").read_bytes())
    (told,) = Sweep.of(recipe_in(folder, calib=str(folder / "data" / "a.npz"))).repeated()
    assert told.endswith(f"c.onnx: is {folder / 'models' / 'a.onnx'} once more, with the same samples: results are listed there")


def test_a_search_needs_optuna_and_targets_of_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_models(tmp_path, "a")
    monkeypatch.setattr(search, "find_spec", lambda _: None)
    with pytest.raises(OptionError, match=r'run pip install "onnxprune\[search\]"'):
        Sweep.of(recipe_in(folder, search=5, least="macs"))
    monkeypatch.undo()
    pytest.importorskip("optuna", reason="the extra [search] is not installed")
    with pytest.raises(OptionError, match=r"target 'sparsity=0\.5'"):
        Sweep.of(recipe_in(folder, search=5, least="size", step="sparsify", target=("sparsity=0.5",), option=()))


def test_a_search_has_no_tasks_before_it_began(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra [search] is not installed")
    sweep = Sweep.of(recipe_in(write_models(tmp_path, "a"), search=5, least="macs"))
    assert sweep.tasks == ()
    assert sweep.to_dict()["asked"]["search"] == 5
