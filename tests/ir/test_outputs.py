"""Files appear whole or not at all, those of one command together; what killed writers left goes, and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command import ENV
from onnxprune.errors import OutputError
from onnxprune.ir import files
from onnxprune.ir.outputs import Outputs, replace_file
from two_files import names

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, links, locks and signals of POSIX")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def write() -> None:
        with replace_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"out"}


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    def write() -> None:
        with replace_file(tmp_path / "out"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="out: cannot be written: No space left"):
        write()
    assert names(tmp_path) == set()


def test_a_vanished_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), replace_file(tmp_path / "gone" / "out"):
        pass


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with replace_file(tmp_path / "out") as file:
            file.write(b"new")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o666 & ~mask


def test_a_name_as_long_as_they_go_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with replace_file(files.check_output(path)) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_what_is_replaced_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    (tmp_path / "out").write_bytes(b"old")
    (tmp_path / "out").chmod(mode)
    with replace_file(tmp_path / "out") as file:
        (part,) = (path for path in tmp_path.iterdir() if path.name.endswith(".part"))
        assert stat.S_IMODE(part.stat().st_mode) == mode
        file.write(b"new")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == mode


@posix
@pytest.mark.parametrize("kind", ["pipe", "socket", "link", "loop", "link to nothing", "folder", "device"])
@pytest.mark.parametrize("force", [False, True])
def test_only_files_are_replaced(tmp_path: Path, kind: str, force: bool) -> None:
    path, words = tmp_path / "out", {"link to nothing": "link", "loop": "link"}.get(kind, kind)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        short = os.open(tmp_path, os.O_RDONLY)  # the path of a socket may have 107 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{short}/out")
        os.close(short)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path(os.devnull)
    else:
        (tmp_path / "there").write_bytes(b"mine")
        path.symlink_to({"link": "there", "loop": "out"}.get(kind, "nowhere"))
    with pytest.raises(OutputError, match=rf"{path}: is a .*{words.split()[0]}"):
        files.check_output(path, force=force)


def test_files_appear_together(tmp_path: Path) -> None:
    def write(fails: bool) -> None:
        with Outputs() as outputs:
            outputs.open(tmp_path / "a").file.write(b"a")
            outputs.open(tmp_path / "b").file.write(b"b")
            assert not names(tmp_path) & {"a", "b"}
            if fails:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(fails=True)
    assert names(tmp_path) == set()
    write(fails=False)
    assert names(tmp_path) == {"a", "b"}


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_signal_comes_between_two_renames(tmp_path: Path, number: signal.Signals) -> None:
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    @contextmanager
    def interrupted() -> Iterator[None]:
        yield
        os.kill(os.getpid(), number)
        assert not received

    def write() -> None:
        with Outputs() as outputs:
            outputs.open(tmp_path / "a", around=interrupted).file.write(b"a")
            outputs.open(tmp_path / "b").file.write(b"b")

    before = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
    finally:
        signal.signal(number, before)
    assert received == [number]
    assert names(tmp_path) == {"a", "b"}


LEAVES = """
import os, sys
from pathlib import Path
from onnxprune.ir.outputs import replace_file
with replace_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("here", flush=True)
    sys.stdin.read()
"""


@posix
def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for name in ("out2", "out.data", "xout"):  # parts of other outputs
        (tmp_path / f".{name}.01234567.part").write_bytes(b"theirs")
    others = names(tmp_path)
    command = [sys.executable, "-c", LEAVES, str(path)]
    with subprocess.Popen(command, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stdout.readline() == "here\n"
        (part,) = names(tmp_path) - others
        with replace_file(path) as file:
            file.write(b"mine")
        assert names(tmp_path) - others == {"out", part}
        running.kill()
    assert names(tmp_path) - others == {"out", part}
    with replace_file(path) as file:
        file.write(b"new")
    assert names(tmp_path) - others == {"out"}
    assert path.read_bytes() == b"new"


@posix
def test_a_file_that_may_not_be_as_large_is_an_output_error(tmp_path: Path) -> None:
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    program += "from onnxprune.__main__ import main; main()"
    model = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"
    command = [sys.executable, "-c", program, "encode", str(model), "-o", "out.onnx"]
    done = subprocess.run(command, env=ENV | {"PYTHONDONTWRITEBYTECODE": "1"}, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (2, b"onnxprune: out.onnx: cannot be written: File too large\n")
    assert names(tmp_path) == set()


def test_a_folder_that_was_made_for_files_goes_with_them(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.mkdir()

    def write(*, fail: bool) -> None:
        with Outputs() as outputs:
            for folder in (new, new / "inner", old):
                outputs.folder(folder)
            outputs.open(new / "inner" / "file").file.write(b"whole")
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(fail=True)
    assert names(tmp_path) == {"old"}
    write(fail=False)
    assert (new / "inner" / "file").read_bytes() == b"whole"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: No such file"), Outputs() as outputs:
        outputs.folder(tmp_path / "missing" / "new")
