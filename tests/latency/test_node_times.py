"""The time of each node that runs; nothing here depends on how fast the machine is."""

from __future__ import annotations

from pathlib import Path

import pytest

from nets import parse
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.latency.node_times import node_times
from optimizable import LINEAR, net


def test_every_node_that_runs_has_a_time_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = node_times(Model.of(net()))
    linear = [one for one in found if one.op in {"Conv", "Gemm"}]
    assert len(linear) == len(LINEAR)
    assert all(one.milliseconds >= 0 for one in found)
    assert linear[0].output_bytes == 4 * 32 * 8 * 8
    assert linear[0].name.startswith(("ra", "first"))  # what it is fused with names it
    assert not list(tmp_path.iterdir())  # the profile went away


def test_a_batch_is_run() -> None:
    one, two = (node_times(Model.of(net()), batch=batch)[0].output_bytes for batch in (1, 2))
    assert two == 2 * one


def test_a_model_that_does_not_run() -> None:
    model = Model.of(parse("(float[2,3] x) => (float[N] y) <int64[1] shape> { y = Reshape(x, shape) }"))
    model.weights["shape"] = model.weights["shape"].derived((1,), lambda array: array * 0 + 5)
    with pytest.raises(ModelError):
        node_times(model)
