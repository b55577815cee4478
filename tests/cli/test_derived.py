"""Options from a dataclass: every field with its default and what the docstring says."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer.testing import CliRunner

from onnxprune.cli.derived import helps, options_of
from onnxprune.options.train import Training


@dataclass(frozen=True)
class Some:
    """Something.

    Attributes:
        name: of it: ``a`` or ``b``; goes on
            over two lines.
        many: ``globs`` of it.
        share: of all.
        flag: whether so.

    Raises:
        ValueError: never.
    """

    name: str = "a"
    many: tuple[str, ...] = ()
    share: float = 0.5
    flag: bool = True


@dataclass(frozen=True)
class Place:
    path: Annotated[str, typer.Argument()]
    log: Annotated[Path | None, typer.Option("-l", help="Of what happens.", metavar="FOLDER")] = None


app = typer.Typer()


@app.command()
@options_of(Some, "some", {"share": "--part"})
@options_of(Place, "place")
def command(place: Place, some: Some, extra: int = 1) -> None:
    """Do it."""
    typer.echo(f"{place} {some} {extra}")


def test_fields_are_options() -> None:
    run = CliRunner().invoke
    assert run(app, ["p"]).output.strip() == f"{Place('p')} {Some()} 1"
    given = ["p", "--name", "b", "--many", "x", "--many", "y", "--part", "0.1", "--no-flag", "--extra", "2"]
    assert run(app, given).output.strip() == f"{Place('p')} {Some('b', ('x', 'y'), 0.1, flag=False)} 2"
    assert run(app, ["p", "--share", "0.1"]).exit_code == 2


def test_a_field_says_itself_what_it_is_on_the_command_line() -> None:
    run = CliRunner().invoke
    assert run(app, ["p", "-l", "logs"]).output.strip() == f"{Place('p', Path('logs'))} {Some()} 1"
    assert run(app, []).exit_code == 2
    assert "FOLDER" in run(app, ["--help"]).output


def test_help_is_what_the_docstring_says() -> None:
    assert helps(Some) == {
        "name": "Of it: a or b; goes on over two lines.",
        "many": "globs of it.",
        "share": "Of all.",
        "flag": "Whether so.",
    }
    assert helps(Training).keys() == {field.name for field in dataclasses.fields(Training)}
