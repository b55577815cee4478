"""`onnxprune lint`, as the hook calls it."""

from __future__ import annotations

import shlex
from pathlib import Path

import onnx
import pytest
import yaml

from command import ROOT, net, refused, within


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(net(), tmp_path / "net.onnx")
    (tmp_path / "broken.onnx").write_text("text")
    return tmp_path


def test_the_hook_runs_what_it_says(folder: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["id"] == "onnxprune-lint"
    program, *words = shlex.split(hook["entry"])
    assert program == "onnxprune"
    done = within(*words, "--max-size=1M", "net.onnx", cwd=folder)
    assert (done.status, done.out) == (0, "net.onnx: good: 4.68 kB, 0% zeros stored\n")


def test_a_line_for_each_file_and_one_for_all(folder: Path) -> None:
    done = within("lint", "net.onnx", "broken.onnx", "--max-size", "1k", cwd=folder)
    assert done.status == 2
    assert done.err == "onnxprune: 2 of 2 files must be mended\n"
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["net.onnx", "broken.onnx"]
    assert within("lint", "net.onnx", "--max-size", "1k", cwd=folder).status == 1


def test_for_machines(folder: Path) -> None:
    done = within("lint", "net.onnx", "--max-size", "1k", "--json", cwd=folder)
    told = done.json()
    assert (done.status, told["failure"]["type"]) == (1, "QualityError")
    assert told["files"][0]["bytes"] == (folder / "net.onnx").stat().st_size


def test_a_limit_that_makes_no_sense(folder: Path) -> None:
    refused(within("lint", "net.onnx", "--max-size", "big", cwd=folder), 2, "--max-size 'big'")
