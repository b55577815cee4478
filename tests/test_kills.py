"""The campaign in benchmarks/kills.py: whatever ends a command, its outputs are whole, and the next run leaves nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")
@pytest.mark.parametrize("count", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_no_kill_tears_or_loses_an_output(count: int) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "kills.py"),
        str(count),
        "--commands",
        "prune with a plan,apply,plan,encode",
    ]
    command = command if count < 100 else command[:-2]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert not ran.returncode, ran.stdout + ran.stderr
    assert f"| {count} |" in ran.stdout
