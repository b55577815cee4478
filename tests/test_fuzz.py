"""Broken inputs of the campaign in benchmarks/fuzz.py: no command may fall over any of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")
@pytest.mark.parametrize("count", [12, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_broken_input_is_a_finding(tmp_path: Path, count: int) -> None:
    script = ROOT / "benchmarks" / "fuzz.py"
    command = [sys.executable, str(script), str(count), "--findings", str(tmp_path)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert not ran.returncode, ran.stdout + ran.stderr
    assert f"| {count} |" in ran.stdout
