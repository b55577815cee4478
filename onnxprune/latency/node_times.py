"""The time of each node of a model, as ONNX Runtime runs it: fused, and with the nodes that it adds itself."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from onnxprune.ir.temporary import temporary_folder
from onnxprune.latency.timer import loaded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxprune.ir.model import Model

__all__ = ["NodeTime", "node_times"]

_SUFFIX = "_kernel_time"
_LEAST, _MOST, _SECONDS = 5, 100, 1.0
"""Runs that are recorded, about for so many seconds."""


@dataclass(frozen=True, slots=True)
class NodeTime:
    """Attributes:
    name: of the node that ran, which ONNX Runtime may have made of one or several of the graph's.
    op: its operator.
    milliseconds: of a run, the median.
    output_bytes: what it writes.
    """

    name: str
    op: str
    milliseconds: float
    output_bytes: int


def node_times(
    model: Model,
    *,
    provider: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> list[NodeTime]:
    """The nodes that ONNX Runtime runs for a model, in order, each with its time by the wall clock; sizes as in `benchmark`.

    Raises:
        ModelError: ONNX Runtime does not load or run it.
        OptionError: ``shapes`` leaves a size open that has no plausible default.
    """
    with temporary_folder() as folder:
        run, session = loaded(model, provider, threads, batch, shapes or {}, str(folder / "profile"))
        start = time.perf_counter()
        run(1)
        run(min(max(_LEAST, int(_SECONDS / max(time.perf_counter() - start, 1e-6))), _MOST))
        events = _read(session.end_profiling())
    taken: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, tuple[str, int]] = {}
    for event in events:
        name = event["name"].removesuffix(_SUFFIX)
        taken[name].append(event["dur"] / 1e3)
        kinds[name] = event["args"]["op_name"], int(event["args"].get("output_size", 0))
    return [NodeTime(name, kinds[name][0], median(times), kinds[name][1]) for name, times in taken.items()]


def _read(path: str) -> list[dict[str, Any]]:
    """The events of nodes in a profile."""
    events = json.loads(Path(path).read_text(encoding="utf-8"))
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX)]
