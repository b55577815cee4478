"""Tables that pages of single commands have."""

from __future__ import annotations

from typing import Any

import pytest

import documents
from onnxprune.pages.listings import listings, options_text, title


def rows(document: dict[str, Any]) -> dict[str, list[tuple[str, ...]]]:
    return {one.title: list(one.rows) for one in listings(document)}


def test_steps_of_a_recipe_say_what_each_came_to() -> None:
    assert rows(documents.recipe())["Steps"] == [
        ("cut (prune)", "target=macs=0.5", "3000000", "0.500", "", "top1 99.0% -> 98.5%", "2.5"),
        ("encode", "", "1000000", "0.167", "", "as before", "kept"),
    ]


def test_a_recipe_that_was_only_read_has_its_steps() -> None:
    planned = {"command": "run", "steps": [{"name": "prune", "do": "prune", "options": {"align": "1"}}]}
    assert rows(planned) == {"Steps": [("prune", "align=1")]}


def test_timings_have_quartiles_and_ratios() -> None:
    first, second = rows(documents.timed())["Timings"]
    assert first == ("net.onnx", "cpu", "1", "2", "2", "1.8 to 2.2", "", "0.020", "")
    assert second[4:7] == ("1", "0.9 to 1.1", "0.500")


def test_an_inspection_has_the_interface_groups_and_layers() -> None:
    found = rows(documents.inspected())
    assert found["Inputs and outputs"] == [("input", "image", "float", "batchx3"), ("output", "logits", "float", "unknown")]
    assert found["Groups that can be pruned"] == [("conv1:0", "channels", "32", "2", "yes")]
    assert [row[0] for row in found["Layers"]] == ["conv1", "conv2"]


def test_history_and_files() -> None:
    step = {"command": "prune", "options": {"seed": 1}, "version": "1", "source": "a" * 64}
    assert rows({"command": "log", "steps": [step, step | {"source": ""}]})["How it was made"] == [
        ("1", "prune", "seed=1", "a" * 12, "1"),
        ("2", "prune", "seed=1", "in memory", "1"),
    ]
    files = [
        {"path": "a.onnx", "bytes": 10, "zeros": 0.25, "problems": []},
        {"path": "b", "bytes": None, "zeros": None, "problems": ["no", "so"]},
    ]
    assert rows({"command": "lint", "files": files})["Files"] == [("a.onnx", "10", "25.0%", "good"), ("b", "", "", "no; so")]


def test_tables_without_rows_are_left_out() -> None:
    assert rows({"command": "log", "steps": []}) == {}
    assert rows(documents.pruned()) == {}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (documents.pruned(), "net.onnx → small.onnx"),
        ({"model": {"file": "net.onnx", "sha256": ""}, "output": "plan.json"}, "net.onnx → plan.json"),
        ({"model": "net.onnx", "pruned": "small.onnx"}, "net.onnx → small.onnx"),
        (documents.timed(), "net.onnx, small.onnx"),
        ({"files": [{"path": "a.onnx"}]}, "a.onnx"),
        ({}, "onnxprune"),
    ],
)
def test_a_page_is_called_by_its_models(document: dict[str, Any], expected: str) -> None:
    assert title(document) == expected


def test_options_are_one_line() -> None:
    assert options_text({"target": "macs=0.5", "protect": ["a*"], "seed": 0}) == 'target=macs=0.5, protect=["a*"], seed=0'
