"""Commands write their outputs, and nothing anywhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from command import DIGITS, ENV, names

PROGRAM = """
import sys

from onnxprune import cli

for args in (
    ["inspect", "m.onnx"],
    ["prune", "m.onnx", "-o", "a.onnx", "--calib", "s.npz"],
    ["quantize", "m.onnx", "-o", "b.onnx", "--calib", "s.npz"],
    ["finetune", "m.onnx", "-o", "c.onnx", "--data", "s.npz", "--teacher", "m.onnx", "--epochs", "1"],
):
    sys.argv = ["onnxprune", *args]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, args
"""


def test_nothing_is_written_but_outputs(tmp_path: Path) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work, home, home / "temporary"):
        folder.mkdir()
    (work / "m.onnx").write_bytes(Path(DIGITS).read_bytes())
    np.savez(work / "s.npz", image=np.random.default_rng(0).random((16, 1, 8, 8), np.float32))
    env = {name: value for name, value in ENV.items() if not name.startswith(("XDG_", "ORT_"))}
    env |= {"HOME": str(home), "TMPDIR": str(home / "temporary"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, cwd=work, env=env)
    assert not done.returncode, done.stderr
    assert names(work) == {"m.onnx", "s.npz", "a.onnx", "b.onnx", "c.onnx"}
    assert not [path for path in home.rglob("*") if not path.is_dir()]  # PyTorch makes an empty folder for temporary files
