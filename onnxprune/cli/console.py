"""How tables and sentences are printed, for people."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["bar", "console", "counted", "escaped", "in_bytes", "notes", "quantity", "say", "table"]

_WHOLE = 1000
"""Columns of a pipe or a file: a name is never folded there."""


_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")
"""Characters that a terminal obeys, other than tabs and new lines."""


def escaped(text: str) -> str:
    """The text with control characters as escapes: names in a file must not command the terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Console(Console):
    """Prints every text `escaped`."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escaped(text), **options)


def console() -> Console:
    """Prints text as it is: names of nodes are full of brackets and colons."""
    width = None if sys.stdout.isatty() else _WHOLE
    return _Console(width=width, markup=False, highlight=False, emoji=False)


def say(out: Console, text: str, style: str | None = None) -> None:
    """Print a sentence; on a terminal it is wrapped between words, elsewhere never."""
    out.print(text, soft_wrap=not out.is_terminal, style=style)


def notes(out: Console, texts: Iterable[str]) -> None:
    """Print what else the user should know, a line for each."""
    for text in texts:
        say(out, f"note: {text}")


def table(title: str, *columns: str, text: tuple[str, ...] = ()) -> Table:
    """A table, with a title or without; its first column and those in ``text`` are flush left, the numbers flush right."""
    made = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number == 0 or column in text else "right", overflow="fold")
    return made


def bar(share: float, out: Console, width: int = 12) -> str:
    """A bar for a share from 0 to 1; of signs that the terminal has."""
    return ("#" if out.options.ascii_only else "█") * round(width * min(max(share, 0.0), 1.0))


def counted(count: int, singular: str, plural: str = "") -> str:
    """A number with its noun: 1 group, 2 groups."""
    return f"{count} {singular if count == 1 else plural or f'{singular}s'}"


def quantity(value: float) -> str:
    """A count with a unit prefix: 4.09 G, 25.6 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}" if value / limit < 100 else f"{value / limit:.0f} {unit}"
    return f"{value:.0f}"


def in_bytes(value: float) -> str:
    text = quantity(value)
    return f"{text}B" if " " in text else f"{text} B"
