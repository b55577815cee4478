"""Sizes of inputs as users write them: ``image=1x3x224x224``, with ``?`` for a size that stays free, or ``height=224``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from onnxprune.errors import OptionError

__all__ = ["Sizes", "check_shape", "read_shape"]

Sizes = tuple[int | None, ...]
"""One entry for each axis; ``None`` where its size is free."""
_SIZES = re.compile(r"(\?|\d+)(x(\?|\d+))*")


def read_shape(text: str) -> tuple[str, Sizes]:
    """The name of an input or of a dimension, and its sizes.

    Raises:
        OptionError: it is spelled otherwise.
    """
    name, _, sizes = text.rpartition("=")
    if not name.strip() or not _SIZES.fullmatch(sizes.strip()):
        raise OptionError(
            f"--shape {text!r}: write the sizes of an input, as image=?x3x224x224 with ? for one that stays free, "
            "or the size of a named dimension, as height=224"
        )
    return name.strip(), tuple(None if size == "?" else int(size) for size in sizes.strip().split("x"))


def check_shape(texts: Sequence[str]) -> None:
    """Read each text, so that a mistake is told before a model is read.

    Raises:
        OptionError: see `read_shape`; or it is one text, and no list.
    """
    if isinstance(texts, str):
        raise OptionError(f"shape = {texts!r} is not a list of texts")
    for text in texts:
        read_shape(text)
