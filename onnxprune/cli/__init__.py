"""The command line: a few lines per command over the API, one module for each family of commands.

`app` is what commands register with, `options` and `derived` read options, `output` and `console` print, `process` has streams
and signals, `tables` and `training_tables` show reports, `plots` draws.

Change here: what a command prints, or add a command. Options of one command are declared in `onnxprune.options`.
"""

from __future__ import annotations

import sys

from onnxprune.cli import building, optimizing, pruning, quantizing, releasing, sparsity, timing, training
from onnxprune.cli.app import app
from onnxprune.cli.output import fail
from onnxprune.cli.process import prepare_streams, stoppable
from onnxprune.errors import OnnxPruneError

__all__ = ["app", "building", "main", "optimizing", "pruning", "quantizing", "releasing", "sparsity", "timing", "training"]


def main() -> None:
    """Run the command line; what onnxprune raises on purpose, and what the system refuses, becomes one line and a status."""
    prepare_streams()
    with stoppable():
        _run()


def _run() -> None:
    try:
        app()
    except OnnxPruneError as error:
        fail(str(error), error.exit_status)
    except BrokenPipeError:  # the reader of our output went away
        sys.exit(0)
    except OSError as error:
        fail(str(error), 2)
