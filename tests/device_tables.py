"""Tables of latencies of a device that nobody has."""

from __future__ import annotations

from pathlib import Path

from onnxprune.driver.devices import timed_models
from onnxprune.ir.model import ModelSource
from onnxprune.latency.cache import LatencyCache
from onnxprune.latency.machines import fingerprint
from onnxprune.latency.on_device import read_shapes
from onnxprune.options.prune import Recipe

DEVICE: dict[str, str | int] = {"cpu": "Cortex-A72", "cores": 4, "onnxruntime": "1.20.1", "threads": 1}


def device_table(folder: Path, source: ModelSource, recipe: Recipe) -> Path:
    """A table, beside what was to be timed: a run takes a nanosecond for each byte of constants."""
    (folder / "shapes.json").write_bytes(timed_models(source, recipe).content)
    asked = read_shapes(folder / "shapes.json")
    graphs = {**asked.layers, **asked.wholes}
    table = folder / "device.db"
    LatencyCache(table, fingerprint(DEVICE, "cpu")).store({name: 1e-6 * graph.nbytes for name, graph in graphs.items()})
    return table
