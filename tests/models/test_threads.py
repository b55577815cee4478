"""Commands that compute most run, each in its own process, with any number of threads: some libraries crash for some numbers."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from command import ENV

COMMANDS = {
    "prune": ("prune", "--target", "macs=0.5", "--calib", "s.npz", "--no-benchmark"),
    "finetune": ("finetune", "--data", "s.npz", "--epochs", "1"),
    "train": ("train", "--data", "s.npz", "--epochs", "1", "--sparsity", "0.5"),
}
IMAGES = 512
MEAN, SPREAD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


@pytest.fixture
def folder(shared: Callable[[str], Path], tmp_path: Path) -> Path:
    """Normalised images of CIFAR-10, and their classes."""
    from PIL import Image

    archive = np.load(shared("data/cifar10-train-20k.npz"))
    data, edges = archive["jpeg"], archive["offsets"]
    images = np.stack(
        [np.asarray(Image.open(io.BytesIO(data[edges[at] : edges[at + 1]].tobytes())).convert("RGB")) for at in range(IMAGES)]
    )
    x = ((images.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(SPREAD, np.float32)).transpose(0, 3, 1, 2)
    np.savez(tmp_path / "s.npz", input=np.ascontiguousarray(x), label=archive["label"][:IMAGES].astype(np.int64))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("model", ["resnet20-cifar10", "resnet20-cifar10-bn"])
def test_commands_run_with_any_number_of_threads(shared: Callable[[str], Path], folder: Path, model: str, name: str) -> None:
    plain = {key: value for key, value in ENV.items() if not key.endswith("_THREADS")}
    command, *options = COMMANDS[name]
    found = set()
    for count in (1, 2, 4):
        out = folder / f"{count}.onnx"
        words = [command, shared(f"models/{model}.onnx"), *options, "-o", out, "--threads", count]
        subprocess.run([sys.executable, "-m", "onnxprune", *map(str, words)], check=True, env=plain, cwd=folder)
        found.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(found) == 1 or name != "prune", "other bytes with other threads"
