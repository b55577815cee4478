"""A sweep: nothing is done twice, what fails takes nothing with it, and what is kept is whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import sweep_work
from command import ENV, PATIENCE, ROOT
from onnxprune.errors import EngineLost, OptionError, OutputError, ReportError, TimedOut, WorkerDied
from onnxprune.options.engines import EngineOptions
from onnxprune.sweep import room, run
from onnxprune.sweep.index import FILE, Index
from onnxprune.sweep.run import run_sweep
from onnxprune.sweep.store import Store
from onnxprune.sweep.summary import rows_of
from sweep_work import Inline, recipe_in, stub, write_models

TWELVE = {"target": ("macs=0.9:0.4:6",), "option": ("align=1,4",)}


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> Inline:
    engine = Inline()
    monkeypatch.setattr(run, "open_engine", lambda _: engine)
    return engine


def failing(monkeypatch: pytest.MonkeyPatch, *errors: Exception, at: str = "0.6") -> Inline:
    """An engine whose calls for one target raise these errors, and then none."""
    left = list(errors)

    def before(order: Mapping[str, Any]) -> None:
        if order["table"]["target"].endswith(at) and left:
            raise left.pop(0)

    engine = Inline(before)
    monkeypatch.setattr(run, "open_engine", lambda _: engine)
    return engine


def test_what_is_there_is_not_done_again(tmp_path: Path, inline: Inline) -> None:
    folder = write_models(tmp_path, "a", "b")
    first = run_sweep(recipe_in(folder), work=stub)
    assert (first["tasks"], first["done"], first["failed"], first["reused"], len(inline.calls)) == (4, 4, 0, 0, 4)
    assert [row["settings"] for row in first["rows"]] == [{"target": "macs=0.8"}, {"target": "macs=0.6"}] * 2
    assert all(memory > 10**8 for _, memory, _ in inline.calls)
    second = run_sweep(recipe_in(folder, target=("macs=0.8,0.6,0.3",), option=("align=1,4",)), work=stub)
    assert (second["tasks"], second["reused"], len(inline.calls)) == (12, 4, 12)
    assert second["rows"][0]["settings"] == {"target": "macs=0.8", "align": "1"}  # as this sweep tells them apart
    third = run_sweep(recipe_in(folder), work=stub)
    assert (third["tasks"], third["reused"], len(inline.calls)) == (4, 4, 12)
    assert [row["score"] for row in third["rows"]] == [row["score"] for row in first["rows"]]
    assert len(rows_of(Store(str(folder / "sweep")))) == 12


def test_files_are_the_truth(tmp_path: Path, inline: Inline) -> None:
    folder = write_models(tmp_path, "a")
    recipe, store = recipe_in(folder), folder / "sweep"
    first = run_sweep(recipe, work=stub)
    (store / FILE).unlink()
    second = run_sweep(recipe, work=stub)
    assert (second["rows"], second["reused"]) == (first["rows"], 2)
    key = first["rows"][0]["key"]
    path = store / "results" / key[:2] / f"{key}.json"
    path.unlink()
    assert run_sweep(recipe, work=stub)["reused"] == 1
    (store / FILE).unlink()
    path.write_bytes(path.read_bytes()[:-9])
    assert run_sweep(recipe, work=stub)["reused"] == 1
    for model in (store / "models").iterdir():
        model.unlink()
    assert run_sweep(recipe, work=stub)["reused"] == 0
    assert json.loads((store / "sweep.json").read_text())["asked"]["target"] == ["macs=0.8,0.6"]
    assert len(inline.calls) == 6


def test_what_may_pass_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = failing(monkeypatch, WorkerDied("gone"), TimedOut("late"), MemoryError(), OSError(5, "io"))
    found = run_sweep(recipe_in(write_models(tmp_path, "a"), retries=4), work=stub)
    assert (found["done"], found["failed"], found["repeated"], len(engine.calls)) == (2, 0, 4, 6)


def test_what_fails_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    failing(monkeypatch, WorkerDied("gone"), WorkerDied("gone again"))
    recipe = recipe_in(write_models(tmp_path, "a"))
    found = run_sweep(recipe, work=stub, warn=told.append)
    assert (found["done"], found["failed"], found["repeated"]) == (1, 1, 1)
    failed = found["rows"][1]
    assert (failed["state"], failed["error"], failed["lasting"]) == ("failed", "gone again", False)
    assert told == [f"{tmp_path}/models/a.onnx (target macs=0.6): failed: gone again"]
    assert run_sweep(recipe, work=stub)["done"] == 2  # it is tried again


def test_input_at_fault_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = failing(monkeypatch, OptionError("no"), at="0.8")
    found = run_sweep(recipe_in(write_models(tmp_path, "a"), retries=4), work=stub)
    assert (found["failed"], found["repeated"], len(engine.calls)) == (1, 0, 2)


def test_a_target_that_cannot_be_reached_is_known(tmp_path: Path, inline: Inline) -> None:
    recipe = recipe_in(write_models(tmp_path, "a"), target=("macs=0.8,0.001",))
    first = run_sweep(recipe)
    assert [(row["state"], row["lasting"]) for row in first["rows"]] == [("done", False), ("failed", True)]
    assert run_sweep(recipe)["reused"] == 2
    (tmp_path / "sweep" / FILE).unlink()
    second = run_sweep(recipe)
    assert (second["reused"], second["rows"]) == (2, first["rows"])
    assert len(inline.calls) == 2


@pytest.mark.parametrize("error", [OutputError("disk full"), EngineLost("no scheduler")])
def test_where_nothing_can_be_kept_the_sweep_ends(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, error)
    recipe = recipe_in(write_models(tmp_path, "a"))
    with pytest.raises(type(error), match=f"{error}; 1 of 2 results are kept: repeat the command to go on"):
        run_sweep(recipe, work=stub)
    assert run_sweep(recipe, work=stub)["reused"] == 1


def test_timed_targets_run_alone_and_last(tmp_path: Path, inline: Inline) -> None:
    run_sweep(recipe_in(write_models(tmp_path, "a"), target=("latency=0.7", "macs=0.8")), work=stub)
    assert [(order["table"]["target"], alone) for order, _, alone in inline.calls] == [("macs=0.8", False), ("latency=0.7", True)]


def test_results_are_timed_beside_the_original(tmp_path: Path, inline: Inline) -> None:
    recipe = recipe_in(write_models(tmp_path, "a"), latency=True, seconds=0.01)
    found = run_sweep(recipe)
    assert [alone for _, _, alone in inline.calls] == [False, False, True]
    assert all(row["latency_ms"] > 0 and row["latency_ratio"] > 0 for row in found["rows"])
    assert run_sweep(recipe)["rows"] == found["rows"]
    assert len(inline.calls) == 3


def test_what_was_timed_is_known_to_all_who_made_it(tmp_path: Path, inline: Inline) -> None:
    folder = write_models(tmp_path, "a")
    first = run_sweep(recipe_in(folder, latency=True, seconds=0.01, option=("align=1", "seed=0")))
    second = run_sweep(recipe_in(folder, latency=True, seconds=0.01, option=("align=1", "verify=true,false")))
    assert second["reused"] == 2
    assert len([alone for _, _, alone in inline.calls if alone]) == 1  # without proof the same models are made
    known = {row["settings"]["target"]: row["latency_ms"] for row in first["rows"]}
    assert all(row["latency_ms"] == known[row["settings"]["target"]] for row in second["rows"])
    with Index(folder / "sweep" / FILE) as index:  # as if it had been killed before it noted the last of them
        row = first["rows"][0]
        index.put([(row["key"], {**row, "latency_ms": None, "latency_ratio": None}, index.states()[row["key"]][1])])
    assert run_sweep(recipe_in(folder, latency=True, option=("align=1", "seed=0")))["rows"] == first["rows"]


def test_nothing_is_written_where_no_work_can_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> None:
        raise OptionError("--engine dask needs distributed")

    monkeypatch.setattr(run, "open_engine", missing)
    folder = write_models(tmp_path, "a")
    with pytest.raises(OptionError, match="--engine dask needs distributed"):
        run_sweep(recipe_in(folder))
    assert not (folder / "sweep").exists()


def test_a_task_that_can_never_fit_is_told_before_anything_is_computed(
    tmp_path: Path, inline: Inline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "left", lambda: 10**6)
    with pytest.raises(OptionError, match="a task takes about"):
        run_sweep(recipe_in(write_models(tmp_path, "a")), work=stub)
    assert not inline.calls
    assert not (tmp_path / "sweep").exists()


def test_two_sweeps_do_not_write_one_store(tmp_path: Path, inline: Inline) -> None:
    recipe = recipe_in(write_models(tmp_path, "a"))

    def work(order: Mapping[str, Any]) -> Any:
        with pytest.raises(OutputError, match="another sweep is running there"):
            run_sweep(recipe, work=stub)
        return stub(order)

    assert run_sweep(recipe, work=work)["done"] == 2


def test_results_are_logged_where_they_are_wanted(tmp_path: Path, inline: Inline, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.driver import tracking

    logged: list[tuple[Mapping[str, Any], str]] = []

    def log_run(document: Mapping[str, Any], uri: str) -> None:
        if len(logged) == 2:
            raise ReportError("the server is gone")
        assert Path(document["output"]).is_file()
        logged.append((document, uri))

    monkeypatch.setattr(tracking, "log_run", log_run)
    told: list[str] = []
    recipe = recipe_in(write_models(tmp_path, "a"), target=("macs=0.9:0.6:4",))
    found = run_sweep(recipe, work=stub, mlflow="http://server", warn=told.append)
    assert (found["done"], [uri for _, uri in logged]) == (4, ["http://server"] * 2)
    assert logged[0][0]["options"]["target"] == "macs=0.9"
    assert logged[0][0]["judgement"]["score"]["original"] == 0.99
    assert told == ["the server is gone; nor is any other result of this sweep"]


@pytest.mark.parametrize(
    ("step", "given"),
    [
        ("quantize", {"option": ("method=minmax,percentile",)}),
        ("sparsify", {"target": ("sparsity=0.5,0.7",), "option": ("ends=true",)}),
    ],
)
def test_other_steps_are_swept_too(step: str, given: dict[str, Any], tmp_path: Path, inline: Inline) -> None:
    folder = write_models(tmp_path, "a")
    fixed = {"step": step, "target": (), "option": (), "eval": str(folder / "data" / "{stem}.npz"), "metric": "cosine"}
    found = run_sweep(recipe_in(folder, **{**fixed, **given}))
    assert (found["done"], found["failed"]) == (2, 0), found["rows"]
    for row in found["rows"]:
        assert 0 < row["score"] <= 1
        assert row["bytes"] > 0
        assert row["bytes_ratio"] > 0


def test_a_search_tries_what_is_promising(tmp_path: Path, inline: Inline) -> None:
    pytest.importorskip("optuna", reason="the extra [search] is not installed")
    recipe = recipe_in(write_models(tmp_path, "a", "b"), target=("macs=0.9,0.2",), search=6, least="macs", max_drop="3%")
    found = run_sweep(recipe, work=stub)
    assert (found["failed"], found["reused"]) == (0, 0)
    assert found["tasks"] + found["given_up"] <= 12
    assert len(inline.calls) == 2 * found["tasks"] + found["given_up"]  # each is looked at first
    for model in "ab":
        rows = [row for row in found["rows"] if Path(row["model"]).stem == model]
        good = [row["macs_ratio"] for row in rows if row["drop"] <= 0.03]
        assert 0.4 < min(good) < 0.75  # the stub loses 3 % at about 0.45
    again = run_sweep(recipe, work=stub)
    assert again["reused"] > 0


def test_a_search_for_latency_times_each_result(tmp_path: Path, inline: Inline) -> None:
    pytest.importorskip("optuna", reason="the extra [search] is not installed")
    recipe = recipe_in(
        write_models(tmp_path, "a"), target=("macs=0.9,0.5",), search=3, max_drop="99%", latency=True, seconds=0.01
    )
    found = run_sweep(recipe)
    assert found["tasks"] >= 1
    assert all(row["latency_ratio"] is not None for row in found["rows"])
    timings = [order["results"] for order, _, alone in inline.calls if alone]
    assert timings
    assert all(len(results) == 1 for results in timings)  # at once, and not when all are there


# Kills, with real processes


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split() if (folder / "calls").exists() else []


def test_a_worker_that_is_killed_takes_nothing_with_it(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="the extra [sweep] is not installed")
    folder = write_models(tmp_path, "a")
    (folder / "kill").touch()
    found = run_sweep(recipe_in(folder, **TWELVE), EngineOptions(workers=2, threads=1), work=sweep_work.slow_stub)
    assert (found["done"], found["failed"]) == (12, 0)
    assert not (folder / "kill").exists()
    assert len(calls(folder)) == 13  # the one that was killed is repeated


PROGRAM = """
import sys
import sweep_work
from pathlib import Path
from onnxprune.options.engines import EngineOptions
from onnxprune.sweep.run import run_sweep

