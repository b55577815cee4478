"""The files of results, and copies of them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import onnx
import pytest

from command import external, net
from onnxprune.errors import OutputError
from onnxprune.ir import files
from onnxprune.sweep.inputs import Input
from onnxprune.sweep.picking import copied, linked, place_for
from onnxprune.sweep.store import DONE, Outcome, Store

KEY = "ab" * 32


def published(store: Store, made: Path) -> dict[str, Any]:
    store.publish(Outcome(KEY, DONE, "m/small.onnx", sha256=Input.of_model(made).digest), made)
    return {"key": KEY, "model": "m/small.onnx"}


def test_a_copy_is_the_model(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "sweep"))
    onnx.save(net(), tmp_path / "made.onnx")
    row = published(store, tmp_path / "made.onnx")
    sha256 = files.sha256(tmp_path / "made.onnx")
    assert place_for(store, row) == str(tmp_path / "sweep" / "models" / f"{sha256}.onnx")
    out = tmp_path / "out.onnx"
    assert copied(store, row, out, tmp_path, several=False, force=False) == str(out)
    assert onnx.load(out) == net()
    with pytest.raises(OutputError, match="exists already"):
        copied(store, row, out, tmp_path, several=False, force=False)
    (tmp_path / "folder").mkdir()
    assert copied(store, row, tmp_path / "folder", tmp_path, several=True, force=False) == str(tmp_path / "folder" / "small.onnx")
    with pytest.raises(OutputError, match="is no folder, and there are several models"):
        copied(store, row, out, tmp_path, several=True, force=True)
    (tmp_path / "sweep" / "models" / f"{sha256}.onnx").unlink()
    with pytest.raises(OutputError, match="is gone: run the sweep again"):
        place_for(store, row)
    with pytest.raises(OutputError, match="is gone: run the sweep again"):
        copied(store, row, out, tmp_path, several=False, force=True)
    with pytest.raises(OutputError, match="is gone: run the sweep again"):
        place_for(store, {**row, "key": "cd" * 32})


def test_reports_are_linked_from_where_the_page_is(tmp_path: Path) -> None:
    rows = [{"report": "results/ab/x.json"}, {"report": ""}]
    store = Store(str(tmp_path / "sweep"))
    for folder, link in ((tmp_path / "sweep", ""), (tmp_path, "sweep/"), (tmp_path / "pages", "../sweep/")):
        assert linked(store, rows, folder) == [{"report": f"{link}results/ab/x.json"}, {"report": ""}]


def test_a_model_with_data_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra [sweep] is not installed")
    store = Store(f"memory://{uuid.uuid4().hex}")
    (tmp_path / "work").mkdir()
    row = published(store, external(tmp_path / "work" / "model.onnx"))
    assert place_for(store, row).startswith("memory://")
    out = copied(store, row, tmp_path / "out.onnx", tmp_path / "fetched", several=False, force=False)
    found, expected = (onnx.load(path) for path in (out, tmp_path / "work" / "model.onnx"))
    assert {one.name: one.raw_data for one in found.graph.initializer} == {
        one.name: one.raw_data for one in expected.graph.initializer
    }
