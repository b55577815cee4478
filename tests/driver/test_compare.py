from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import documents
from nets import NETS, parse
from onnxprune import OptionError, prune
from onnxprune.driver.compare import Difference, compare
from onnxprune.options.prune import Recipe


def report(folder: Path, name: str, **changed: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"schema": "onnxprune/1", **documents.pruned(**changed)}))
    return path


def test_two_reports(tmp_path: Path) -> None:
    groups = [{"id": name, "size": 8, "kept": kept, "exact": True, "members": 2} for name, kept in (("a", 8), ("b", 4))]
    wider = [{**groups[0], "kept": 6}, groups[1]]
    costs = {"macs": 1000, "params": 100, "size": 400}
    first = report(tmp_path, "first", groups=groups, after=costs)
    second = report(tmp_path, "second", groups=[*wider, {**groups[0], "id": "c"}], after={**costs, "macs": 500})
    found = compare(first, second)
    assert found.layers == (Difference("a", 8, 6), Difference("c", None, 8))
    assert found.same == 1
    rows = {row.name: row for row in found.rows}
    assert (rows["MACs"].first, rows["MACs"].second, rows["MACs"].ratio, rows["MACs"].values) == ("1 k", "500", 0.5, (1000, 500))
    assert rows["parameters"].ratio == 1
    assert found.verdicts[0] == found.verdicts[1] != ""


def test_a_model_and_what_was_made_of_it(tmp_path: Path) -> None:
    source, small = tmp_path / "source.onnx", tmp_path / "small.onnx"
    source.write_bytes(parse(NETS["chain"]).SerializeToString())
    result = prune(source, Recipe(target="channels=0.5", align="1"))
    result.save(small)
    found = compare(source, small)
    assert found.recipes == ("", "prune align=1 target=channels=0.5")
    ratios = {row.name: row.ratio for row in found.rows}
    assert ratios["MACs"] == pytest.approx(result.report.obtained["macs"])
    assert all(layer.first and layer.second and layer.first > layer.second for layer in found.layers)
    assert compare(source, source).layers == ()
    assert compare(small, report(tmp_path, "other")).rows


@pytest.mark.parametrize(
    "text",
    ["", "3", "[]", "{}", '{"schema": 3}', '{"schema": "onnxprune/1", "after": 3}', '{"schema": "onnxprune/1", "groups": [3]}'],
)
def test_what_is_no_report(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(OptionError, match=r"bad\.json: not what --json prints"):
        compare(tmp_path / "bad.json", report(tmp_path, "good"))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"absent\.json: no such file"):
        compare(tmp_path / "absent.json", tmp_path / "absent.json")
