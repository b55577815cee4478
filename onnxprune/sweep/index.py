"""A database of what is in a store: tasks, in their order, with the row of each. It is made again where it is lost.

Only the process that runs a sweep writes it. SQLite in WAL mode: others may read meanwhile, and a write is there whole or not
at all.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from onnxprune.errors import OutputError
from onnxprune.options.documents import is_deep, strict

__all__ = ["FILE", "Index", "Rows"]

FILE = "sweep.db"
Rows = list[dict[str, Any]]

_FORMAT = 1
_TABLE = """CREATE TABLE IF NOT EXISTS rows (
 key TEXT PRIMARY KEY, place INTEGER NOT NULL, state TEXT NOT NULL, sha256 TEXT NOT NULL, row TEXT NOT NULL) WITHOUT ROWID"""
_WRITE = "INSERT INTO rows VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET {}"
_OUTCOME = _WRITE.format("state = excluded.state, sha256 = excluded.sha256, row = excluded.row")
_ORDER = _WRITE.format("place = excluded.place")
_WAIT = 30.0
"""Seconds to wait for another process that is writing."""


class Index:
    """The rows of a store, by key; a context."""

    def __init__(self, path: Path) -> None:
        """Open the database, or make one; a file that is none is replaced.

        Raises:
            OutputError: it cannot be written.
        """
        self._path = path
        with self._telling():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._opened() or self._anew()
            self._last: int = self._database.execute("SELECT COALESCE(MAX(place), 0) FROM rows").fetchone()[0]

    @classmethod
    def read(cls, path: Path) -> Rows | None:
        """The rows of a database, in order; ``None`` where there is none that can be read."""
        if not path.is_file():
            return None
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=_WAIT)) as database:
                database.execute("PRAGMA trusted_schema = OFF")
                if database.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
                    return None
                return _rows(database)
        except (sqlite3.Error, ValueError, RecursionError):
            return None

    def rows(self) -> Rows:
        """Every row, in order."""
        return _rows(self._database)

    def row(self, key: str) -> dict[str, Any]:
        """The row of a task."""
        ((text,),) = self._database.execute("SELECT row FROM rows WHERE key = ?", [key]).fetchall()
        found: dict[str, Any] = json.loads(text)
        return found

    def states(self) -> dict[str, tuple[str, str]]:
        """The state of each task, and the SHA-256 of its model, by key."""
        found = self._database.execute("SELECT key, state, sha256 FROM rows").fetchall()
        return {key: (state, sha256) for key, state, sha256 in found}

    def order(self, rows: Iterable[tuple[str, int, Mapping[str, Any]]]) -> None:
        """Put tasks at their places; those that are not here yet with a row."""
        listed = [(key, place, row["state"], "", _text(row)) for key, place, row in rows]
        self._last = max([self._last, *(place for _, place, *_ in listed)])
        with self._telling(), self._database:
            self._database.executemany(_ORDER, listed)

    def put(self, rows: Iterable[tuple[str, Mapping[str, Any], str]]) -> None:
        """Replace rows, of which each has a key and the SHA-256 of the model that was made; a new one comes last."""
        self._last += 1
        listed = [(key, self._last, row["state"], sha256, _text(row)) for key, row, sha256 in rows]
        with self._telling(), self._database:
            self._database.executemany(_OUTCOME, listed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def _opened(self) -> sqlite3.Connection | None:
        """The database; ``None`` if the file is none, or of another version."""
        database = sqlite3.connect(self._path, timeout=_WAIT)
        try:
            database.execute("PRAGMA trusted_schema = OFF")  # what a file brings along is not run
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, _FORMAT}:
                raise sqlite3.DatabaseError
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_TABLE)
            database.execute(f"PRAGMA user_version = {_FORMAT}")
            _rows(database)
        except sqlite3.OperationalError:
            database.close()
            raise
        except (sqlite3.Error, ValueError):
            database.close()
            return None
        return database

    def _anew(self) -> sqlite3.Connection:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        made = self._opened()
        if made is None:
            raise OutputError(f"{self._path}: cannot be written: it is no database")
        return made

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}") from error


def _rows(database: sqlite3.Connection) -> Rows:
    found = []
    for key, state, text in database.execute("SELECT key, state, row FROM rows ORDER BY place, key").fetchall():
        row = json.loads(text)
        if not isinstance(row, dict) or is_deep(row):
            raise ValueError
        found.append({**row, "key": key, "state": state})
    return found


def _text(row: Mapping[str, Any]) -> str:
    return json.dumps(strict(row))
