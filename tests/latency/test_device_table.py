"""Tables of other devices: read whole, or refused in one line that says what to do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from onnxprune.errors import OptionError
from onnxprune.latency.cache import LatencyCache
from onnxprune.latency.device_table import DeviceTable
from onnxprune.latency.machines import fingerprint

DEVICE: dict[str, str | int] = {"cpu": "Cortex-A72", "cores": 4, "onnxruntime": "1.20.1", "threads": 1}
KEY = fingerprint(DEVICE, "cpu")


def table(path: Path, key: str = KEY, **times: float | None) -> Path:
    LatencyCache(path, key, failures=True).store(times or {"a": 1.0, "b": None})
    return path


def test_a_table_says_whose_it_is(tmp_path: Path) -> None:
    found = DeviceTable.read(table(tmp_path / "device.db"))
    assert found.times == {"a": 1.0, "b": None} == found.cache.load()
    assert str(found) == "Cortex-A72, 4 cores, cpu, 1 thread, ONNX Runtime 1.20.1"


def test_nothing_is_stored_in_it(tmp_path: Path) -> None:
    path = table(tmp_path / "device.db")
    before = path.read_bytes()
    DeviceTable.read(path).cache.store({"c": 3.0})
    assert path.read_bytes() == before


def test_a_missing_table_and_one_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    for name, says in (("nothing", "no such file"), ("text", "no table of latencies")):
        with pytest.raises(OptionError, match=f"--device-table .*{name}: .*{says}.*: measure it anew on the device"):
            DeviceTable.read(tmp_path / name)


def test_times_of_two_devices_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "device.db")
    table(path, fingerprint(DEVICE, "cuda"))
    with pytest.raises(OptionError, match="times of 2 devices or settings: measure each into a file of its own"):
        DeviceTable.read(path)


def test_a_table_without_times_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "device.db")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM times")
    with pytest.raises(OptionError, match="it has no times: measure on the device"):
        DeviceTable.read(path)


@pytest.mark.parametrize("key", ["", "a machine", "[]", '{"cpu": "x"}', '{"cpu": [], "cores": 1}', "[" * 10_000])
def test_a_table_that_does_not_name_its_device_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(OptionError, match="does not say of which device it is"):
        DeviceTable.read(table(tmp_path / "device.db", key))


@pytest.mark.parametrize("ms", [-1.0, "fast", b"x", float("inf")])
def test_a_poisoned_time_is_refused(tmp_path: Path, ms: object) -> None:
    path = table(tmp_path / "device.db")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE times SET ms = ?", [ms])
    with pytest.raises(OptionError, match="a time that cannot be"):
        DeviceTable.read(path)