folder = Path(sys.argv[1])
recipe = sweep_work.recipe_in(folder, target=("macs=0.9:0.4:6",), option=("align=1,4",))
run_sweep(recipe, EngineOptions(workers=2, threads=1), work=sweep_work.slow_stub)
"""


def test_who_runs_it_is_killed_and_the_next_one_repeats_nothing(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="the extra [sweep] is not installed")
    folder = write_models(tmp_path, "a")
    env = ENV | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with subprocess.Popen([sys.executable, "-c", PROGRAM, folder], env=env) as running:
        until = time.monotonic() + PATIENCE
        while len(calls(folder)) < 4 and time.monotonic() < until:
            time.sleep(0.01)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    while time.monotonic() < until:  # its workers notice that it is gone
        done = len(list((folder / "sweep").rglob("results/*/*.json")))
        time.sleep(1.5)
        if done == len(list((folder / "sweep").rglob("results/*/*.json"))):
            break
    assert 0 < done < 12
    before = len(calls(folder))
    found = run_sweep(recipe_in(folder, **TWELVE), EngineOptions(workers=2, threads=1), work=sweep_work.slow_stub)
    assert (found["done"], found["reused"]) == (12, done)
    assert len(calls(folder)) - before == 12 - done
    assert Index.read(folder / "sweep" / FILE) is not None


FULL = """
import resource, sys
from pathlib import Path

import sweep_work
from onnxprune.sweep import run

calls = []

def before(order):
    calls.append(order)
    if len(calls) == 6:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # from now on no file takes more

run.open_engine = lambda _: sweep_work.Inline(before)
try:
    run.run_sweep(sweep_work.recipe_in(Path(sys.argv[1]), target=("macs=0.9:0.4:6",)), work=sweep_work.stub)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_one_clear_line_and_nothing_is_torn(tmp_path: Path, inline: Inline) -> None:
    folder = write_models(tmp_path, "a", "b", "c")
    env = ENV | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", FULL, folder], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.startswith("OutputError "), done
    assert done.stdout.count("\n") == 1
    assert "cannot be written" in done.stdout
    assert "; 5 of 18 results are kept: repeat the command to go on" in done.stdout
    store = Store(str(folder / "sweep"))
    kept = {outcome.key for outcome in store.outcomes()}
    assert store.keys() == kept
    assert len(kept) == 5
    found = run_sweep(recipe_in(folder, target=("macs=0.9:0.4:6",)), work=stub)
    assert (found["done"], found["reused"]) == (18, len(kept))
