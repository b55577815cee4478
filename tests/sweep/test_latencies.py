"""Results are timed beside the original, in parts that fit into memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.errors import InputError
from onnxprune.sweep.inputs import Input
from onnxprune.sweep.latencies import machine, measured, parts
from onnxprune.sweep.store import Store
from onnxprune.sweep.tasks import subjects_of, tasks_of
from onnxprune.sweep.work import carry_out, order_of
from sweep_work import recipe_in, write_models


def test_each_result_has_a_ratio_to_the_original(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "sweep"))
    tasks = tasks_of(subjects_of(recipe_in(write_models(tmp_path, "a")), {}))
    results = [carry_out(order_of(task, store)).sha256 for task in tasks]
    model = Input.of_model(tmp_path / "models" / "a.onnx").to_dict()
    order = {"store": store.root, "model": model, "results": results, "seconds": 0.01, "shape": [], "libraries": []}
    found = measured(order)
    assert len(found) == 2
    for one in found:
        assert one["machine"] == machine()
        assert one["ratio"] == pytest.approx(one["ms"] / one["original_ms"], rel=0.9)
        assert one["quartiles"][0] <= one["ratio"] <= one["quartiles"][1]
    with pytest.raises(InputError, match="has no model 0000"):
        measured({**order, "results": ["0" * 64]})


def test_parts() -> None:
    models = [str(number) for number in range(19)]
    found = list(parts(models))
    assert [name for part in found for name in part] == models
    assert max(map(len, found)) <= 8
    assert list(parts([])) == []
