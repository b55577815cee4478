"""The command line: a few lines per command over the API, one module for each family of commands.

`app` is what commands register with, `options` and `derived` read options, `output` and `console` print, `process` has streams
and signals, `tables` and `training_tables` show reports, `plots` draws.

Change here: what a command prints, or add a command. Options of one command are declared in `onnxprune.options`.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

from onnxprune.cli import (
    building,
    comparing,
    demo,
    devices,
    histories,
    linting,
    optimizing,
    pruning,
    quantizing,
    releasing,
    sparsity,
    sweeping,
    timing,
    training,
)
from onnxprune.cli.app import app
from onnxprune.cli.output import fail, told
from onnxprune.cli.process import prepare_streams, stoppable
from onnxprune.errors import OnnxPruneError

__all__ = [
    "app",
    "building",
    "comparing",
    "demo",
    "devices",
    "histories",
    "linting",
    "main",
    "optimizing",
    "pruning",
    "quantizing",
    "releasing",
    "sparsity",
    "sweeping",
    "timing",
    "training",
]


_UNREADABLE: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What a command line that cannot be read raises, of click: typer has one of its own in some versions."""


def main() -> None:
    """Run the command line; what onnxprune raises on purpose, and what the system refuses, becomes one line and a status."""
    prepare_streams()
    OnnxPruneError.wording = str  # flags, also where a function of the user's uses onnxprune
    with stoppable():
        _run()


def _run() -> None:
    completes = {"--install-completion", "--show-completion"} & set(sys.argv)  # of the command, by whatever name it was called
    try:
        status = app(prog_name=app.info.name if completes else None, standalone_mode=False)
    except _UNREADABLE as error:
        error.show()
        told(error.format_message(), error.exit_code, "UsageError")
        sys.exit(error.exit_code)
    except OnnxPruneError as error:
        fail(str(error), error.exit_status, type(error).__name__)
    except BrokenPipeError:  # the reader of our output went away
        sys.exit(0)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2, type(error).__name__)
    sys.exit(status or 0)
