"""Measures a table of latencies on a device that has nothing but Python, numpy and ONNX Runtime.

    python measure.py shapes.json -o device.db

`onnxprune latency shapes` writes ``shapes.json``, and beside it this module with those that it imports, as one file. The table
goes back to where models are pruned. What is interrupted goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.latency.cache import LatencyCache, read_table
from onnxprune.latency.machines import fingerprint, machine
from onnxprune.latency.measurements import Timings
from onnxprune.latency.stopwatch import Run, clock, least, ready, stand_in

__all__ = ["CODES", "REPEATS", "SHAPES_FORMAT", "Asked", "TimedGraph", "main", "measure", "read_shapes"]

SHAPES_FORMAT = 1
"""Version of the file with the graphs."""
REPEATS = 6
"""How often the whole model is timed; the least time counts."""
CODES: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
"""Element types of constants that are made here, as ONNX numbers them, and as numpy names them."""
_LIMIT = 2**30
"""Bytes of all graphs, at most."""


@dataclass(frozen=True)
class TimedGraph:
    """A model without the data of its constants.

    Attributes:
        graph: its bytes; constants without data are declared to lie in memory.
        constants: these, each with its name, the number of its type, and its shape.
    """

    graph: bytes
    constants: tuple[tuple[str, int, tuple[int, ...]], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the constants."""
        return sum(math.prod(shape) * np.dtype(CODES[code]).itemsize for _, code, shape in self.constants)


@dataclass(frozen=True)
class Asked:
    """What is to be timed.

    Attributes:
        model: the name of the file that it is for.
        yardstick: tells quick moments from slow ones.
        layers: small models of layers at some widths, by digest.
        wholes: the whole model at some widths, by digest.
    """

    model: str
    yardstick: TimedGraph
    layers: Mapping[str, TimedGraph]
    wholes: Mapping[str, TimedGraph]


def read_shapes(path: Path) -> Asked:
    """The file that `onnxprune latency shapes` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else, or of another version.
    """
    told = f"{path}: is no file of onnxprune latency shapes"
    content = path.read_bytes()
    try:
        document = json.loads(content)
        form = document["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(told) from error
    if form != SHAPES_FORMAT:
        raise ValueError(f"{path}: is of version {form}, and this program reads {SHAPES_FORMAT}: write both anew")
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(document["graphs"]), _LIMIT)
        parts = [{name: _graph(unpacked, *entry) for name, entry in document[part].items()} for part in ("layers", "wholes")]
        return Asked(str(document["model"]), _graph(unpacked, *document["yardstick"]), *parts)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, zlib.error) as error:
        raise ValueError(told) from error


def _graph(unpacked: bytes, start: int, length: int, constants: Sequence[Sequence[Any]]) -> TimedGraph:
    made = tuple((str(name), int(code), tuple(int(size) for size in shape)) for name, code, shape in constants)
    if any(code not in CODES or min(shape, default=0) < 0 for _, code, shape in made) or start + length > len(unpacked):
        raise TypeError("a graph that cannot be")
    return TimedGraph(unpacked[start : start + length], made)


