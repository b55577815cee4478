"""Streams that are missing, full or narrow, and signals at odd moments."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command import DIGITS, ENV, PHASES
from onnxprune.cli.console import console, escaped
from onnxprune.cli.process import stoppable

COMMAND = f"'{sys.executable}' -m onnxprune"
posix = pytest.mark.skipif(sys.platform == "win32", reason="streams and signals of POSIX")


def shell(words: str, folder: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(["/bin/sh", "-c", words], capture_output=True, check=False, cwd=folder, env={**ENV, **env})
    done.stderr = PHASES.sub("", done.stderr.decode()).encode()
    return done


@posix
def test_nobody_need_read_what_is_printed(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} encode '{DIGITS}' -o out.onnx >&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out.onnx").exists()


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("more", ["", " --json"])
def test_a_report_that_cannot_be_printed_has_a_status_of_its_own(tmp_path: Path, more: str) -> None:
    done = shell(f"{COMMAND} encode '{DIGITS}' -o out.onnx{more} >/dev/full", tmp_path)
    assert done.returncode == 74
    assert done.stderr.startswith(b"onnxprune: the report cannot be printed: No space left on device")
    assert done.stderr.count(b"\n") == 1
    assert (tmp_path / "out.onnx").exists()


@posix
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_encoding_takes_every_name(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "\u6a21.onnx").write_bytes(Path(DIGITS).read_bytes())
    done = shell(f"{COMMAND} inspect *.onnx", tmp_path, PYTHONIOENCODING=encoding, LC_ALL="C.UTF-8")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"\\u6a21.onnx")


def test_names_do_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert escaped("a\x1b[31mb\tc\nd\u202e\x9b") == "a\\x1b[31mb\tc\nd\\u202e\\x9b"
    console().print("node \x1b]0;title\x07")
    assert capsys.readouterr().out == "node \\x1b]0;title\\x07\n"


@posix
def test_whatever_comes_of_an_interrupt_it_is_one() -> None:
    before = signal.default_int_handler
    started_with = signal.signal(signal.SIGINT, before)  # a shell that starts tests in the background ignores interrupts

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy._core failed to import") from None

    try:
        with pytest.raises(SystemExit) as end, stoppable():
            work()
        assert end.value.code == 128 + signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, started_with)


@posix
def test_what_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
