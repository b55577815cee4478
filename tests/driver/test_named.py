"""Every command that has globs refuses those that name nothing: exit 2, near names, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from command import names, net, refused, within
from onnxprune.driver.named import check_protected, standing
from onnxprune.ir.model import Model

COMMANDS = {
    "inspect": ["--protect", "ww1"],
    "prune": ["-o", "o.onnx", "--protect", "ww1"],
    "plan": ["-o", "o.json", "--protect", "ww1"],
    "sensitivity": ["--calib", "c.npz", "--protect", "ww1"],
    "sparsify": ["-o", "o.onnx", "--ends", "--protect", "ww1"],
    "optimize": ["-o", "o.onnx", "--calib", "c.npz", "--protect", "ww1"],
    "train": ["-o", "o.onnx", "--data", "c.npz", "--target", "macs=0.5", "--protect", "ww1"],
}
OTHERS = {
    "sparsify": (["-o", "o.onnx", "--ends", "--layer", "ww1=0.5"], "--layer"),
    "quantize": (["-o", "o.onnx", "--calib", "c.npz", "--exclude", "ww1"], "--exclude"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(net(), tmp_path / "net.onnx")
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_protected_names_that_are_not_there(command: str, folder: Path) -> None:
    before = names(folder)
    done = within(command, "net.onnx", *COMMANDS[command], cwd=folder)
    refused(done, 2, "--protect 'ww1'", "is called like that", "did you mean 'w1'")
    assert names(folder) == before


@pytest.mark.parametrize("command", sorted(OTHERS))
def test_other_globs_that_name_nothing(command: str, folder: Path) -> None:
    given, option = OTHERS[command]
    refused(within(command, "net.onnx", *given, cwd=folder), 2, f"{option} 'ww1'", "did you mean 'w1'")


def test_names_of_the_graph_that_passes_see_count_too() -> None:
    model = Model.of(net())
    check_protected(["c1", "w1", "a", "x"], model)
    assert standing(["c*", "gone*"], model) == ("c*",)
