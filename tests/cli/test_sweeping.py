"""Sweeps on the command line: run, status, report and pick live together."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from cli.test_json import checked
from command import Cli, Done, complaints, names, refused, within
from onnxprune.cli.derived import COMMANDS
from onnxprune.sweep import run as module
from sweep_work import Inline, write_models

SWEEP = ("models/*.onnx", "--calib", "data/{stem}.npz", "--target", "macs=0.8,0.6", "--option", "align=1", "-o", "sweep")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "open_engine", lambda _: Inline())
    return write_models(tmp_path, "a", "b")


@pytest.fixture
def swept(folder: Path) -> Path:
    done = sweep(folder, *SWEEP, "--no-latency")
    assert done.status == 0, done.err
    return folder


def sweep(folder: Path, *words: object) -> Done:
    return within("sweep", *words, cwd=folder)


def test_the_way_through_a_sweep(folder: Path) -> None:
    done = sweep(folder, *SWEEP, "--seconds", "0.01")
    assert done.status == 0, done.err
    assert "sweep: 4 tasks: 4 done, 0 failed;" in done.out
    assert "sweep pick sweep --min-agreement 95% --min latency" in done.out  # there are no labels
    again = sweep(folder, "run", *SWEEP, "--seconds", "0.01")
    assert "4 of them were there already" in again.out
    status = sweep(folder, "status", "sweep")
    assert status.out.startswith("sweep: 4 tasks: 4 done, 0 failed, 0 waiting\n")
    assert sweep(folder, "status", "sweep", "--all").out.count("macs=") == 4
    picked = sweep(folder, "pick", "sweep", "--min", "macs", "--model", "a", "-o", "best.onnx")
    assert picked.status == 0, picked.err
    assert "models/a.onnx: best.onnx" in picked.out
    onnx.checker.check_model(folder / "best.onnx")


def test_documents(folder: Path) -> None:
    planned = checked(sweep(folder, *SWEEP, "--dry-run", "--json").json())
    assert (planned["command"], len(planned["tasks"]), planned["asked"]["target"]) == ("sweep", 4, ["macs=0.8,0.6"])
    assert not (folder / "sweep").exists()
    found = checked(sweep(folder, *SWEEP, "--no-latency", "--json").json())
    assert [row["key"] for row in found["rows"]] == [task["key"] for task in planned["tasks"]]
    status = checked(sweep(folder, "status", "sweep", "--json").json())
    assert (status["rows"], status["done"], status["waiting"]) == (found["rows"], 4, 0)
    picked = checked(sweep(folder, "pick", "sweep", "--min", "size", "--json").json())
    assert [Path(row["file"]).parent for row in picked["picked"]] == [Path("sweep/models")] * 2
    assert "output" not in picked["picked"][0]


def test_pages_show_the_results(folder: Path) -> None:
    pytest.importorskip("altair", reason="pages need the extra report")
    commands = [(*SWEEP, "--dry-run"), (*SWEEP, "--no-latency"), ("status", "sweep"), ("pick", "sweep", "--min", "size")]
    for number, words in enumerate(commands):
        done = sweep(folder, *words, "--report", f"{number}.html")
        assert done.status == 0, done.err
        page = (folder / f"{number}.html").read_text("utf-8")
        assert "<title>sweep" in page
        assert number == 0 or "macs=0.6" in page
        assert "results/" not in page  # links would lead nowhere


def test_what_is_planned_is_listed(folder: Path) -> None:
    shown = sweep(folder, *SWEEP, "--dry-run").out
    assert shown.startswith("4 tasks -> sweep")
    assert shown.count("macs=0.8") == 2
    assert " MB" in shown
    pytest.importorskip("optuna", reason="the extra [search] is not installed")
    shown = sweep(folder, *SWEEP, "--search", "7", "--dry-run").out
    assert shown.startswith("up to 7 settings of each model -> sweep")
    assert "models/b.onnx" in shown
    assert names(folder) == {"models", "data"}


def test_a_file_says_what_the_command_line_does(folder: Path) -> None:
    text = 'models = "models/*.onnx"\ncalib = "data/{stem}.npz"\ntarget = ["macs=0.8", "macs=0.6"]\noutput = "sweep"\n'
    (folder / "sweep.toml").write_text(f"{text}\n[option]\nalign = 1\n")
    first, second = (sweep(folder, *words, "--dry-run", "--json").json() for words in (SWEEP, ("sweep.toml",)))
    assert [task["key"] for task in first["tasks"]] == [task["key"] for task in second["tasks"]]
    assert second["store"] == "sweep"


def test_failures_are_told_and_the_status_says_whether_they_may_pass(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = sweep(folder, *SWEEP[:3], "--target", "macs=0.8,0.0001", "-o", "sweep", "--no-latency")
    assert done.status == 0, done.err
    assert complaints(done).count("failed: ") == 2
    assert "failed: models/a.onnx (macs=0.0001): " in done.out

    def broken(order: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "open_engine", lambda _: Inline(broken))
    done = sweep(folder, *SWEEP, "--no-latency", "--json", "--retries", "0")
    assert done.status == 1
    assert checked(done.json())["failure"]["message"] == "4 of 4 tasks failed: repeat the command to try them again"


def test_models_are_copied_into_a_folder(swept: Path) -> None:
    (swept / "best").mkdir()
    done = sweep(swept, "pick", "sweep", "--min", "params", "-o", "best")
    assert done.status == 0, done.err
    assert names(swept / "best") == {"a.onnx", "b.onnx"}
    refused(sweep(swept, "pick", "sweep", "--min", "params", "-o", "best"), 2, "exists already: pass --force")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("statsu",), 2, ("statsu: there is no such file",)),
        (("models/*.onnx",), 2, ("no place for results",)),
        (("models/*.onnx", "-o", "s", "--engine", "dusk"), 2, ("there is no engine 'dusk'",)),
        (("models/*.onnx", "-o", "s", "--option", "spped=1"), 2, ("the step has no option 'spped'",)),
        (("models/*.onnx", "-o", "models/a.onnx"), 2, ("models/a.onnx: is a file: name a folder with -o",)),
        (("status", "models"), 2, ("models: is no sweep",)),
        (("pick", "models"), 2, ("models: is no sweep",)),
        (("report", "models"), 2, ("models: is no sweep",)),
        (("missing.toml",), 2, ("missing.toml: no such file",)),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], status: int, told: tuple[str, ...], folder: Path) -> None:
    refused(sweep(folder, *words), status, *told)
    assert names(folder) == {"models", "data"}


def test_the_page(swept: Path) -> None:
    pytest.importorskip("altair", reason="the extra [report] is not installed")
    done = sweep(swept, "report", "sweep/", "--json")
    assert checked(done.json())["output"] == "sweep/report.html"
    assert "4 of 4 runs are done" in (swept / "sweep" / "report.html").read_text("utf-8")
    assert sweep(swept, "report", "sweep").out == "sweep: 4 tasks -> sweep/report.html\n"  # it is ours, and replaced
    assert sweep(swept, "report", "sweep", "-o", "page.html").status == 0
    (row, *_) = sweep(swept, "status", "sweep", "--json").json()["rows"]
    assert f"sweep/{row['report']}" in (swept / "page.html").read_text("utf-8")
    refused(sweep(swept, "report", "sweep", "-o", "page.html"), 2, "exists already: pass --force")


def test_what_none_reaches_is_exit_1(swept: Path) -> None:
    refused(sweep(swept, "pick", "sweep", "--min", "latency"), 1, "run the sweep without --no-latency")


def test_help_knows_every_option(call: Cli) -> None:
    shown = call("sweep", "--help").out
    assert all(word in shown for word in ("run", "status", "report", "pick"))
    for name in ("sweep run", "sweep status", "sweep pick", "sweep report"):
        shown = call(*name.split(), "--help").out
        for one in COMMANDS[name][1]:
            first = one.field.option.metavar if one.field.option.argument else one.field.flags.split("/")[0]
            assert first in shown, (name, first)
        assert "what makes" not in shown
    assert json.dumps(sorted(name for name in COMMANDS if name.startswith("sweep"))) == json.dumps(
        ["sweep pick", "sweep report", "sweep run", "sweep status"]
    )
