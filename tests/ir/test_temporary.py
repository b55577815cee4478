"""Temporary folders go with their context, and those of killed processes with the next folder; others stay."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from command import ENV
from onnxprune.ir import temporary
from onnxprune.ir.outputs import replace_file, take_lock
from onnxprune.ir.temporary import temporary_folder
from two_files import names

posix = pytest.mark.skipif(sys.platform == "win32", reason="locks on folders")

HOLD = """
import sys
from onnxprune.ir.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "model.onnx").write_bytes(b"whole")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_context(place: Path) -> None:
    with temporary_folder() as folder:
        (folder / "file").write_bytes(b"x")
        assert place in folder.parents
    assert names(place) == set()


def test_a_folder_goes_when_an_error_leaves_the_context(place: Path) -> None:
    def fail() -> None:
        with temporary_folder():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(place) == set()


@posix
def test_the_folder_of_a_killed_process_goes_with_the_next_and_that_of_a_live_one_stays(place: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], Path]:
        command, pipe = [sys.executable, "-c", HOLD], subprocess.PIPE
        running = subprocess.Popen(command, env=ENV | {"TMPDIR": str(place)}, stdin=pipe, stdout=pipe, text=True)
        assert running.stdout
        return running, Path(running.stdout.readline().strip())

    live, kept = start()
    killed, left = start()
    with live, killed:
        killed.kill()
        killed.wait()
        assert left.exists()
        with temporary_folder():
            assert not left.exists()
            assert (kept / "model.onnx").read_bytes() == b"whole"
        assert live.stdin
        live.stdin.close()
    assert names(place) == set()


def test_outputs_are_written_into_a_folder(place: Path) -> None:
    with temporary_folder() as folder, replace_file(folder / "out") as file:
        file.write(b"whole")
    assert names(place) == set()


@posix
def test_nothing_else_is_taken_for_a_folder_that_was_left(place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "onnxprune-temporary-01234567").write_bytes(b"a file")
    (place / "onnxprune-temporary-abcdefgh").symlink_to(place / "elsewhere")
    (place / "onnxprune-temporary-mine").mkdir()
    (place / "onnxprune-temporary-89abcdef").mkdir()
    for name in ("onnxprune-examples", "onnxprune-temporary-examples"):  # a user's own
        (place / name).mkdir()
        (place / name / "model.onnx").write_bytes(b"a model")
    before = names(place)
    with temporary_folder():
        pass
    assert names(place) == before - {"onnxprune-temporary-89abcdef"}


@posix
def test_a_folder_that_was_taken_before_its_lock_is_made_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Path] = []

    def late(number: int, *, wait: bool = True) -> bool:
        if not taken:
            taken.extend(place.iterdir())
            taken[0].rmdir()
        return take_lock(number, wait=wait)

    monkeypatch.setattr(temporary, "take_lock", late)
    with temporary_folder() as folder:
        assert folder.exists()
        assert folder not in taken
    assert names(place) == set()


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root can give folders away")
def test_folders_of_other_users_stay(place: Path) -> None:
    left = place / "onnxprune-temporary-01234567"
    left.mkdir()
    os.chown(left, 12345, -1)
    with temporary_folder():
        pass
    assert left.exists()
