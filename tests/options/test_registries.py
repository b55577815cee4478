"""What is registered is known at once: to help, to recipes, to recipe files and to the page of options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BRINGS = """
import numpy as np
from onnxprune.options.registries import CRITERIA, ENCODINGS, PATTERNS
from onnxprune.sparse.encoding.bitmask import Bitmask
from onnxprune.sparse.encoding.choose import Family
from onnxprune.sparse.patterns import Unstructured


@CRITERIA.register()
def longest(view):
    \"\"\"The later the better.\"\"\"
    return np.arange(view.size, dtype=float) + 1


@PATTERNS.register()
def anything(text):
    \"\"\"Whatever there is.\"\"\"
    return Unstructured() if text == "anything" else None


ENCODINGS.add("twice", Family(lambda mode: (Bitmask(),)), "Bits again.")
"""
MAIN = """import sys
sys.path.insert(0, {folder!r})
import {module}
from onnxprune.cli import main
main()
"""


@pytest.fixture(params=["imported", "entry points"])
def brought(tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """A module that registers one of each, imported before the command line or found by its entry points."""
    module = "brought_by_a_test"
    (tmp_path / f"{module}.py").write_text(BRINGS)
    if request.param == "entry points":
        info = tmp_path / "brought-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
        groups = (f"[onnxprune.{group}]\nmine = {module}\n" for group in ("criteria", "patterns", "encodings"))
        (info / "entry_points.txt").write_text("".join(groups))
        module = "os"
    (tmp_path / "main.py").write_text(MAIN.format(folder=str(tmp_path), module=module))
    return [sys.executable, str(tmp_path / "main.py")]


def call(command: list[str], *words: object) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False, env=env)
    return " ".join((done.stdout + done.stderr).split())


def test_help_recipes_and_files_know_a_new_name(brought: list[str], tmp_path: Path) -> None:
    criteria = call(brought, "prune", "--help").partition("Without samples: ")[2].partition(".")[0].split(", ")
    assert {*criteria} == {"l1", "l2", "linf", "fpgm", "bn_scale", "random", "longest"}
    said = call(brought, "sparsify", "--help")
    assert "anything (whatever there is)" in said
    assert ", twice" in said
    assert ", twice" in call(brought, "encode", "--help")
    (tmp_path / "recipe.toml").write_text(
        f"model = '{(ROOT / 'models' / 'digits.onnx').as_posix()}'\noutput = 'o.onnx'\n[prune]\ncriterion = 'longest'\n"
        "[sparsify]\npattern = 'anything'\n[encode]\nencoding = 'twice'\n"
    )
    done = call(brought, "run", tmp_path / "recipe.toml")
    assert "original" in done, done
    assert (tmp_path / "o.onnx").exists()
    code = Path(brought[1]).read_text().replace("main()", "from onnxprune.cli.reference import page; print(page())")
    page = call([brought[0], "-c", code])
    for name in ("longest", "anything", "twice"):
        assert f"| `{name}` | |" in page


def test_the_command_line_is_told_what_there_is(brought: list[str], tmp_path: Path) -> None:
    model, out = ROOT / "models" / "digits.onnx", tmp_path / "o.onnx"
    said = call(brought, "prune", model, "-o", out, "--criterion", "shortest")
    assert said.startswith("onnxprune: there is no criterion 'shortest'; there are auto, obs")
    assert "longest" in said
    assert "anything (whatever there is)" in call(brought, "sparsify", model, "-o", out, "--pattern", "nothing")
