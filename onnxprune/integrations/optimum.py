"""``optimum-cli onnxprune``: `prune` as a command of Hugging Face Optimum, with the same options.

`register/` is what Optimum finds: the wheel puts its file into the folder ``optimum/commands/register``, which packages share.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser
from typing import Any

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

from onnxprune.options.commands import Prune
from onnxprune.options.fields import Field, fields_of
from onnxprune.options.prune import Recipe

__all__ = ["OnnxPruneCommand"]


class OnnxPruneCommand(BaseOptimumCLICommand):  # type: ignore[misc]  # Optimum is not installed where types are checked
    """Prunes the model in a folder, and writes a folder that can be loaded as the first one."""

    COMMAND = CommandInfo(name="onnxprune", help="Remove channels and heads from an ONNX model, proven, for any runtime.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the options; what their values mean is said, and checked, where onnxprune reads them."""
        parser.add_argument("--onnx_model", required=True, metavar="DIR", help="A folder with an ONNX model, or an .onnx file.")
        for field in _fields():
            _declare(parser, field)

    def run(self) -> None:
        """Run ``onnxprune prune`` in a process of its own, and end with its status."""
        given = [word for field in _fields() for word in _words(field, getattr(self.args, field.name))]
        command = [sys.executable, "-m", "onnxprune", "prune", self.args.onnx_model, *given]
        sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own command line


def _fields() -> list[Field]:
    """The options of `prune` in the order of its help, without the model."""
    fields = {field.name: field for kind in (Recipe, Prune) for field in fields_of(kind) if not field.option.argument}
    return list(fields.values())


def _declare(parser: ArgumentParser, field: Field) -> None:
    text = field.help().replace("%", "%%")
    if field.type is bool:
        for flag in field.flags.split("/"):
            parser.add_argument(flag, dest=field.name, action="store_const", const=flag, help=text)
        return
    flags, required = field.flags.split("/"), field.name == "output"
    how: dict[str, Any] = {"action": "append"} if field.type is tuple else {"required": required}
    parser.add_argument(*flags, dest=field.name, metavar=field.option.metavar or None, help=text, **how)


def _words(field: Field, value: Any) -> list[str]:
    """An option as our command line reads it; nothing where it was not given."""
    if value is None:
        return []
    if field.type is bool:
        return [value]
    flag = field.flags.split("/")[0]
    return [word for one in (value if field.type is tuple else [value]) for word in (flag, one)]
