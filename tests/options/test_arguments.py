from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.options.arguments import as_arguments

SOURCES = [file for room in ("onnxprune", "passes") for file in Path(__file__).parents[2].glob(f"{room}/**/*.py")]


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("--max-drop 1% needs samples to judge by", "max_drop=1% needs samples to judge by"),
        ("add --calib DATA, or use --criterion l2", "add calib=DATA, or use criterion=l2"),
        ("--calib data.npz: has no samples", "calib=data.npz: has no samples"),
        ("out.onnx: exists already: pass --force to replace it", "out.onnx: exists already: pass force=True to replace it"),
        ("write it with --no-verify", "write it with verify=False"),
        ("a larger --target, or less", "a larger target, or less"),
        ("--metric top1 needs labels", "metric=top1 needs labels"),
        ("--target latency=0.5 and --sparsity", "target=latency=0.5 and sparsity"),
        ("--layer '*conv*=0.5': none", "layers='*conv*=0.5': none"),
        ("a--b and x -- y, no-such --thing-at all", "a--b and x -- y, no-such thing_at all"),
        ("no flag", "no flag"),
    ],
)
def test_messages_name_arguments(flags: str, arguments: str) -> None:
    assert as_arguments(flags) == arguments
    assert as_arguments(arguments) == arguments


@pytest.mark.parametrize("source", [file for file in SOURCES if "cli" not in file.parts], ids=lambda file: file.stem)
def test_no_message_keeps_a_flag(source: Path) -> None:
    for text in re.findall(r'f?"[^"\n]*--[a-z][^"\n]*"', source.read_text()):
        assert not re.search(r"--[a-z]", as_arguments(text)), text


PROGRAM = """
import onnxprune
try:
    onnxprune.Recipe(max_drop="1%")
except onnxprune.OptionError as error:
    print(error)
"""


def test_programs_and_the_command_line_get_their_own() -> None:
    program = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert program.stdout == "max_drop=1% needs samples to judge by: add eval=DATA, other than calib\n"
    command = [sys.executable, "-m", "onnxprune", "prune", "absent.onnx", "-o", "out.onnx", "--max-drop", "1%"]
    told = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "--max-drop 1% needs samples to judge by: add --eval DATA, other than --calib" in told.stderr
