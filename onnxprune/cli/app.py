"""The application that commands register with."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer(
    name="onnxprune",
    help="Make an exported ONNX model smaller and faster: channels are removed, the surgery is proven, the speed is measured.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
