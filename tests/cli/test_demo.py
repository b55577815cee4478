"""The demo: from the package alone, the surgery verified, and its result faster and good; else it says so."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from command import DIGITS, ROOT, Done, complaints, inside, refused, within
from onnxprune.cli import demo

CUT = dict(list(demo.RECIPES.items())[:2])
"""Without the model that is searched for by the clock."""


def timed(*ratios: float) -> Callable[..., Any]:
    """A benchmark that finds these ratios."""
    rows = [{"latency": {"median_ms": ratio}, "ratio": {"median": ratio}} for ratio in (1.0, *ratios)]
    return lambda *_, **__: SimpleNamespace(to_dict=lambda: {"rows": rows}, machine={"cpu": "a cpu"})


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *ratios: float, json: bool = True) -> Done:
    monkeypatch.setattr(demo, "RECIPES", CUT)
    monkeypatch.setattr("onnxprune.latency.benchmark.benchmark", timed(*ratios))
    return within("demo", *["--json"] * json, cwd=tmp_path)


def test_the_files_of_the_package_are_the_digits() -> None:
    folder = ROOT / "onnxprune" / "cli" / "digits"
    assert (folder / "digits.onnx").read_bytes() == Path(DIGITS).read_bytes()
    assert {path.name for path in folder.iterdir()} == set(demo.FILES)
    assert np.load(folder / "test.npz")["image"].shape == (599, 1, 8, 8)
    digits = pytest.importorskip("digits").load()
    assert np.array_equal(np.load(folder / "calib.npz")["image"], digits.calib_x)
    assert np.array_equal(np.load(folder / "test.npz")["image"], digits.test_x)


def test_it_shows_what_samples_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(tmp_path, monkeypatch, 0.8, 0.7)
    assert done.status == 0, done.err
    report = done.json()
    rows = {row["name"]: row for row in report["models"]}
    assert rows["original"]["score"] > 0.98
    assert rows["cut-alone"]["level"] == "collapsed"
    assert rows["with-samples"]["score"] >= 0.97
    assert all(row["verified"] for row in rows.values())
    assert report["best"] == "with-samples"
    folder = tmp_path / "onnxprune-demo"
    assert {path.name for path in folder.iterdir()} == {*demo.FILES, "cut-alone.onnx", "with-samples.onnx", "report.html"}
    assert inside(folder / "report.html") == report
    words = shlex.split(report["commands"][0])
    again = within(*words[1:], "--no-benchmark", cwd=tmp_path)
    assert again.status == 0, again.err
    assert (folder / "my-cut-alone.onnx").read_bytes() == (folder / "cut-alone.onnx").read_bytes()


def test_a_latency_out_of_reach_is_said_and_the_others_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RECIPES", {**CUT, "by-latency": {"target": "macs=0.001"}})
    monkeypatch.setattr("onnxprune.latency.benchmark.benchmark", timed(0.8, 0.7))
    done = within("demo", "--json", "--report", "page.html", cwd=tmp_path)
    assert done.status == 0, done.err
    assert inside(tmp_path / "page.html") == done.json()
    assert "target macs=0.001 cannot be reached" in done.json()["missed"]["by-latency"]
    assert not any("my-by-latency" in command for command in done.json()["commands"])
    assert [row["name"] for row in done.json()["models"]] == ["original", *CUT]


def test_what_is_slower_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(tmp_path, monkeypatch, 0.8, 1.1, json=False)
    assert done.status == 1
    assert complaints(done).endswith("no model is faster here and has 97% of the digits right: the machine may be busy, repeat\n")
    assert "best:" not in done.out
    assert "never do this" in done.out
    assert "onnxprune-demo/report.html: open it in a browser" in done.out
    refused(within("demo", cwd=tmp_path), 2, "onnxprune-demo", "exists", "--force")
