"""Globs over names of nodes and tensors: one that names nothing is a mistake, and is refused with names that come near."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from onnxprune.errors import OptionError

__all__ = ["check_globs"]

_NEAR, _SHOWN = 0.5, 3
"""How like a name must be to be named (1 for equal), and how many are."""


def check_globs(
    globs: Iterable[str],
    names: Iterable[str],
    option: str,
    where: str,
    more: Callable[[], Iterable[str]] = tuple,
) -> None:
    """Nothing happens if each glob names something.

    Args:
        globs: as the user wrote them.
        names: what there is.
        option: behind which the globs were written.
        where: the names are, for the message.
        more: gives other names, for globs that name none of these.

    Raises:
        OptionError: a glob names nothing; says which names come near.
    """
    known = list(dict.fromkeys(names))
    for glob in globs:
        if any(fnmatchcase(name, glob) for name in known) or any(fnmatchcase(name, glob) for name in more()):
            continue
        raise OptionError(f"{option} {glob!r}: no {where} is called like that{_hint(glob, known)}")


def _hint(glob: str, names: list[str]) -> str:
    """Names that come near, whole, or up to a dot, slash or colon with a star; else some that there are."""
    parts = dict.fromkeys(name[: cut.start()] for name in names for cut in re.finditer(r"(?<=.)[./:]", name))
    found = difflib.get_close_matches(glob.strip("*?"), [name for name in (*names, *parts) if name], _SHOWN, _NEAR)
    if found:
        near = [name if name in names else f"{name}*" for name in found]
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; there are {', '.join(map(repr, [name for name in names if name][:_SHOWN]))}, ..." if names else ""
