from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import DIGITS, ENV, ROOT
from onnxprune.ir.model import Model
from onnxprune.options.fields import fields_of
from onnxprune.options.prune import Recipe

pytest.importorskip("optimum.commands.base", reason="Optimum is not installed: pip install 'onnxprune[optimum]'")


@pytest.fixture
def found(tmp_path: Path) -> dict[str, str]:
    """An environment in which optimum-cli finds the register file, once: where this package is not installed, a copy of it."""
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec("optimum.commands.register.register_onnxprune"):
            return {**ENV, "PYTHONPATH": str(ROOT)}
    register = tmp_path / "installed" / "optimum" / "commands" / "register"
    shutil.copytree(ROOT / "onnxprune" / "integrations" / "register", register)
    return {**ENV, "PYTHONPATH": f"{ROOT}:{tmp_path / 'installed'}"}


def optimum(*words: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "onnxprune", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_options_are_those_of_prune(tmp_path: Path, found: dict[str, str]) -> None:
    shown = optimum("--help", env=found, cwd=tmp_path)
    assert not shown.returncode, shown.stderr
    for field in fields_of(Recipe):
        assert all(flag in shown.stdout for flag in field.flags.split("/")), field.name


@pytest.mark.slow
def test_a_model_is_pruned_and_mistakes_are_said(tmp_path: Path, found: dict[str, str]) -> None:
    words = ("--onnx_model", DIGITS, "-o", "small.onnx", "--target", "macs=0.5", "--no-benchmark", "--no-verify")
    done = optimum(*words, "--protect", "*conv1*", "--protect", "*fc*", env=found, cwd=tmp_path)
    assert done.returncode == 2
    assert "protect" in done.stderr
    done = optimum(*words, env=found, cwd=tmp_path)
    assert not done.returncode, done.stderr
    assert Model.of(tmp_path / "small.onnx").nbytes < Model.of(DIGITS).nbytes
