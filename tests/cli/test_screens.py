"""Every screen on a real terminal of 80 and of 120 columns, in a pipe, without colour and in ascii."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from command import ENV, PATIENCE, net, within

termios = pytest.importorskip("termios")
import fcntl  # noqa: E402 - only where there are terminals
import pty  # noqa: E402

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SCREENS: dict[str, tuple[str, ...]] = {
    "inspect": ("net.onnx", "--layers"),
    "prune": ("net.onnx", "-o", "a.onnx", "--force", "--no-benchmark", "--all"),
    "prune with samples": ("net.onnx", "-o", "b.onnx", "--force", "--no-benchmark", "--calib", "c.npz"),
    "plan": ("net.onnx", "-o", "p.json", "--force"),
    "sensitivity": ("net.onnx", "--calib", "c.npz"),
    "sparsify": ("net.onnx", "-o", "s.onnx", "--force", "--ends"),
    "encode": ("s.onnx", "-o", "e.onnx", "--force"),
    "quantize": ("net.onnx", "-o", "q.onnx", "--force", "--calib", "c.npz"),
    "apply": ("net.onnx", "made.json", "-o", "ap.onnx", "--force"),
    "verify": ("net.onnx", "made.onnx", "--plan", "made.json"),
    "decode": ("coded.onnx", "-o", "d.onnx", "--force"),
    "release": ("old.onnx", "-o", "rel.onnx", "--force"),
    "benchmark": ("net.onnx", "made.onnx", "--seconds", "0.02"),
    "lint": ("net.onnx", "made.onnx", "--max-size", "1M"),
    "log": ("made.onnx",),
    "compare": ("net.onnx", "made.onnx"),
    "run": ("r.toml", "--force"),
    "run what it would": ("r.toml", "--dry-run"),
}
WRITERS = ("prune", "sparsify", "encode", "quantize", "apply", "decode", "release", "run")
RECIPE = """model = "net.onnx"
output = "built.onnx"
[prune]
target = "macs=0.7"
align = "1"
[quantize]
calib = "c.npz"
[benchmark]
seconds = 0.02
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screens")
    onnx.save(net(), path / "net.onnx")
    np.savez(path / "c.npz", x=np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32))
    old = net()
    old.graph.input.extend(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in old.graph.initializer)
    onnx.save(old, path / "old.onnx")
    (path / "r.toml").write_text(RECIPE)
    for words in (
        ("sparsify", "net.onnx", "-o", "s.onnx", "--ends"),
        ("encode", "s.onnx", "-o", "coded.onnx"),
        ("prune", "net.onnx", "-o", "made.onnx", "--plan-out", "made.json", "--no-benchmark"),
    ):
        assert within(*words, cwd=path).status == 0
    return path


def terminal(name: str, columns: int, folder: Path, **env: str) -> str:
    """What a command prints on a terminal of so many columns; its progress goes elsewhere."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = [sys.executable, "-m", "onnxprune", name.split(maxsplit=1)[0], *SCREENS[name]]
    variables = {key: value for key, value in ENV.items() if key not in {"COLUMNS", "NO_COLOR", "FORCE_COLOR"}}
    process = subprocess.Popen(
        command, stdout=theirs, stderr=subprocess.DEVNULL, cwd=folder, env={**variables, "TERM": "xterm-256color", **env}
    )
    os.close(theirs)
    found = b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while chunk := os.read(ours, 1 << 16):
            found += chunk
    os.close(ours)
    assert process.wait(PATIENCE) == 0, found
    return found.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", SCREENS)
def test_lines_fit_except_those_that_are_copied(name: str, columns: int, folder: Path) -> None:
    lines = ESCAPES.sub("", terminal(name, columns, folder)).splitlines()
    copied = [line for line in lines if re.match(r"(next:| {4,}) *(onnxprune|python|samples|import|np\.)", line)]
    assert max(len(line) for line in lines if line not in copied) <= columns
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("name", WRITERS)
def test_what_writes_a_model_says_what_it_costs(name: str, folder: Path) -> None:
    done = within(name, *SCREENS[name], cwd=folder)
    rows = [line.split()[0] for line in done.out.splitlines() if line]
    assert {"file", "MACs", "parameters"} <= set(rows), done.out
    assert "\x1b" not in done.out


def test_the_red_line_is_red_and_without_colour_it_is_words(folder: Path) -> None:
    red = [line for line in terminal("prune", 120, folder).splitlines() if "\x1b[1;31m" in line]
    assert any("accuracy" in line for line in red)
    plain = terminal("prune", 120, folder, NO_COLOR="1")
    assert "\x1b[1;31m" not in plain
    assert "accuracy is unknown: no samples were given" in ESCAPES.sub("", plain)


@pytest.mark.parametrize("name", ["inspect", "sensitivity"])
def test_bars_are_of_signs_that_the_terminal_has(name: str, folder: Path) -> None:
    narrow = terminal(name, 80, folder, PYTHONIOENCODING="ascii")
    assert narrow.isascii()
    assert "##" in narrow
    assert "\\u" not in narrow
    assert "██" in terminal(name, 80, folder, PYTHONIOENCODING="utf-8")
