"""Commands from dataclasses: every field with its default, its range and its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer.testing import CliRunner

from onnxprune.cli.derived import Some, command
from onnxprune.options.fields import Option, Options


@dataclass(frozen=True)
class Things(Options):
    """Things.

    Attributes:
        name: of it.
        many: globs of it.
        count: of all.
        flag: whether so.
        off: whether not.
    """

    name: str = "a"
    many: Annotated[tuple[str, ...], Option(metavar="GLOB")] = ()
    count: Annotated[int, Option(flags="--part", range="[1, inf)")] = 1
    flag: bool = True
    off: bool = False


@dataclass(frozen=True)
class Places(Options):
    """Places.

    Attributes:
        path: where it is.
        log: of what happens.
        force: whatever happens.
    """

    path: Annotated[str, Option(argument=True, metavar="PATH")]
    log: Annotated[Path | None, Option(flags="-l", metavar="FOLDER")] = None
    force: bool = False


app = typer.Typer(rich_markup_mode=None, add_completion=False)


@command(app)
def derived_command(things: Things, places: Places) -> None:
    """Do it."""
    typer.echo(f"{places} {things}")


@command(app)
def some_of_them(things: Annotated[Things, Some("many name!")]) -> None:
    """Do some of it."""
    typer.echo(f"{things}")


def test_fields_are_options() -> None:
    def run(*words: str) -> str:
        return CliRunner().invoke(app, ["derived-command", *words]).output.strip()

    assert run("p") == f"{Places('p')} {Things()}"
    given = ("p", "--name", "b", "--many", "x", "--many", "y", "--part", "2", "--no-flag", "--off", "-l", "logs")
    assert run(*given) == f"{Places('p', Path('logs'))} {Things('b', ('x', 'y'), 2, flag=False, off=True)}"
    assert "Invalid value for '--part'" in run("p", "--part", "0")
    assert "No such option: --count" in run("p", "--count", "1")
    assert "Missing argument 'PATH'" in run()


def test_a_command_may_take_some_fields() -> None:
    def run(*words: str) -> str:
        return CliRunner().invoke(app, ["some-of-them", *words]).output.strip()

    assert run("--name", "b") == f"{Things('b')}"
    assert "Missing option '--name'" in run()
    assert "No such option: --flag" in run("--name", "b", "--flag")


def test_help_says_what_the_docstrings_say() -> None:
    said = " ".join(CliRunner().invoke(app, ["derived-command", "--help"]).output.split())
    for part in ("Do it.", "--flag / --no-flag Whether so.", "--many GLOB Globs of it.", "x>=1", "-l FOLDER Of what happens."):
        assert part in said
    assert said.index("--off") < said.index("--force")  # which many commands have
