"""How many threads the compiler takes: one number for ONNX Runtime, PyTorch, and products of matrices.

BLAS itself has one thread. With more, it cuts its sums elsewhere for each number of them, and the last bits differ; the compiler
gives it pieces that are always the same, several at a time (`onnxprune.runtime.parallel`).
"""

from __future__ import annotations

import os
from pathlib import Path

from onnxprune.errors import OptionError

__all__ = ["VARIABLE", "available", "bound", "bounds", "threads"]

VARIABLE = "ONNXPRUNE_THREADS"
_PYTORCH = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What PyTorch reads when it is imported."""
_BLAS = ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What the BLAS of numpy reads when it is imported."""
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available() -> int:
    """The cores that the process may use: those of its affinity, and no more than the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text("ascii").split()
        return cores if quota == "max" else max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return cores


def threads() -> int:
    """The threads of one operator, where nothing else is asked for.

    Raises:
        OptionError: ``ONNXPRUNE_THREADS`` is no number of threads.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return available()
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 4 and int(text)):
        raise OptionError(f"{VARIABLE}={text!r}: write a number of threads, 1 or more")
    return int(text)


def bounds(count: int) -> dict[str, str]:
    """The environment of a process whose libraries have so many threads; of BLAS it says what that of this process says."""
    return dict.fromkeys((VARIABLE, *_PYTORCH), str(count)) | {name: os.environ.get(name) or "1" for name in _BLAS}


def bound(count: int | None = None) -> None:
    """Bound the threads of every library that computes; call it before numpy and PyTorch are imported.

    What the environment already says of a library is kept, unless a number is given.

    Args:
        count: of threads; by default what ``ONNXPRUNE_THREADS`` says, or `available`.
    """
    if count is not None:
        os.environ.update(bounds(count))
        return
    for name, value in bounds(threads()).items():
        if name != VARIABLE:
            os.environ.setdefault(name, value)
