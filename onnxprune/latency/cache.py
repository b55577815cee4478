"""Measured times, kept from run to run; they hold for one machine."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["LatencyCache", "read_table"]

_TABLE = "CREATE TABLE IF NOT EXISTS times (machine TEXT, model TEXT, ms REAL, PRIMARY KEY (machine, model)) WITHOUT ROWID"
_ERROR, _CORRUPT, _SCHEMA, _NOTADB = 1, 11, 17, 26  # Python has names for these since 3.11, and devices may have 3.10
_BROKEN = frozenset({_ERROR, _CORRUPT, _SCHEMA, _NOTADB})
"""What SQLite says of a file that is no database, is damaged, or has other tables; not of one that is locked."""
_WAIT = 30.0
"""Seconds to wait for another process that is writing."""
_ROWS, _LONGEST = 10**6, 1e8
"""Of a table of another program: the most times, and more milliseconds than anything takes."""


class LatencyCache:
    """Milliseconds by digest of the model that was timed, for one machine.

    A database: processes may share it, and a write is there whole or not at all. A cache that cannot be read counts as empty, and
    one that cannot be written stays as it is: times are then measured again. So are times that are negative, infinite or no
    numbers. A file that is no database, or one with other tables, is replaced.
    """

    def __init__(self, path: Path | None, machine: str, *, failures: bool = False) -> None:
        """Nothing is read yet.

        Args:
            path: of the file; ``None`` for nowhere.
            machine: that times are of.
            failures: whether it is also kept which models do not run; they are tried again otherwise.
        """
        self._path, self._machine, self._failures = path, machine, failures

    def load(self) -> dict[str, float | None]:
        """Every time that is known of this machine."""
        if self._path is None or not self._path.is_file():
            return {}
        try:
            with self._open(self._path) as database:
                rows = database.execute("SELECT model, ms FROM times WHERE machine = ?", [self._machine]).fetchall()
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", _CORRUPT)  # Python itself refuses text that is not UTF-8
            if code & 0xFF in _BROKEN and "locked" not in str(error):
                with contextlib.suppress(OSError):
                    self._path.unlink()
            return {}
        return {model: ms for model, ms in rows if isinstance(model, str) and self._is_time(ms)}

    def _is_time(self, ms: object) -> bool:
        return self._failures if ms is None else isinstance(ms, float) and 0 <= ms < math.inf

    def store(self, times: Mapping[str, float | None]) -> None:
        """Add times, and replace those that are there; ``None`` of models that do not run."""
        times = {model: ms for model, ms in times.items() if self._is_time(ms)}
        if self._path is None or not times or (self._path.exists() and not self._path.is_file()):
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._open(self._path) as database, database:
                rows = [(self._machine, model, ms) for model, ms in times.items()]
                database.executemany("INSERT OR REPLACE INTO times VALUES (?, ?, ?)", rows)

    def begin(self) -> None:
        """Make the file, if there is none: who measures for long should know first that times can be kept.

        Raises:
            OSError: it cannot be written.
        """
        if self._path is None:
            return
        try:
            with self._open(self._path) as database, database:
                database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: cannot be written: {error}") from error

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(path, timeout=_WAIT)) as database:
            database.execute("PRAGMA trusted_schema = OFF")  # what a file brings along is not run
            database.execute(_TABLE)
            yield database


def read_table(path: Path) -> dict[str, dict[str, float | None]]:
    """The times of every machine in a table that another program wrote, which is not changed.

    Raises:
        ValueError: it is no such table, or has a time that cannot be; says what, to go on after the name of the file.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            rows = database.execute("SELECT machine, model, ms FROM times LIMIT ?", [_ROWS + 1]).fetchall()
    except sqlite3.Error as error:
        raise ValueError(f"it is no table of latencies: {error}") from error
    if len(rows) > _ROWS:
        raise ValueError(f"it has more than {_ROWS} times")
    found: dict[str, dict[str, float | None]] = {}
    for machine, model, ms in rows:
        named = isinstance(machine, str) and isinstance(model, str)
        if not named or not (ms is None or (isinstance(ms, float) and 0 <= ms < _LONGEST)):
            raise ValueError(f"it has a time that cannot be: {ms!r} milliseconds")
        found.setdefault(machine, {})[model] = ms
    return found
