"""`latency shapes`, `latency measure`, and `prune` for another device, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import Cli, refused
from device_tables import device_table
from onnxprune.latency.worklist import program
from onnxprune.options.prune import Recipe


def test_a_device_is_told_what_to_time_and_its_table_is_read(call: Cli, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given = call("latency", "shapes", model, "-o", tmp_path / "device", "--align", "8", "--json", "--report", page)
    assert given.status == 0, given.err
    assert "layer models" in page.read_text("utf-8")
    assert given.json()["command"] == "latency"
    assert sorted(one.name for one in (tmp_path / "device").iterdir()) == ["measure.py", "shapes.json"]
    assert (tmp_path / "device" / "measure.py").read_text("utf-8") == program()
    table = tmp_path / "device.db"
    asked = ("--shapes", tmp_path / "device" / "shapes.json", "-o", table)
    measured = call("latency", "measure", *asked, "--report", page, "--force")
    assert measured.status == 0, measured.err
    assert "device.db" in page.read_text("utf-8")
    assert "device.db: times of" in measured.out
    done = call("prune", model, "-o", tmp_path / "small.onnx", "--target", "latency=0.9", "--align", "8", "--device-table", table)
    assert done.status in {0, 1}, done.err  # what it takes here says nothing
    assert done.status == 0 or "target latency=0.9 cannot be reached" in done.err


def test_a_model_is_planned_for_a_device(call: Cli, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    words = ("--target", "latency=0.9", "--align", "8", "--device-table", device_table(tmp_path, model, Recipe(align="8")))
    done = call("prune", model, "-o", out, *words)
    assert done.status == 0, done.err
    assert "latency there, predicted" in done.out
    assert "it is predicted from device.db, not measured here" in " ".join(done.out.split())
    assert "latency, cpu, batch 1" not in done.out
    assert out.exists()
    assert call("plan", model, "-o", tmp_path / "plan.json", *words).status == 0


def test_the_page_says_that_it_is_predicted(call: Cli, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("altair", reason="pages need the extra report")
    table = device_table(tmp_path, model, Recipe(align="8"))
    words = ("--target", "latency=0.9", "--align", "8", "--device-table", table, "--report", tmp_path / "report.html")
    assert call("prune", model, "-o", tmp_path / "small.onnx", *words).status == 0
    assert "predicted for Cortex-A72, not measured here" in (tmp_path / "report.html").read_text("utf-8")


def test_a_table_that_does_not_fit_is_refused(call: Cli, model: Path, tmp_path: Path) -> None:
    table = device_table(tmp_path, model, Recipe(align="1"))
    out = tmp_path / "small.onnx"
    refused(call("prune", model, "-o", out, "--target", "macs=0.5", "--device-table", table), 2, "--target latency=0.5")
    done = call("prune", model, "-o", out, "--target", "latency=0.5", "--align", "2", "--device-table", table)
    refused(done, 2, "device.db", "lacks", "latency shapes")
    refused(call("prune", model, "-o", out, "--target", "latency=0.5", "--device-table", model), 2, "no table of latencies")
    assert not out.exists()


def test_files_that_are_there_stay(call: Cli, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    folder.mkdir()
    (folder / "measure.py").write_text("mine")
    refused(call("latency", "shapes", model, "-o", folder), 2, "measure.py", "--force")
    assert [one.name for one in folder.iterdir()] == ["measure.py"]
    assert (folder / "measure.py").read_text() == "mine"
    assert call("latency", "shapes", model, "-o", folder, "--force").status == 0
    refused(call("latency", "shapes", model, "-o", folder / "measure.py"), 2, "is a file")


def test_a_file_of_something_else_is_not_measured(call: Cli, model: Path, tmp_path: Path) -> None:
    refused(call("latency", "measure", "--shapes", model, "-o", tmp_path / "device.db"), 2, "no file of onnxprune latency shapes")
    refused(call("latency", "measure", "--shapes", tmp_path / "none.json", "-o", tmp_path / "device.db"), 2, "none.json")
