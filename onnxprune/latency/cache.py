"""Measured times, kept from run to run; they hold for one machine."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from onnxprune.ir.caches import user_cache

__all__ = ["LatencyCache", "default_cache"]

_TABLE = "CREATE TABLE IF NOT EXISTS times (machine TEXT, model TEXT, ms REAL, PRIMARY KEY (machine, model)) WITHOUT ROWID"
_BROKEN = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA})
"""What SQLite says of a file that is no database, is damaged, or has other tables; not of one that is locked."""
_WAIT = 30.0
"""Seconds to wait for another process that is writing."""


def default_cache() -> Path:
    """The file in the user's folder for caches."""
    return user_cache() / "latency.sqlite"


class LatencyCache:
    """Milliseconds by digest of the model that was timed, for one machine.

    A database: processes may share it, and a write is there whole or not at all. A cache that cannot be read counts as empty, and
    one that cannot be written stays as it is: times are then measured again. So are times that are negative, infinite or no
    numbers. A file that is no database, or one with other tables, is replaced.
    """

    def __init__(self, path: Path | None, machine: str) -> None:
        self._path, self._machine = path, machine

    def load(self) -> dict[str, float]:
        """Every time that is known of this machine."""
        if self._path is None or not self._path.is_file():
            return {}
        try:
            with self._open(self._path) as database:
                rows = database.execute("SELECT model, ms FROM times WHERE machine = ?", [self._machine]).fetchall()
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # Python itself refuses text that is not UTF-8
            if code & 0xFF in _BROKEN:
                with contextlib.suppress(OSError):
                    self._path.unlink()
            return {}
        return {model: ms for model, ms in rows if isinstance(model, str) and isinstance(ms, float) and 0 <= ms < math.inf}

    def store(self, times: Mapping[str, float]) -> None:
        """Add times, and replace those that are there."""
        if self._path is None or not times or (self._path.exists() and not self._path.is_file()):
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._open(self._path) as database, database:
                rows = [(self._machine, model, ms) for model, ms in times.items()]
                database.executemany("INSERT OR REPLACE INTO times VALUES (?, ?, ?)", rows)

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(path, timeout=_WAIT)) as database:
            database.execute("PRAGMA trusted_schema = OFF")  # what a file brings along is not run
            database.execute(_TABLE)
            yield database
