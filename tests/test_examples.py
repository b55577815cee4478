"""Every command in the pages is one that the command line takes, and what the pages show of its output is what it prints."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main
from typer.core import TyperGroup

from command import ROOT, within
from onnxprune.cli import app
from onnxprune.cli.derived import COMMANDS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "guide").glob("*.md"))]
MEASURED = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")
"""A number that a machine decides: times, and the last digits of sums."""


class Example(NamedTuple):
    """A command, and the lines that the page shows below it."""

    command: str
    shown: list[str]


def blocks(page: Path) -> Iterator[list[str]]:
    """Lines of each block of code that is for a shell."""
    text = page.read_text("utf-8")
    for kind, body in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        if kind in {"", "console", "shell"}:
            yield body.splitlines()
    plain = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    for body in re.findall(r"(?:^    .*\n|^\n(?=    ))+", plain, re.MULTILINE):
        yield [line[4:] for line in body.strip("\n").splitlines()]


def commands(page: Path) -> Iterator[str]:
    """Every command of ours on a page: in blocks, and between backticks where it is more than a name."""
    for lines in blocks(page):
        for line in lines:
            if match := re.match(r"(?:\$ )?(onnxprune \w.*?)(?:  +#.*)?$", line):
                yield match[1]
    yield from re.findall(r"`(onnxprune \w+ [^`]+)`", page.read_text("utf-8"))


def examples(page: Path) -> list[Example]:
    """The commands of a page whose output it shows."""
    found: list[Example] = []
    for lines in blocks(page):
        current: Example | None = None
        for line in lines:
            if line.startswith("$ "):
                current = Example(line[2:], [])
                found.append(current)
            elif current is not None:
                current.shown.append(line)
    return [one for one in found if one.command.startswith("onnxprune ")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(group: TyperGroup, words: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of a command, with that of its group, and what is given to it; ``sweep MODELS...`` is ``sweep run MODELS...``."""
    command = group.commands[words[0]]
    if not isinstance(command, TyperGroup):
        return words[0], command.make_context(words[0], words[1:]).params
    inner = words[1:] if words[1] in command.commands else ["run", *words[1:]]
    return f"{words[0]} {inner[0]}", read(command, inner)[1]


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=name_of)
def test_commands_are_understood(page: Path) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for text in commands(page):
        words = shlex.split(re.split(r" (?:&&|\||>) ", text)[0])[1:]
        if "..." in words:  # more of the same
            continue
        name, given = read(group, words)
        _, parameters = COMMANDS[name]
        for kind in {one.kind for one in parameters}:  # whose checks say which values make sense
            fields = [one.field for one in parameters if one.kind is kind]
            kind(**{field.name: tuple(given[field.name] or ()) if field.type is tuple else given[field.name] for field in fields})


SHOWN = [page for page in PAGES if any(one.shown for one in examples(page))]


@pytest.mark.parametrize("page", SHOWN, ids=name_of)
def test_outputs_are_what_is_printed(page: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    for command, shown in examples(page):
        done = within(*shlex.split(command)[1:], cwd=tmp_path)
        assert done.status == 0, (command, done.err)
        compare(command, shown, done.out.splitlines())


def compare(command: str, shown: list[str], printed: list[str]) -> None:
    """Line by line; three dots stand for any lines, and a number that is measured for any other."""
    rest = [line for line in printed if line.strip()]
    anything = False
    for line in (line.rstrip() for line in shown if line.strip()):
        if line == "...":
            anything = True
            continue
        while anything and rest and not same(command, line, rest[0]):
            rest.pop(0)
        assert rest, f"{command} does not print {line!r}"
        assert same(command, line, rest[0]), f"{command}: the page shows\n{line}\nand this is printed:\n{rest[0]}"
        rest.pop(0)
        anything = False
    assert anything or not rest, f"{command} also prints {rest}"


def same(command: str, shown: str, printed: str) -> bool:
    measured = command.startswith("onnxprune benchmark") or re.search(r"latency|difference|cosine", shown)
    if measured:
        shown, printed = MEASURED.sub("0", shown), MEASURED.sub("0", printed)
    return shown.split() == printed.split()
