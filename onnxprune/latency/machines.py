"""The machine that times hold for. Needs nothing but Python, because devices run this module, too."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["fingerprint", "machine"]

CACHE_FORMAT = 1
"""Version of what is timed; times that an older version kept are not read."""
_CPUINFO = Path("/proc/cpuinfo")
_NAMED = re.compile(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", re.MULTILINE)
"""How Linux names the processor, or else the board."""


def machine(providers: Sequence[str], threads: int, runtime: str) -> dict[str, str | int]:
    """The machine: ``cpu``, ``cores``, ``system``, ``onnxruntime``, ``threads``, and ``gpu`` where a provider may use one.

    Args:
        providers: that are used, "cpu" among them.
        threads: of ONNX Runtime within an operator.
        runtime: the version of ONNX Runtime.
    """
    cpu = platform.processor() or platform.machine()
    if _CPUINFO.exists():
        named = _NAMED.search(_CPUINFO.read_text(encoding="utf-8"))
        cpu = named[1].strip() if named else cpu
    found: dict[str, str | int] = {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "system": platform.platform(),
        "onnxruntime": runtime,
        "threads": threads,
    }
    smi = shutil.which("nvidia-smi") if set(providers) - {"cpu"} else None
    if smi:
        query = [smi, "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
        found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    return found


def fingerprint(found: Mapping[str, str | int], provider: str) -> str:
    """What tells the times of one machine, provider and number of threads from others, as JSON; the system does not count."""
    told = {name: value for name, value in found.items() if name != "system"}
    return json.dumps({**told, "provider": provider, "format": CACHE_FORMAT}, sort_keys=True)
