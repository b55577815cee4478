"""What ``optimum-cli`` finds; the wheel has it as ``optimum/commands/register/register_onnxprune.py``."""

from __future__ import annotations

from onnxprune.integrations.optimum import OnnxPruneCommand

__all__ = ["REGISTER_COMMANDS"]

REGISTER_COMMANDS = [OnnxPruneCommand]
