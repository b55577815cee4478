"""Candidates are timed side by side, on the clock that fits, and the report says what was fed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import ModelError, OptionError
from onnxprune.latency import benchmark as bench
from onnxprune.latency.benchmark import benchmark
from onnxprune.latency.interleave import Quartiles
from timed_models import EXP, EXP_OF_ONE, QUICK, dense, model


def test_an_input_without_numbers_is_refused() -> None:
    text = model("g (string[N] words) => (string[N] same) { same = Identity(words) }")
    with pytest.raises(OptionError, match=r"'words' is a tensor\(string\)"):
        benchmark([text], **QUICK)


def test_models_are_timed_in_pairs_and_the_report_is_json() -> None:
    report = benchmark([dense(256), dense(256)], labels=["a", "b"], batches=[1, 4], **{**QUICK, "min_rounds": 15})
    assert [(row.label, row.batch) for row in report.rows] == [("a", 1), ("b", 1), ("a", 4), ("b", 4)]
    for first, second in (report.rows[:2], report.rows[2:]):
        assert first.ratio is None
        assert second.ratio is not None
        assert second.ratio.median > 0
        assert second.latency.q1_ms <= second.latency.median_ms <= second.latency.q3_ms
        assert second.latency.rounds == 15
        assert second.latency.clock == ("wall" if sys.platform == "win32" else "cpu")
        assert second.session_s > 0
        assert second.peak_mib is None
        assert second.notes == ()
        assert second.inputs == {"x": (second.batch, 64)}
    plain = report.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["rows"][3]["inputs"] == {"x": [4, 64]}
    assert {"cpu", "cores", "onnxruntime", "threads"} <= set(plain["machine"])


def test_less_work_shows_in_the_ratio() -> None:
    report = benchmark([dense(4096), dense(16)], batches=[16], **QUICK)
    ratio = report.rows[1].ratio
    assert ratio is not None
    assert ratio.median < 1  # 256 times fewer multiplications


def test_ratio_is_the_median_of_the_rounds_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    # Drift: everything slows threefold in the last round. Medians of each alone would say 4 / 2.
    monkeypatch.setattr(bench, "interleave", lambda *_, **__: [[1e-3, 2e-3, 9e-3], [3e-3, 4e-3, 27e-3]])
    row = benchmark([EXP, EXP], **QUICK).rows[1]
    assert row.ratio == Quartiles(3.0, 2.5, 3.0)
    assert (row.latency.q1_ms, row.latency.median_ms, row.latency.q3_ms) == pytest.approx((3.5, 4.0, 15.5))
    assert row.latency.rounds == 3


def test_a_fixed_batch_is_run_as_it_is_and_gets_no_ratio() -> None:
    at_one, at_eight = (benchmark([EXP, EXP_OF_ONE], batches=[batch], **QUICK).rows[1] for batch in (1, 8))
    assert (at_one.batch, at_eight.batch) == (1, 1)
    assert at_one.notes == ()
    assert at_one.ratio is not None
    assert at_eight.notes == (
        "the model's batch is fixed at 1; 8 was asked for",
        "no ratio: model 1 was fed other shapes",
    )
    assert at_eight.ratio is None


def test_the_clock_is_the_one_that_fits() -> None:
    (row,) = benchmark([EXP], threads=2, **QUICK).rows
    assert (row.latency.clock, row.threads) == ("wall", 2)
    (row,) = benchmark([EXP], clock="wall", **QUICK).rows
    assert row.latency.clock == "wall"
    with pytest.raises(OptionError, match="one thread only"):
        benchmark([EXP], threads=2, clock="cpu", **QUICK)


def test_labels_are_file_names_made_unique(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.onnx").write_bytes(EXP)
    (tmp_path / "other.onnx").write_bytes(EXP)
    paths: list[str | Path] = [str(tmp_path / "a" / "net.onnx"), tmp_path / "b" / "net.onnx", tmp_path / "other.onnx"]
    labels = [row.label for row in benchmark([*paths, EXP, paths[0]], **QUICK).rows]
    assert labels == [str(paths[0]), str(paths[1]), "other.onnx", "model 4", f"{paths[0]} (2)"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"models": []}, "no model"),
        ({"labels": ["a", "b"]}, "2 labels for 1 models"),
        ({"providers": []}, "providers"),
        ({"providers": "cpu"}, "providers"),
        ({"batches": []}, "batches"),
        ({"batches": [0]}, "batches"),
        ({"threads": 0}, "threads"),
        ({"min_rounds": 0}, "min_rounds"),
        ({"warmup": -1}, "warmup"),
        ({"seconds": float("nan")}, "seconds"),
        ({"sessions": 0}, "sessions"),
        ({"shapes": {"img": [1, 3]}}, "no model has an input 'img' .* inputs are: x"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        benchmark(**{"models": [EXP], **QUICK, **options})


def test_models_that_do_not_load_or_run_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx: no such file"):
        benchmark([tmp_path / "gone.onnx"], **QUICK)
    garbage = tmp_path / "bad.onnx"
    garbage.write_bytes(b"this is no model")
    with pytest.raises(ModelError, match=r"cannot load bad\.onnx: INVALID_PROTOBUF") as caught:
        benchmark([EXP, garbage], **QUICK)
    assert "\n" not in str(caught.value)
    reshape = "g (float[{}] x) => (float[P] y) {{ five = Constant<value_ints = [5]>() y = Reshape(x, five) }}"
    with pytest.raises(ModelError, match=r"cannot run model 1 on cpu with inputs x \[2, 3\]: .*Reshape"):
        benchmark([model(reshape.format("N, 3"))], batches=[2], **QUICK)
    with pytest.raises(OptionError, match=r"guessed sizes \(x: seq=64\), give its shapes: .*Reshape"):
        benchmark([model(reshape.format("N, seq"))], **QUICK)
    assert len(benchmark([model(reshape.format("N, seq"))], shapes={"x": [-1, 5]}, **QUICK).rows) == 1
    assert capfd.readouterr() == ("", "")  # ONNX Runtime logs nothing of all this


def test_progress_counts_every_step() -> None:
    calls: list[tuple[str, int, int]] = []
    benchmark([EXP, EXP], batches=[1, 2], progress=lambda *call: calls.append(call), **QUICK)
    assert calls == [("sessions on cpu", 0, 3), ("cpu, batch 1", 1, 3), ("cpu, batch 2", 2, 3), ("done", 3, 3)]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own peak of the process")
def test_memory_is_the_model_s_own_and_not_that_of_this_process() -> None:
    hog = np.ones(128 << 20, np.uint8)  # getrusage in a child would start at this
    weight = np.ones((2048, 4096), np.float32)  # 32 MiB
    big = model("g (float[N, 2048] x) => (float[N, M] y) { y = MatMul(x, w) }", w=weight)
    calls: list[tuple[str, int, int]] = []
    report = benchmark([big, EXP], memory=True, progress=lambda *call: calls.append(call), **QUICK)
    del hog
    large, small = report.rows
    assert large.loaded_mib is not None
    assert large.peak_mib is not None
    assert 32 < large.loaded_mib <= large.peak_mib < 150
    assert small.peak_mib is not None
    assert 0 < small.peak_mib < 30
    assert [done for _, done, _ in calls] == [0, 1, 2, 3, 4]
    assert calls[-1][1:] == (4, 4)


def test_memory_that_cannot_be_measured_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: dead)
    (row,) = benchmark([EXP], memory=True, **QUICK).rows
    assert row.peak_mib is None
    assert row.notes == ("memory not measured: the process ended with status -9",)
    assert row.latency.median_ms > 0


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for nvidia-smi is a shell script")
def test_the_gpu_is_named_only_where_one_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.1'\n", encoding="utf-8")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert bench.machine_of(["cpu", "cuda"], 1)["gpu"] == "NVIDIA H200, 570.1"
    assert "gpu" not in bench.machine_of(["cpu"], 1)


def test_importing_the_benchmark_does_not_import_onnxruntime() -> None:
    code = "import sys, onnxprune.latency.benchmark; sys.exit('onnxruntime' in sys.modules)"
    root = Path(bench.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
