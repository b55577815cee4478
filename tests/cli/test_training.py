"""`finetune` and `train` as a user calls them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from command import PHASES
from killed import kill

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
    assert not PHASES.sub("", done.stderr)
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
    assert len(PHASES.sub("", done.stderr).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_pytorch_it_says_what_to_install(tmp_path: Path, data: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch')")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = call("finetune", DIGITS, "--data", data, "-o", tmp_path / "o.onnx", env=env)
    assert done.returncode == 2
    assert done.stderr == "onnxprune: this needs PyTorch: run pip install 'onnxprune[torch]'\n"
    assert call("finetune", "--help", env=env).returncode == 0


def check_kills(tmp_path: Path, data: Path, points: Sequence[str], epochs: int) -> None:
    """Killed at each point in turn, a run goes on from where it was and ends with the same model as one that was left alone."""
    given = ("finetune", DIGITS, "--data", data, "--batch", 8, "--epochs", epochs, "--seed", 5, "--device", "cpu")
    whole = call(*given, "-o", tmp_path / "whole.onnx")
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "o.onnx"
    resumed = (*given, "-o", out, "--resume", tmp_path / "c")
    for point in points:
        kill(resumed, point)
        assert not out.exists()
    done = call(*resumed)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_killed_twice_it_ends_at_the_same_bytes(tmp_path: Path, data: Path) -> None:
    check_kills(tmp_path, data, ("step 17", "save 2"), epochs=3)  # an epoch has 12 steps, and a checkpoint at its end


@pytest.mark.slow
def test_killed_ten_times_it_ends_at_the_same_bytes(tmp_path: Path, data: Path) -> None:
    rng = random.Random(0)
    check_kills(tmp_path, data, [f"step {rng.randrange(1, 30)}" for _ in range(8)] + ["save 1", "save 3"], epochs=25)


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path, data: Path) -> None:
    given = ("finetune", DIGITS, "--data", data, "--epochs", 1, "--resume", tmp_path / "c")
    assert call(*given, "-o", tmp_path / "o.onnx").returncode == 0
    done = call(*given, "--lr", 0.1, "-o", tmp_path / "p.onnx")
    assert done.returncode == 2
    assert "was written with --lr 0.0, not 0.1" in done.stderr


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of two hidden layers, and data for it."""
    folder = tmp_path_factory.mktemp("small")
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,6] x) => (float[N,3] y) '
        "{ a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) d = Relu(c) y = MatMul(d, w) }"
    )
    rng = np.random.default_rng(0)
    for name, shape in {"u": (6, 32), "v": (32, 32), "w": (32, 3)}.items():
        array = rng.normal(size=shape).astype(np.float32) / np.float32(shape[0] ** 0.5)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, folder / "m.onnx")
    np.savez(folder / "d.npz", x=rng.normal(size=(256, 6)).astype(np.float32))
    return folder / "m.onnx", folder / "d.npz"


def test_train_removes_channels_and_says_what_each_stage_came_to(tmp_path: Path, small: tuple[Path, Path]) -> None:
    model, data = small
    given = ("train", model, "--data", data, "--eval", data, "--target", "macs=0.5", "--epochs", 1, "--rounds", 2)
    done = call(*given, "-o", tmp_path / "o.onnx", "--json")
    assert (done.returncode, PHASES.sub("", done.stderr)) == (0, "")
    report = json.loads(done.stdout)
    stages = ["original", "prune 1/2", "finetune 1/2", "prune 2/2", "finetune 2/2"]
    assert [row["stage"] for row in report["stages"]] == stages
    verdicts = [one["verdict"] for row in report["stages"] if "verification" in row for one in row["verification"]["outputs"]]
    assert len(verdicts) == 3  # whether an output is equal to the last bit depends on the processor
    assert set(verdicts) <= {"proven", "tested"}
    assert report["obtained"]["macs"] <= 0.5
    assert report["bytes"] == (tmp_path / "o.onnx").stat().st_size < model.stat().st_size
    done = call(*given, "-o", tmp_path / "p.onnx")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.onnx").read_bytes() == (tmp_path / "o.onnx").read_bytes()
    assert all(stage in done.stdout for stage in stages)
    assert "requested macs=0.5, obtained macs=0." in done.stdout
    assert (
        "note: each stage that cuts is proven on the model that it began with; between them, outputs were not tested"
        in done.stdout
    )


@pytest.mark.parametrize("method", ["group_sl", "iterative"])
def test_killed_between_stages_it_ends_at_the_same_bytes(tmp_path: Path, small: tuple[Path, Path], method: str) -> None:
    model, data = small
    about = ("--data", data, "--target", "macs=0.4", "--method", method)
    given = ("train", model, *about, "--epochs", 2, "--batch", 8, "--align", 1)
    whole = call(*given, "-o", tmp_path / "whole.onnx")
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "o.onnx"
    resumed = (*given, "-o", out, "--resume", tmp_path / "c")
    for stage in (1, 2):
        kill(resumed, f"stage {stage}")
    assert not out.exists()
    done = call(*resumed)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == (tmp_path / "whole.onnx").read_bytes()


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (
            ("--target", "macs=0.5", "--sparsity", 0.8),
            2,
            "--sparsity 0.8 is for zeros in weights, --target macs=0.5 for channels",
        ),
        (("--method", "group_sl"), 2, "--method group_sl removes channels: say what remains, as --target macs=0.5"),
        (("--target", "macs=0.001"), 1, "target macs=0.001 cannot be reached"),
    ],
)
def test_channels_that_cannot_be_removed_are_one_line(
    tmp_path: Path, small: tuple[Path, Path], args: tuple[object, ...], status: int, said: str
) -> None:
    model, data = small
    done = call("train", model, "--data", data, "-o", tmp_path / "o.onnx", *args)
    assert done.returncode == status
    assert said in done.stderr
    assert len(PHASES.sub("", done.stderr).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
