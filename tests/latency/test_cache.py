"""Times are there whole or not at all, hold for one machine, and a bad file costs no more than the times in it."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onnxprune.latency import cache as latency_cache
from onnxprune.latency.cache import LatencyCache, read_table


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    cache = LatencyCache(tmp_path / "deep" / "times.sqlite", "m")
    assert cache.load() == {}
    cache.store({"a": 1.5, "b": 2.0})
    cache.store({"b": 3.0})
    assert cache.load() == {"a": 1.5, "b": 3.0}


def test_machines_are_apart(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    LatencyCache(path, "one").store({"a": 1.0})
    LatencyCache(path, "other").store({"a": 2.0})
    assert LatencyCache(path, "one").load() == {"a": 1.0}
    assert LatencyCache(path, "third").load() == {}


def test_without_a_path_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = LatencyCache(None, "m")
    cache.store({"a": 1.0})
    assert cache.load() == {}
    assert not list(tmp_path.iterdir())


def test_nothing_to_store_makes_no_file(tmp_path: Path) -> None:
    LatencyCache(tmp_path / "times.sqlite", "m").store({})
    assert not list(tmp_path.iterdir())


def test_a_write_that_is_interrupted_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LatencyCache(tmp_path / "times.sqlite", "m")
    cache.store({"a": 1.0})

    class Interrupted(dict[str, float]):
        def items(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
            yield "a", 9.0
            yield "b", 9.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.store(Interrupted(a=9.0))
    assert cache.load() == {"a": 1.0}


def test_writers_do_not_undo_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_cache, "_WAIT", 1800.0)  # the disk of a busy machine may be slow
    path = tmp_path / "times.sqlite"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: LatencyCache(path, "m").store({f"{n}.{k}": float(k + 1) for k in range(20)}), range(24)))
    assert len(LatencyCache(path, "m").load()) == 24 * 20


def test_a_file_that_is_no_database_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    path.write_bytes(b"not a database, and long enough for its header to be read" * 20)
    cache = LatencyCache(path, "m")
    assert cache.load() == {}
    cache.store({"a": 1.0})
    assert cache.load() == {"a": 1.0}


@pytest.mark.parametrize("ms", [-5.0, float("inf"), float("-inf"), None, "fast", b"\x00"])
def test_times_that_cannot_be_are_measured_again(tmp_path: Path, ms: object) -> None:
    path = tmp_path / "times.sqlite"
    cache = LatencyCache(path, "m")
    cache.store({"a": 1.0, "b": 2.0})
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE times SET ms = ? WHERE model = 'a'", [ms])
    assert cache.load() == {"b": 2.0}
    cache.store({"a": 3.0})
    assert cache.load() == {"a": 3.0, "b": 2.0}


@pytest.mark.parametrize("table", ["times (name TEXT)", "times (machine TEXT, model TEXT)"])
def test_a_database_with_other_tables_is_replaced(tmp_path: Path, table: str) -> None:
    path = tmp_path / "times.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE {table}")
    cache = LatencyCache(path, "m")
    assert cache.load() == {}
    cache.store({"a": 1.0})
    assert cache.load() == {"a": 1.0}


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_a_truncated_database_is_replaced(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "times.sqlite"
    cache = LatencyCache(path, "m")
    cache.store({f"{n}": 1.0 for n in range(1000)})
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    cache.load()
    cache.store({"a": 1.0})
    assert cache.load() == {"a": 1.0}


@pytest.mark.parametrize("change", ["model = CAST(x'ff' AS TEXT)", "ms = CAST(x'ff' AS TEXT)"])
def test_a_database_with_text_that_is_none_is_replaced(tmp_path: Path, change: str) -> None:
    cache = LatencyCache(tmp_path / "times.sqlite", "m")
    cache.store({"a": 1.0})
    with contextlib.closing(sqlite3.connect(tmp_path / "times.sqlite")) as database, database:
        database.execute("UPDATE times SET " + change)  # noqa: S608 - of this test
    assert cache.load() == {}
    cache.store({"a": 2.0})
    assert cache.load() == {"a": 2.0}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_pipe_is_no_cache(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "times.sqlite")
    cache = LatencyCache(tmp_path / "times.sqlite", "m")
    cache.store({"a": 1.0})
    assert cache.load() == {}


def test_what_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = LatencyCache(tmp_path / "file" / "times.sqlite", "m")
    cache.store({"a": 1.0})
    assert cache.load() == {}


def test_a_locked_database_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_cache, "_WAIT", 0.01)
    path = tmp_path / "times.sqlite"
    cache = LatencyCache(path, "m")
    cache.store({"a": 1.0})
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    cache.store({"b": 2.0})
    assert cache.load() == {}
    other.rollback()
    other.close()
    assert cache.load() == {"a": 1.0}


def test_a_table_begins_empty_or_says_that_it_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    LatencyCache(path, "m").begin()
    assert read_table(path) == {}
    LatencyCache(path, "m").store({"a": 1.0})
    LatencyCache(path, "m").begin()
    assert read_table(path) == {"m": {"a": 1.0}}
    LatencyCache(None, "m").begin()
    with pytest.raises(OSError, match="cannot be written"):
        LatencyCache(tmp_path, "m").begin()


def test_what_fails_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    LatencyCache(path, "m").store({"a": None, "b": 1.0})
    assert LatencyCache(path, "m", failures=True).load() == {"b": 1.0}
    LatencyCache(path, "m", failures=True).store({"a": None})
    assert LatencyCache(path, "m", failures=True).load() == {"a": None, "b": 1.0}
    assert LatencyCache(path, "m").load() == {"b": 1.0}


def test_a_table_has_the_times_of_every_machine_and_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    LatencyCache(path, "one", failures=True).store({"a": 1.0, "b": None})
    LatencyCache(path, "other").store({"a": 2.0})
    before = path.read_bytes()
    path.chmod(0o444)
    assert read_table(path) == {"one": {"a": 1.0, "b": None}, "other": {"a": 2.0}}
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ms", ["fast", b"\x00", -1.0, math.inf, 1e9])
def test_a_table_with_a_time_that_cannot_be_is_refused(tmp_path: Path, ms: object) -> None:
    path = tmp_path / "times.sqlite"
    LatencyCache(path, "m").store({"a": 1.0, "b": 2.0})
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE times SET ms = ? WHERE model = 'a'", [ms])
    with pytest.raises(ValueError, match="a time that cannot be"):
        read_table(path)


def test_what_is_no_table_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "times.sqlite"
    for content in (b"", b"text" * 1000, b"SQLite format 3\0" + bytes(4000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no table of latencies"):
            read_table(path)
        assert path.read_bytes() == content
    with pytest.raises(ValueError, match="no such file"):
        read_table(tmp_path / "other")
