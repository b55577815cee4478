"""A table of latencies that was measured on another device, as models are pruned for it here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxprune.errors import OptionError
from onnxprune.latency.cache import LatencyCache, read_table

__all__ = ["DeviceTable"]

_NAMED = ("cpu", "cores", "onnxruntime", "provider", "threads")
"""What must be known of a device."""


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """Milliseconds of models on one device.

    Attributes:
        path: of the file.
        machine: the device: ``cpu``, ``cores``, ``onnxruntime``, ``provider``, ``threads``.
        times: milliseconds by digest of the model; ``None`` of those that do not run there.
        key: what tells the device from others.
    """

    path: Path
    machine: Mapping[str, str | int]
    times: Mapping[str, float | None]
    key: str

    @classmethod
    def read(cls, path: str | Path) -> DeviceTable:
        """The table that a device measured; the file is not changed.

        Raises:
            OptionError: it is none, holds times that cannot be, or those of several devices; says what to do.
        """
        path = Path(path)
        try:
            tables = read_table(path)
        except (ValueError, OSError) as error:
            raise OptionError(f"--device-table {path}: {error}: measure it anew on the device") from error
        if len(tables) != 1:
            several = f"it has times of {len(tables)} devices or settings: measure each into a file of its own"
            raise OptionError(f"--device-table {path}: {several if tables else 'it has no times: measure on the device'}")
        ((key, times),) = tables.items()
        return cls(path, _machine(path, key), times, key)

    @property
    def cache(self) -> LatencyCache:
        """The times, as a profiler reads them."""
        return _Fixed(self.times)

    def __str__(self) -> str:
        """The device, in words."""
        told, count = self.machine, self.machine["threads"]
        threads = f"{count} thread{'s' if count != 1 else ''}"
        return f"{told['cpu']}, {told['cores']} cores, {told['provider']}, {threads}, ONNX Runtime {told['onnxruntime']}"


class _Fixed(LatencyCache):
    """Times that are what they are."""

    def __init__(self, times: Mapping[str, float | None]) -> None:
        super().__init__(None, "", failures=True)
        self._known = dict(times)

    def load(self) -> dict[str, float | None]:
        return self._known


def _machine(path: Path, key: str) -> dict[str, str | int]:
    try:
        found = json.loads(key)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str | int) for name in _NAMED):
        raise OptionError(f"--device-table {path}: it does not say of which device it is: measure it anew on the device")
    return {str(name): value for name, value in found.items() if name != "format" and isinstance(value, str | int)}
