"""An interrupted command says what it has written and what not, on the real command line."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from command import DIGITS, ENV, PATIENCE, PHASES
from onnxprune.cli.interrupts import accounted

CHILD = """
import signal, sys
from onnxprune.cli import pruning, main
from onnxprune.driver import prune as api
def interrupted(*given, **options):
    signal.raise_signal(getattr(signal, {name!r}))
api.prune = interrupted
signal.signal(getattr(signal, {name!r}), signal.SIG_DFL)  # a shell's background jobs ignore INT, and what runs under nohup HUP
sys.argv = ["onnxprune", *{args!r}]
main()
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("there", [False, True])
def test_an_interrupt_says_what_was_not_written(name: str, status: int, there: bool, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    if there:
        out.write_bytes(b"old")
    code = CHILD.format(name=name, args=["prune", DIGITS, "-o", str(out), "--force"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV, check=False, timeout=PATIENCE)
    assert done.returncode == status, done.stderr
    told = "is as it was" if there else "was not written"
    assert PHASES.sub("", done.stderr) == f"onnxprune: interrupted: {out} {told}\n"
    assert out.exists() is there


def interrupted(given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit), accounted(given):  # noqa: PT012 - the end comes after the file
        if "write" in given:
            Path(given["output"]).write_bytes(b"new")
        sys.exit(128 + signal.SIGTERM)
    return capsys.readouterr().err


def test_what_is_kept_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").mkdir()
    err = interrupted({"output": None, "keep": tmp_path / "kept"}, capsys)
    assert err == (
        f"onnxprune: interrupted: no output was written; {tmp_path / 'kept'} keeps what is done: repeat the command to go on\n"
    )


def test_results_of_a_sweep_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    err = interrupted({"output": None, "store": "s3://bucket/sweep"}, capsys)
    told = "s3://bucket/sweep has the results that were finished, whole: repeat the command to go on"
    assert err == f"onnxprune: interrupted: {told}\n"


def test_what_was_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, plan = tmp_path / "o.onnx", tmp_path / "p.json"
    err = interrupted({"output": out, "plan_out": plan, "write": True}, capsys)
    assert err == f"onnxprune: interrupted: {out} was written, whole; {plan} was not written\n"


def test_a_folder_has_what_was_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = interrupted({"output": tmp_path}, capsys)
    assert err == f"onnxprune: interrupted: {tmp_path} has the files that were finished, whole\n"


def test_other_ends_are_not_interrupts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), accounted({"output": tmp_path / "o.onnx"}):
        sys.exit(2)
    assert not capsys.readouterr().err
