"""Models are planned for devices whose times are known: by the same model of latency as for this machine."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from device_tables import device_table
from nets import NETS, parse
from onnxprune.driver.devices import timed_models
from onnxprune.driver.prune import make_plan, prune
from onnxprune.errors import OptionError, TargetError
from onnxprune.latency.on_device import read_shapes
from onnxprune.options.prune import Recipe

NET = NETS["chain"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Of a device on which a run takes a nanosecond for each byte of constants."""
    return device_table(tmp_path, parse(NET), Recipe(align="1"))


def latency(table: Path, fraction: float = 0.5, **options: object) -> Recipe:
    return Recipe(target=f"latency={fraction}", align="1", device_table=str(table), **options)  # type: ignore[arg-type]


def test_a_latency_is_planned_for_the_device_and_told_to_be_predicted(table: Path) -> None:
    result = prune(parse(NET), latency(table))
    found = result.report.predicted
    assert found is not None
    assert found["ratio"] <= 0.5
    assert found["machine"]["cpu"] == "Cortex-A72"
    assert result.report.obtained["latency"] == found["ratio"] == found["after_ms"] / found["before_ms"]
    assert any("predicted from device.db, not measured here" in note for note in result.report.notes)
    assert result.report.verification is not None
    assert result.report.verification.ok


def test_nothing_is_timed_here(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.latency.timer.measure_ratio", None)
    monkeypatch.setattr("onnxprune.latency.profiler.OrtTimer", None)
    plan, _ = make_plan(parse(NET), latency(table))
    assert prune(parse(NET), latency(table)).plan.digest == plan.digest


def test_a_table_that_lacks_a_layer_names_it_and_the_way_out(table: Path) -> None:
    with closing(sqlite3.connect(table)) as database, database:
        digest = next(iter(read_shapes(table.with_name("shapes.json")).layers))
        database.execute("DELETE FROM times WHERE model = ?", [digest])
    with pytest.raises(OptionError, match=r"device\.db: it lacks 1 times of .*, the first of layer .*: run latency shapes"):
        prune(parse(NET), latency(table))


def test_a_table_of_another_model_is_refused(table: Path) -> None:
    with pytest.raises(OptionError, match=r"it lacks [0-9]+ times"):
        prune(parse(NETS["residual"]), latency(table))


def test_a_table_without_the_whole_model_is_refused(table: Path) -> None:
    with closing(sqlite3.connect(table)) as database, database:
        for digest in read_shapes(table.with_name("shapes.json")).wholes:
            database.execute("DELETE FROM times WHERE model = ?", [digest])
    with pytest.raises(OptionError, match="lacks times of the whole of"):
        prune(parse(NET), latency(table))


def test_a_device_too_small_for_the_whole_model_is_planned_for_by_its_layers(table: Path) -> None:
    with closing(sqlite3.connect(table)) as database, database:
        for digest in read_shapes(table.with_name("shapes.json")).wholes:
            database.execute("UPDATE times SET ms = NULL WHERE model = ?", [digest])
    assert prune(parse(NET), latency(table)).report.obtained["latency"] <= 0.5


def test_a_device_that_runs_nothing_is_refused(table: Path) -> None:
    with closing(sqlite3.connect(table)) as database, database:
        database.execute("UPDATE times SET ms = NULL")
    with pytest.raises(OptionError, match="takes no time in it, or does not run there"):
        prune(parse(NET), latency(table))


def test_other_targets_need_no_table(table: Path) -> None:
    with pytest.raises(OptionError, match=r"give --target latency=0\.5"):
        Recipe(target="macs=0.5", device_table=str(table))


def test_what_goes_without_loss_before_is_timed_without_it(tmp_path: Path) -> None:
    table = device_table(tmp_path, parse(NET), Recipe(align="1", lossless=True, target="latency=0.9"))
    result = prune(parse(NET), latency(table, lossless=True))
    assert result.report.lossless is not None
    assert result.report.obtained["latency"] <= 0.5


def test_options_are_remembered_in_the_file() -> None:
    asked = timed_models(parse(NET), Recipe(protect=("w1",), align="8"))
    assert json.loads(json.loads(asked.content)["options"]) == {"command": "latency shapes", "align": "8", "protect": ["w1"]}


def test_a_model_without_groups_has_nothing_to_time() -> None:
    with pytest.raises(TargetError, match="no group that can be pruned"):
        timed_models(parse(NET), Recipe(protect=("*",)))
