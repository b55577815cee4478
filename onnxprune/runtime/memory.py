"""How much memory the compiler takes: batches, what is held instead of written to disk, and what is tested follow from it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from onnxprune.errors import OptionError

__all__ = ["VARIABLE", "batch_bytes", "bound_memory", "free", "left", "max_memory", "read_bytes", "share", "spare"]

VARIABLE = "ONNXPRUNE_MAX_MEMORY"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_LEAST = 2**26
"""Bytes that are always given out, 64 MiB: below that, batches of one sample would only be slow."""
_BATCH, _BATCH_PART = 2**28, 8
"""Bytes of all activations of one batch of calibration, about, 256 MiB; and the part of the memory which they may take."""
_GROUP = Path("/sys/fs/cgroup")
_SYSTEM, _PROCESS = Path("/proc/meminfo"), Path("/proc/self/statm")


def read_bytes(text: str, what: str = "--max-memory") -> int:
    """The number of bytes in a text: ``2G``, ``512M``, ``1.5GiB``, ``800000``; units are powers of 1024.

    Raises:
        OptionError: it is none; says ``what`` it should be.
    """
    found = _SIZE.fullmatch(text.strip())
    number = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if number < 1:
        raise OptionError(f"{what} {text!r}: write a number of bytes, as 2G or 512M")
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


@contextlib.contextmanager
def max_memory(size: int | str) -> Iterator[None]:
    """Bound the memory of this process, and of those that it starts, as long as the context lasts; the least bound counts.

    Batches, and with them the last bits of what is computed from samples, follow from the bound. It holds for all threads.

    Args:
        size: bytes, or a text as ``2G`` or ``512M``.

    Raises:
        OptionError: it is neither.
    """
    before = os.environ.get(VARIABLE, "")
    wanted = read_bytes(str(size), "max_memory")
    os.environ[VARIABLE] = str(min(wanted, read_bytes(before)) if before else wanted)
    try:
        yield
    finally:
        os.environ[VARIABLE] = before


def free() -> int | None:
    """Bytes that the system, and the control group of the process, have left; ``None`` where nobody knows."""
    found = [_system("MemAvailable"), _group_left()]
    return min((size for size in found if size is not None), default=None)


def left() -> int | None:
    """Bytes that this process may still take: of its bound, else of what is free; ``None`` where nobody knows."""
    bound = os.environ.get(VARIABLE, "")
    return max(0, read_bytes(bound) - _resident()) if bound else free()


def share(part: int, most: int) -> int:
    """Bytes for a purpose that results depend on: a ``part``-th of the bound, else of the machine's; no more than ``most``.

    Sums over batches round as the batches are cut. So this does not depend on what is free at the moment.
    """
    return _part(part, most, _in_machine)


def spare(part: int, most: int) -> int:
    """Bytes for a purpose that no result depends on: a ``part``-th of the bound, else of what was free at first."""
    return _part(part, most, _free_at_first)


def batch_bytes() -> int:
    """Bytes of all activations of one batch of calibration, about."""
    return share(_BATCH_PART, _BATCH)


def _part(part: int, most: int, unbound: Callable[[], int | None]) -> int:
    bound = os.environ.get(VARIABLE, "")
    have = read_bytes(bound) if bound else unbound()
    return most if have is None else min(most, max(have // part, _LEAST))


@cache
def _free_at_first() -> int | None:
    return free()


@cache
def _in_machine() -> int | None:
    """Bytes that the machine has, or those that the control group of the process may take."""
    found = [_system("MemTotal"), _of_group("memory.max")]
    return min((size for size in found if size is not None), default=None)


def _system(name: str) -> int | None:
    try:
        lines = _SYSTEM.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _of_group(name: str) -> int | None:
    try:
        return int((_GROUP / name).read_text("ascii"))
    except (OSError, ValueError):  # "max", where there is no limit
        return None


def _group_left() -> int | None:
    limit, used = _of_group("memory.max"), _of_group("memory.current")
    return None if limit is None or used is None else max(0, limit - used)


def _resident() -> int:
    """Bytes of this process that are in memory."""
    try:
        return int(_PROCESS.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
