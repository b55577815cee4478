"""A file is there whole or not at all, and what cannot be reached is told in one line."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from command import ENV, names
from onnxprune.errors import OptionError, OutputError
from onnxprune.sweep.places import LocalPlace, RemotePlace, place_of

FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from onnxprune.sweep.places import LocalPlace
place = LocalPlace(__import__("pathlib").Path(sys.argv[1]))
place.write("a/b", b"x" * 1000)
try:
    place.write("a/b", b"y" * 1001)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_folder(tmp_path: Path) -> None:
    place = place_of(f"file://{tmp_path}/store")
    assert isinstance(place, LocalPlace)
    assert place.read("a/b") is None
    assert list(place.names("a")) == []
    place.write("a/b", b"1")
    place.write("a/b", b"2")
    (tmp_path / "c").write_bytes(b"3")
    place.put("a/c", tmp_path / "c")
    (tmp_path / "store" / "a" / ".b.0123abcd.part").write_bytes(b"of a writer that was killed")
    assert sorted(place.names("a")) == ["a/b", "a/c"]
    assert (place.read("a/b"), place.has("a/c"), place.has("a")) == (b"2", True, False)
    assert place.read("a") is None
    assert place.fetch("a/c", tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == b"3"
    assert not place.fetch("a/x", tmp_path / "e")


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be made"):
        LocalPlace(tmp_path / "store").write("a/b", b"1")


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, env=ENV, check=True)
    assert done.stdout.startswith(f"OutputError {tmp_path / 'a' / 'b'}: cannot be written: ")
    assert names(tmp_path / "a") == {"b"}
    assert (tmp_path / "a" / "b").read_bytes() == b"x" * 1000


def test_any_place_that_fsspec_reaches(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra [sweep] is not installed")
    place = place_of(f"memory://places{os.getpid()}/x/")
    assert isinstance(place, RemotePlace)
    assert place.read("a/b") is None
    assert list(place.names("a")) == []
    place.write("a/b", b"1")
    place.write("a/deep/c", b"2")
    assert sorted(place.names("a")) == ["a/b", "a/deep/c"]
    assert (place.read("a/b"), place.has("a/b"), place.has("a/x"), place.has("a")) == (b"1", True, False, False)
    (tmp_path / "large").write_bytes(b"3" * 3_000_000)
    place.put("models/large", tmp_path / "large")
    assert place.fetch("models/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"3" * 3_000_000
    assert not place.fetch("models/none", tmp_path / "none")
    assert names(tmp_path) == {"large", "back"}


def test_what_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec", reason="the extra [sweep] is not installed")
    with pytest.raises(OptionError, match="nothing://x: cannot be reached"):
        place_of("nothing://x")
    place = RemotePlace("memory://some")
    monkeypatch.setattr(place._files, "pipe_file", lambda *_: 1 / 0)
    monkeypatch.setattr(place._files, "cat_file", lambda *_: 1 / 0)
    with pytest.raises(OutputError, match="memory://some: cannot be written: division by zero"):
        place.write("a", b"")
    with pytest.raises(OptionError, match="memory://some: cannot be read: division by zero"):
        place.read("a")
    monkeypatch.setattr("onnxprune.sweep.places.find_spec", lambda _: None)
    with pytest.raises(OptionError, match=r'run pip install "onnxprune\[sweep\]"'):
        place_of("memory://some")
