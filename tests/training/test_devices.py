"""Devices: the one that was asked for, several processes that end at the same weights, and as many threads as users have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from onnxprune import OptionError
from onnxprune.torch import to_module
from onnxprune.training.devices import Devices, find_devices
from onnxprune.training.masks import sparsity
from trainable import in_two_processes

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits.onnx"


def test_devices_that_are_not_there_are_refused() -> None:
    assert find_devices("cpu").device == torch.device("cpu")
    for name in ("gpu", "cpu:x", *([] if torch.cuda.is_available() else ["cuda"])):
        with pytest.raises(OptionError, match=f"--device {name}: this machine has none"):
            find_devices(name)
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="float16 needs a CUDA device"):
            find_devices("cpu", "float16")


def test_images_keep_their_channels_first() -> None:
    images, rows = np.arange(96.0).reshape(2, 3, 4, 4), np.arange(6).reshape(2, 3)
    found = Devices("cpu", "float32").tensors({"images": images, "rows": rows})
    assert found["images"].is_contiguous()
    assert np.array_equal(found["images"], images)
    assert np.array_equal(found["rows"], rows)


def test_gradients_are_clipped_and_layers_compute_in_half() -> None:
    where = Devices("cpu", "bfloat16")
    weight = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = torch.optim.SGD([weight], lr=1)
    with where.autocast():
        product = torch.ones(2, 4) @ weight
    assert product.dtype == torch.bfloat16
    where.step(product.float().sum() * 100, [weight], optimizer, clip=1.0)
    assert float((1 - weight.detach()).norm()) == pytest.approx(1, rel=1e-3)


def test_how_losses_are_scaled_goes_on_from_a_checkpoint() -> None:
    one, other = Devices("cpu", "float32"), Devices("cpu", "float32")
    assert one.state() == {}
    one.restore({})
    for where in (one, other):
        where._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1)
    weight = torch.nn.Parameter(torch.ones(2))
    one.step(weight.sum(), [weight], torch.optim.SGD([weight], lr=0.1), clip=0.0)
    other.restore(one.state())
    assert other.state() == one.state()
    assert other.state()["scale"] == 2.0**11


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.random((64, 1, 8, 8), np.float32), label=rng.integers(10, size=64))
    report = in_two_processes(
        *("finetune", DIGITS, "--data", "d.npz", "--teacher", DIGITS, "--eval", "d.npz", "--epochs", 2, "--batch", 16),
        *("--loss", "cross_entropy", "-o", "o.onnx", "--resume", "c"),
        cwd=tmp_path,
    )
    assert report["processes"] == 2
    assert report["steps_per_epoch"] == 2
    assert len(report["epochs"]) == 2
    moved = to_module(tmp_path / "o.onnx").weights()
    kept = to_module(DIGITS).weights()
    assert any(not torch.equal(moved[name], kept[name]) for name in kept)
    assert sparsity(moved) < 0.01


@pytest.mark.parametrize("words", [("finetune",), ("train", "--sparsity", "0.5")])
def test_a_training_ends_well_with_as_many_threads_as_users_have(tmp_path: Path, words: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.random((64, 1, 8, 8), np.float32))
    command, *rest = words
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "onnxprune",
            command,
            DIGITS,
            "--data",
            "d.npz",
            "--teacher",
            DIGITS,
            "--epochs",
            "1",
            "-o",
            "o",
            *rest,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=tmp_path,
    )
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "o").exists()
