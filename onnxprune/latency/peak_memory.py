"""The peak memory of one model, measured in a process of its own.

``python -m onnxprune.latency.peak_memory`` reads a job (JSON) from standard input, loads its model and runs it once, and writes
the memory that this took as JSON to standard output. `peak_memory` starts that process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.ir.temporary import temporary_folder
from onnxprune.latency.inputs import SessionInput, make_feeds
from onnxprune.latency.providers import bind_session, error_text, open_session, require_provider
from onnxprune.runtime.custom_operators import custom_operators, libraries

__all__ = ["PeakMemory", "peak_memory"]


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Host memory in MiB that a fresh process takes at its peak beyond what it held before; ``None`` if it was not measured.

    Attributes:
        loaded_mib: for loading the model.
        peak_mib: for loading it and running it once.
        notes: why it was not measured, or what the figures do not contain.
    """

    loaded_mib: float | None
    peak_mib: float | None
    notes: tuple[str, ...] = ()


def peak_memory(
    source: str | bytes,
    inputs: Sequence[SessionInput],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    provider: str,
    threads: int,
    seed: int,
) -> PeakMemory:
    """Measure a model, a path or the bytes of a file, in a fresh process; a failure there is a note, not an error."""
    with temporary_folder() as folder:
        path = folder / "model.onnx"
        if isinstance(source, bytes):
            path.write_bytes(source)
        job = {
            "model": str(path if isinstance(source, bytes) else Path(source).absolute()),
            "provider": provider,
            "threads": threads,
            "seed": seed,
            "custom_ops": libraries(),
            "inputs": [{"name": one.name, "type": one.type, "shape": shapes[one.name]} for one in inputs],
        }
        # The child must find this very package, wherever it was imported from; -P keeps the current directory out.
        home = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(path for path in (home, os.environ.get("PYTHONPATH", "")) if path)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "onnxprune.latency.peak_memory"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": paths},
        )
    lines = done.stdout.strip().splitlines()
    answer = json.loads(lines[-1]) if lines else {"error": f"the process ended with status {done.returncode}"}
    if "error" in answer:
        return PeakMemory(None, None, (f"memory not measured: {answer['error']}",))
    notes = () if provider == "cpu" else ("memory is the host's, not the GPU's",)
    return PeakMemory(float(answer["loaded_mib"]), float(answer["peak_mib"]), notes)


def _peak_kib() -> int:
    """Return this process's peak resident memory so far in KiB; OSError where the platform does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: its ru_maxrss survives exec, so a child of a big process starts at its parent's peak.
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return int(found[1])
    try:
        resource = importlib.import_module("resource")
    except ImportError as error:
        raise OSError("peak memory is not available on this platform") from error
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak // 1024 if sys.platform == "darwin" else peak


def _measure(job: Mapping[str, Any]) -> dict[str, float]:
    """Return the MiB that loading, then loading and one run, add at their peak to what the process held before.

    Before it come the interpreter, onnxruntime and the feeds.
    """
    require_provider(job["provider"])
    inputs = [SessionInput(one["name"], one["type"], ()) for one in job["inputs"]]
    feeds = make_feeds(inputs, {one["name"]: one["shape"] for one in job["inputs"]}, job["seed"])
    with contextlib.suppress(OSError):
        # Start the peak afresh from what is resident now: importing peaked higher than what it left.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak_kib()
    session = open_session(job["model"], label=job["model"], provider=job["provider"], threads=job["threads"])
    loaded = _peak_kib()
    bind_session(session, inputs, feeds, "cpu" if job["provider"] == "cpu" else "cuda")(1)
    return {"loaded_mib": (loaded - before) / 1024, "peak_mib": (_peak_kib() - before) / 1024}


def main() -> int:
    """Measure the job on standard input; status 0 with the measure, 1 with {"error": one line}."""
    try:
        job = json.load(sys.stdin)
        with custom_operators(*job["custom_ops"]):
            answer: dict[str, Any] = _measure(job)
    except Exception as error:  # noqa: BLE001 - whatever went wrong belongs in the answer, the parent reads nothing else
        answer = {"error": error_text(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return int("error" in answer)


if __name__ == "__main__":
    sys.exit(main())
