"""Checks model files of a repository: no file is too large, and none stores zeros that could be encoded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxprune.driver.encode import survey
from onnxprune.errors import ModelError
from onnxprune.ir import files
from onnxprune.options.gates import parse_share
from onnxprune.runtime.memory import read_bytes

__all__ = ["Finding", "lint"]

_DENSE = "dense"
_LFS = b"version https://git-lfs.github.com/spec/"
"""What a file begins with that stands for one which Git LFS has not fetched."""
_HEAD = 1024
"""Bytes that such a file has at most."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that was looked at.

    Attributes:
        path: of the file.
        bytes: its size, external data included; ``None`` if it cannot be read.
        zeros: the share of its weights that are zeros, or zero points, and stored one by one; ``None`` if that is not known.
        problems: what is wrong, and what mends it; empty if nothing is.
        readable: whether it is a model, or stands for one.
    """

    path: str
    bytes: int | None
    zeros: float | None
    problems: tuple[str, ...] = ()
    readable: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def lint(paths: Sequence[str | Path], max_size: str = "", max_zeros: str = "50%") -> list[Finding]:
    """Look at model files, as a hook of a repository does.

    Args:
        paths: of the files.
        max_size: what a file may have, as 50M; empty for no limit.
        max_zeros: the share of weights that may be zeros and stored one by one, as 50% or 0.5.

    Raises:
        OptionError: a limit makes no sense.
    """
    size = read_bytes(max_size, "--max-size") if max_size else None
    share = parse_share(max_zeros, "--max-zeros", "the share of zeros, as 50% or 0.5")
    return [_looked_at(Path(path), (size, max_size), (share, max_zeros)) for path in paths]


def _looked_at(path: Path, size: tuple[int | None, str], share: tuple[float, str]) -> Finding:
    try:
        pointed = _pointed(path)
        found = files.size_on_disk(path) if pointed is None else pointed
        rows = survey(path) if pointed is None else None
    except (ModelError, OSError) as error:
        text = str(error) if isinstance(error, ModelError) else f"{path}: cannot be read: {error.strerror}"
        return Finding(str(path), None, None, (text,), readable=False)
    problems = []
    if size[0] is not None and found > size[0]:
        problems.append(f"has {found} bytes, more than {size[1]}: make it smaller (onnxprune optimize), or raise --max-size")
    zeros = None
    if rows is not None:
        dense = [row for row in rows if row.encoding == _DENSE]
        zeros = sum(row.sparsity * row.elements for row in dense) / max(sum(row.elements for row in rows), 1)
        if zeros > share[0]:
            mended = path.with_name(f"{path.stem}-encoded{path.suffix}")
            command = shlex.join(["onnxprune", "encode", str(path), "-o", str(mended)])
            problems.append(f"{zeros:.0%} of the weights are zeros that are stored, more than {share[1]}: run {command}")
    return Finding(str(path), found, zeros, tuple(problems))


def _pointed(path: Path) -> int | None:
    """The size of the file that a pointer of Git LFS stands for; ``None`` if it is none."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    size = re.search(rb"^size (\d{1,18})$", head, re.MULTILINE) if head.startswith(_LFS) else None
    return int(size[1]) if size else None
