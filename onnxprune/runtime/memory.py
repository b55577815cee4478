"""How much memory the compiler takes: batches, what is held instead of written to disk, and what is tested follow from it."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from onnxprune.errors import OptionError

__all__ = ["VARIABLE", "bound_memory", "free", "left", "read_bytes", "share"]

VARIABLE = "ONNXPRUNE_MAX_MEMORY"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_LEAST = 2**26
"""Bytes that are always given out, 64 MiB: below that, batches of one sample would only be slow."""
_GROUP = Path("/sys/fs/cgroup")
_SYSTEM, _PROCESS = Path("/proc/meminfo"), Path("/proc/self/statm")


def read_bytes(text: str) -> int:
    """The number of bytes in a text: ``2G``, ``512M``, ``1.5GiB``, ``800000``; units are powers of 1024.

    Raises:
        OptionError: it is none.
    """
    found = _SIZE.fullmatch(text.strip())
    number = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if number < 1:
        raise OptionError(f"--max-memory {text!r}: write a number of bytes, as 2G or 512M")
    return number


def bound_memory(text: str | None) -> None:
    """Bound the memory of this process, and of those that it starts; with nothing, the environment's bound is checked.

    Raises:
        OptionError: that is no number of bytes.
    """
    if text is not None:
        os.environ[VARIABLE] = str(read_bytes(text))
    elif os.environ.get(VARIABLE):
        read_bytes(os.environ[VARIABLE])


def free() -> int | None:
    """Bytes that the system, and the control group of the process, have left; ``None`` where nobody knows."""
    found = [_available(), _group_left()]
    return min((size for size in found if size is not None), default=None)


def left() -> int | None:
    """Bytes that this process may still take: of its bound, else of what is free; ``None`` where nobody knows."""
    bound = os.environ.get(VARIABLE, "")
    return max(0, read_bytes(bound) - _resident()) if bound else free()


def share(part: int, most: int) -> int:
    """Bytes for one purpose: a ``part``-th of the bound, else of what was free at first, and no more than ``most``.

    It is the same throughout a process, so that a run with the same bound takes the same batches.
    """
    bound = os.environ.get(VARIABLE, "")
    have = read_bytes(bound) if bound else _free_at_first()
    return most if have is None else min(most, max(have // part, _LEAST))


@cache
def _free_at_first() -> int | None:
    return free()


def _available() -> int | None:
    try:
        lines = _SYSTEM.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _group_left() -> int | None:
    try:
        limit, used = ((_GROUP / name).read_text("ascii").strip() for name in ("memory.max", "memory.current"))
        return None if limit == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None


def _resident() -> int:
    """Bytes of this process that are in memory."""
    try:
        return int(_PROCESS.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
