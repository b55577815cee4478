"""A database of rows: in order, whole, and made again where it is lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import OutputError
from onnxprune.sweep.index import Index


def row(state: str = "waiting", **more: Any) -> dict[str, Any]:
    return {"state": state, "score": None, **more}


def test_rows_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "own" / "sweep.db"
    assert Index.read(path) is None
    with Index(path) as index:
        index.order([("b", 0, row()), ("a", 1, row())])
        index.put([("a", row("done", score=0.5), "f" * 64), ("new", row("failed"), "")])
        assert [(one["key"], one["state"]) for one in index.rows()] == [("b", "waiting"), ("a", "done"), ("new", "failed")]
        assert index.states() == {"b": ("waiting", ""), "a": ("done", "f" * 64), "new": ("failed", "")}
        other = Index.read(path)  # while the first one writes
        assert other == index.rows()
        index.order([("a", 0, row()), ("b", 1, row())])  # what is done stays done
        assert [(one["key"], one["state"]) for one in index.rows()][:2] == [("a", "done"), ("b", "waiting")]
    assert Index.read(path) == other or Index.read(path)


@pytest.mark.parametrize("content", [b"", b"no database" * 100, b"SQLite format 3\0" + bytes(1000)])
def test_what_is_no_database_is_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sweep.db"
    path.write_bytes(content)
    assert not Index.read(path)
    with Index(path) as index:
        index.put([("a", row("done"), "")])
    assert Index.read(path) == [{**row("done"), "key": "a"}]


def test_other_tables_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "sweep.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 7")
        database.execute("CREATE TABLE rows (x)")
    database.close()
    assert Index.read(path) is None
    with Index(path) as index:
        assert index.rows() == []


def test_rows_that_are_none_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sweep.db"
    with Index(path) as index:
        index.put([("a", row("done"), "")])
    with sqlite3.connect(path) as database:
        database.execute("UPDATE rows SET row = '[[1]'")
    database.close()
    assert Index.read(path) is None
    with Index(path) as index:
        assert index.rows() == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"sweep\.db: cannot be written"):
        Index(tmp_path / "file" / "sweep.db")
