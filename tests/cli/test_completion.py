"""Completion in a shell: of commands, options, and the names that an option may have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import ENV

BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with the command `onnxprune`, and what it prints to be sourced by bash."""
    path = tmp_path_factory.mktemp("shell")
    command = path / "onnxprune"
    code = "import sys; sys.argv[0] = 'onnxprune'; from onnxprune.__main__ import main; main()"  # as the installed command
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    command.chmod(0o755)
    shell = {**ENV, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # the shell is named, not found out
    module = [sys.executable, "-m", "onnxprune", "--show-completion", "bash"]
    printed = subprocess.run(module, capture_output=True, text=True, check=True, env=shell).stdout
    (path / "completion.sh").write_text(printed)
    return path


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("onnxprune spa", ["sparsify"]),
        ("onnxprune prune --crit", ["--criterion"]),
        ("onnxprune prune --criterion l", ["l1", "l2", "linf"]),
        ("onnxprune sweep st", ["status"]),
        ("onnxprune sweep net.onnx --calib c.npz --targ", ["--target"]),
        ("onnxprune prune mod", []),  # bash then completes files
    ],
)
def test_bash_completes(folder: Path, line: str, offered: list[str]) -> None:
    assert BASH is not None
    words = line.split()
    asks = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _onnxprune_completion onnxprune; echo ${{COMPREPLY[@]}}"
    env = {**ENV, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    script = f"source {folder}/completion.sh; {asks}"
    done = subprocess.run([BASH, "-c", script], capture_output=True, text=True, check=False, env=env)
    assert not done.stderr
    assert done.stdout.split() == offered


def test_the_script_is_for_the_command_also_where_the_module_prints_it(folder: Path) -> None:
    assert "complete -o default -F _onnxprune_completion onnxprune" in (folder / "completion.sh").read_text()
