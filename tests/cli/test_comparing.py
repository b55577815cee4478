from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from command import Cli, refused
from onnxprune import prune

MODEL = Path(__file__).parents[2] / "models" / "digits.onnx"


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    prune(MODEL, "macs=0.6", agreement=False).save(tmp_path / "small.onnx")
    return Path(shutil.copy(MODEL, tmp_path / "digits.onnx")), tmp_path / "small.onnx"


def test_two_models_side_by_side(call: Cli, both: tuple[Path, Path]) -> None:
    told = call("compare", *both)
    assert told.status == 0
    lines = told.out.splitlines()
    assert lines[0] == f"A: {both[0]}"
    assert lines[1] == f"B: {both[1]} (prune target=macs=0.6)"
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:] if line.split()}
    assert rows["MACs"] == ["1.95", "M", "1.17", "M", "0.598"]
    assert any(line.startswith("node_Conv") for line in lines)


def test_machines_and_a_page(call: Cli, both: tuple[Path, Path]) -> None:
    page = both[0].with_name("both.html")
    told = call("compare", *both, "--json", "--report", page).json()
    assert told["compared"] == [str(path) for path in both]
    assert [row["name"] for row in told["rows"]] == ["file", "MACs", "parameters"]
    html = page.read_text()
    assert html.count("<tr>") > 10
    assert "0.598" in html


def test_the_same_model(call: Cli, both: tuple[Path, Path]) -> None:
    assert "0 layers differ, 19 are alike" in call("compare", both[0], both[0]).out


def test_bad_input(call: Cli, both: tuple[Path, Path]) -> None:
    refused(call("compare", both[0], "absent.json"), 2, "absent.json: no such file")
    refused(call("compare", both[0], "absent.onnx"), 2, "absent.onnx: no such file")
