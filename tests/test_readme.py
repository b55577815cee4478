"""The README's five minutes: its code and its commands run as they stand, from an export to a verified file."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from command import ENV, PATIENCE, ROOT, shell

README = (ROOT / "README.md").read_text("utf-8")
LINES = 150


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= LINES


def test_its_code_and_commands_work(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=ENV, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^    (onnxprune .*)$", README, re.MULTILINE)
    assert [shlex.split(command)[1] for command in commands] == ["inspect", "prune", "benchmark"]
    for command in commands:
        ran = shell(*shlex.split(command)[1:], cwd=tmp_path)
        assert ran.status == 0, ran.err
        if " prune " in command:
            assert "surgery exact" in ran.out
            assert "held out" in ran.out
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size


def test_commands_of_the_table_exist() -> None:
    from onnxprune.cli.derived import COMMANDS

    rows = [line.split("|")[2] for line in README.splitlines() if line.startswith("|") and line.count("|") == 4]
    said = {word.split()[0] for row in rows for word in re.findall(r"`([a-z]+(?: [^`]*)?)`", row)}
    assert {"prune", "optimize", "inspect", "sparsify", "quantize", "finetune", "run", "plan"} <= said
    assert {word for word in said if word.isalpha()} <= {name.split()[0] for name in COMMANDS}
