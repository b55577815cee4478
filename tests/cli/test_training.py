"""`finetune` as a user calls it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits.onnx"
ENV = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def call(*args: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnxprune", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENV | (env or {}), cwd=cwd)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x=rng.random((96, 1, 8, 8), np.float32), label=rng.integers(10, size=96))
    return path


def test_finetune_writes_a_model_and_says_how_it_went(tmp_path: Path, data: Path) -> None:
    given = ("finetune", DIGITS, "--data", data, "--teacher", DIGITS, "--eval", data, "--epochs", 1, "-o", tmp_path / "o.onnx")
    done = call(*given, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["bytes"] == (tmp_path / "o.onnx").stat().st_size
    assert report["score"]["metric"] == "top1"
    again = call(*given)
    assert (again.returncode, again.stdout) == (2, "")
    assert "exists already: pass --force" in again.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--optimizer", "lion"), "--optimizer 'lion': write one of adamw"),
        (("--device", "tpu9"), "--device tpu9: this machine has none"),
        (("--loss", "nothing"), "there is no loss 'nothing'"),
        (("--teacher", "absent.onnx"), "absent.onnx: no such file"),
        (("--resume", "/nowhere/c"), "there is no folder /nowhere"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path: Path, data: Path, args: tuple[str, ...], said: str) -> None:
    done = call("finetune", DIGITS, "--data", data, "-o", tmp_path / "o.onnx", *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_pytorch_it_says_what_to_install(tmp_path: Path, data: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch')")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = call("finetune", DIGITS, "--data", data, "-o", tmp_path / "o.onnx", env=env)
    assert done.returncode == 2
    assert done.stderr == "onnxprune: this needs PyTorch: run pip install 'onnxprune[torch]'\n"
    assert call("finetune", "--help", env=env).returncode == 0


def killed_and_repeated(tmp_path: Path, data: Path, kills: int, epochs: int) -> int:
    """Kill a run at random moments until it ends by itself; how often it was killed."""
    given = [
        str(x) for x in ("finetune", DIGITS, "--data", data, "--batch", 8, "--epochs", epochs, "--seed", 5, "--device", "cpu")
    ]
    whole = call(*given, "-o", tmp_path / "whole.onnx")
    assert whole.returncode == 0, whole.stderr
    rng, killed = random.Random(0), 0
    out, checkpoint = tmp_path / "o.onnx", tmp_path / "c"
    command = [sys.executable, "-m", "onnxprune", *given, "-o", str(out), "--resume", str(checkpoint)]
    while killed < kills:
        running = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seen = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while running.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns != seen):
            time.sleep(0.01)  # until it got a little further than the last time
        time.sleep(rng.uniform(0, 0.3))
        if running.poll() is not None:
            break
        running.kill()
        running.wait()
        killed += 1
        assert not out.exists()
    done = call(*given, "-o", out, "--resume", checkpoint) if not out.exists() else None
    assert done is None or done.returncode == 0
    assert out.read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    return killed


def test_killed_twice_it_ends_at_the_same_bytes(tmp_path: Path, data: Path) -> None:
    assert killed_and_repeated(tmp_path, data, kills=2, epochs=6) == 2


@pytest.mark.slow
def test_killed_ten_times_it_ends_at_the_same_bytes(tmp_path: Path, data: Path) -> None:
    assert killed_and_repeated(tmp_path, data, kills=10, epochs=25) == 10


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path, data: Path) -> None:
    given = ("finetune", DIGITS, "--data", data, "--epochs", 1, "--resume", tmp_path / "c")
    assert call(*given, "-o", tmp_path / "o.onnx").returncode == 0
    done = call(*given, "--lr", 0.1, "-o", tmp_path / "p.onnx")
    assert done.returncode == 2
    assert "was written with --lr 0.0, not 0.1" in done.stderr
