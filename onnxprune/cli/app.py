"""The application that commands register with."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxprune.options.version import version

__all__ = ["app"]

app = typer.Typer(
    name="onnxprune",
    help="Make an exported ONNX model smaller and faster: channels are removed, the surgery is proven, the speed is measured.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"onnxprune {version()}")
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)]


@app.callback()
def _about(_: _Version = False) -> None: ...
