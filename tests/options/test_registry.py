"""Registries: what is registered, and what other installed packages bring."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.options.registry import SAMPLES, TORCH, Registry, load

ROOT = Path(__file__).resolve().parents[2]


def test_entries_that_need_samples_come_first() -> None:
    table = Registry[object]("thing", homes=())
    table.add("plain", 1, "one")

    @table.register(needs=(SAMPLES,))
    def better() -> None:
        """Does
        better.

        By samples.
        """

    table.add("far", "math:pi", "a number", (SAMPLES, TORCH))
    assert list(table) == ["better", "far", "plain"]
    assert (table["better"].help, table["better"].value) == ("Does better.", better)
    assert table["far"].value == load("math:pi")
    assert table.needing(TORCH) == ("far",)


def test_a_name_is_given_once() -> None:
    table = Registry[int]("thing", homes=())
    table.add("a", 1, "")
    with pytest.raises(ValueError, match="there is a thing 'a' already"):
        table.add("a", 2, "")


def package(folder: Path, group: str, module: str) -> dict[str, str]:
    """An installed package with an entry point, as Python sees it; the environment that finds it."""
    info = folder / "brought-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nmine = brought\n")
    (folder / "brought.py").write_text(module)
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


def python(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_package_brings_a_rule(tmp_path: Path) -> None:
    brings = 'from onnxprune.axes.rules import rule\n@rule("Foo", domain="my.domain")\ndef foo(node): ...\n'
    env = package(tmp_path, "onnxprune.rules", brings)
    done = python("from onnxprune.axes.rules import find; print(find('my.domain', 'Foo').__module__)", env)
    assert (done.stdout, done.stderr) == ("brought\n", "")


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("import absent_everywhere", "ModuleNotFoundError: No module named 'absent_everywhere'"),
        ('from onnxprune.axes.rules import rule\n@rule("Conv")\ndef conv(node): ...\n', "Conv has a rule already"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, module: str, says: str) -> None:
    env = package(tmp_path, "onnxprune.rules", module)
    done = python("import onnxprune\nonnxprune.analyze('models/digits.onnx')", env)
    last = done.stderr.strip().splitlines()[-1]
    assert "brought 1.2: its entry point onnxprune.rules: mine = brought cannot be imported: " in last
    assert says in last
    assert last.endswith("; repair the package or uninstall it")