def measure(
    shapes: Path,
    output: Path,
    provider: str = "cpu",
    threads: int = 1,
    tell: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Time what a file asks for, and keep the times in a table; those that are in it already are not taken again.

    Args:
        shapes: the file.
        output: the table.
        provider: "cpu", or another one of ONNX Runtime, as "cuda" or "xnnpack".
        threads: of ONNX Runtime within an operator.
        tell: is told what is done, how far it is, and of how many.

    Returns:
        ``model``, ``machine``, the ``path`` of the table, how many models were ``timed``, how many there are, and how many do not
        run here: ``failed``.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a file is none of these, or ONNX Runtime does not have the provider; says what to do.
    """
    import onnxruntime as ort

    asked, names = read_shapes(shapes), _providers(provider, ort.get_available_providers())
    found = machine([provider, "cpu"], threads, str(ort.__version__))
    key = fingerprint(found, provider)
    _check_table(output, key)
    kept = LatencyCache(output, key, failures=True)
    kept.begin()

    def timer(graphs: Sequence[TimedGraph]) -> list[float | None]:
        return least([_loaded(graph, names, provider, threads) for graph in graphs], clock(provider, threads))

    times = Timings(timer, kept, asked.yardstick, lambda graph: graph.nbytes, tell)
    times.models |= asked.layers
    times.measure()
    times.models |= asked.wholes
    for _ in range(REPEATS):
        times.repeat(list(asked.wholes))
    times.settle()
    stored = kept.load()
    every = {*asked.layers, *asked.wholes}
    if not every <= stored.keys():
        raise OSError(f"{output}: cannot be written")
    failed = [digest for digest in every if stored[digest] is None]
    if len(failed) == len(every):
        raise ValueError(
            f"{shapes}: ONNX Runtime {ort.__version__} runs no model of it on {provider}: is it older than the model?"
        )
    counts = {"timed": times.timed, "models": len(every), "failed": len(failed)}
    return {"model": asked.model, "machine": {**found, "provider": provider}, "path": str(output), **counts}


def _providers(name: str, available: Sequence[str]) -> list[str]:
    """ONNX Runtime's names of a provider, and of those that may run what it refuses."""
    wanted = [one for one in available if one.lower() == f"{name}ExecutionProvider".lower()]
    if not wanted:
        known = ", ".join(one.removesuffix("ExecutionProvider").lower() for one in available)
        raise ValueError(f"--provider {name}: this ONNX Runtime has {known}")
    return list(dict.fromkeys([*wanted, *(one for one in available if name == "tensorrt" and "CUDA" in one), available[-1]]))


def _check_table(path: Path, key: str) -> None:
    """Nothing happens if there is no table yet, or one with times of this machine alone."""
    if not os.path.lexists(path):
        if not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
            raise ValueError(f"{path}: cannot be written: name a file in a folder that is there")
        return
    try:
        others = read_table(path).keys() - {key}
    except ValueError as error:
        raise ValueError(f"{path}: {error}: name another file") from error
    if others:
        raise ValueError(f"{path}: has times of another device or setting, {min(others)}: name another file")


def _loaded(graph: TimedGraph, providers: Sequence[str], provider: str, threads: int) -> Run | None:
    """The model, ready to run; ``None`` if ONNX Runtime does not run it."""
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    options = ort.SessionOptions()
    options.log_severity_level = 4  # it raises its errors, and the log would only repeat them
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or idle threads would take the cores of the next one
    try:
        made = {name: stand_in(np.dtype(CODES[code]), shape, rng) for name, code, shape in graph.constants}
        held = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in made.items()}
        options.add_external_initializers(list(held), list(held.values()))
        session = ort.InferenceSession(graph.graph, options, providers=list(providers), enable_fallback=0)
        if session.get_providers()[0] != providers[0]:
            return None
        return ready(session, held, "cuda" if provider in {"cuda", "tensorrt"} else "cpu")
    except Exception:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the program for devices; the exit status."""
    parser = argparse.ArgumentParser(prog="measure.py", description="Measure a table of latencies on this device.")
    parser.add_argument("shapes", type=Path, help="the file that onnxprune latency shapes wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the table, which goes back to where models are pruned")
    parser.add_argument("--provider", default="cpu", help="of ONNX Runtime: cpu, cuda, xnnpack, ...")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime within an operator")
    given = parser.parse_args(arguments)
    began = time.monotonic()

    def tell(what: str, done: int, steps: int) -> None:
        sys.stderr.write(f"{what} ({done} of {steps}), {time.monotonic() - began:.0f} s so far\n")

    try:
        if given.threads < 1:
            raise ValueError(f"--threads {given.threads}: write a number of threads, 1 or more")
        done = measure(given.shapes, given.output, given.provider, given.threads, tell)
    except (OSError, ValueError, ImportError) as error:
        sys.stderr.write(f"measure.py: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("measure.py: interrupted; the same command goes on from here\n")
        return 130
    missing = f"; {done['failed']} do not run here" if done["failed"] else ""
    sys.stdout.write(f"{done['path']}: times of {done['models']} models{missing}, on {done['machine']['cpu']}\n")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # nothing is sent from here
    sys.exit(main())
