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
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screens")
    onnx.save(net(), path / "net.onnx")
    np.savez(path / "c.npz", x=np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32))
    assert within("sparsify", "net.onnx", "-o", "s.onnx", "--ends", cwd=path).status == 0
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
