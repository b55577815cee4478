"""Pictures: what is drawn is what was found."""

from __future__ import annotations

from typing import Any

import pytest

import documents
from onnxprune.pages.contents import layers, tried

charts = pytest.importorskip("onnxprune.pages.charts", reason="Altair is an extra")


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    (rows,) = spec["datasets"].values()
    return list(rows)


def test_the_network_has_a_bar_for_each_layer() -> None:
    spec = charts.network(layers(documents.pruned()), "positions")
    assert [row["after"] for row in rows_of(spec)] == [24, 23, 22]
    assert [layer["encoding"]["y"]["field"] for layer in spec["layer"]] == ["before", "after"]


def test_a_large_network_has_no_names_below_its_bars() -> None:
    many = layers(
        documents.pruned(groups=[{"id": str(i), "size": 8, "kept": 4, "exact": True, "members": 1} for i in range(100)])
    )
    axis = charts.network(many, "positions")["layer"][0]["encoding"]["x"]["axis"]
    assert not axis["labels"]
    assert axis["title"] == "100 layers"


def test_what_was_tried_is_drawn_and_the_chosen_one_ringed() -> None:
    spec = charts.search(tried(documents.searched()))
    assert len(rows_of(spec)) == 4
    assert spec["layer"][1]["transform"] == [{"filter": "datum.chosen"}]


def test_fronts_have_no_data_of_their_own() -> None:
    spec = charts.fronts()
    assert spec["data"] == {"name": "runs"}
    assert "datasets" not in spec
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["circle", "line", "circle"]


def test_sensitivity_is_a_row_for_each_group() -> None:
    spec = charts.sensitivity(documents.curves()["groups"])
    assert {row["group"] for row in rows_of(spec)} == {f"conv{i}.weight:0" for i in range(4)}
    assert {row["kept"] for row in rows_of(spec)} == {"25%", "50%", "75%"}


def test_shares_of_layers_are_of_the_whole_model() -> None:
    rows = rows_of(charts.shares(documents.inspected()["layers"]))
    assert [(row["node"], row["of"]) for row in rows[:2]] == [("conv1", "MACs"), ("conv1", "parameters")]
    assert [row["share"] for row in rows] == pytest.approx([1 / 3, 1 / 2, 2 / 3, 1 / 2])


def test_latencies_have_a_bar_and_a_spread() -> None:
    spec = charts.latencies(documents.timed()["rows"])
    assert [(row["model"], row["setting"], row["q3_ms"]) for row in rows_of(spec)] == [
        ("net.onnx", "cpu, batch 1, 2 threads", 2.2),
        ("small.onnx", "cpu, batch 1, 2 threads", 1.1),
    ]
    assert [layer["encoding"]["x"]["field"] for layer in spec["layer"]] == ["median_ms", "q1_ms"]
