"""The command `optimize`, with data to distil on and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.errors import OptionError
from onnxprune.options.optimize import OptimizeRecipe
from onnxprune.pipeline import steps
from onnxprune.pipeline.optimizing import optimize
from optimizable import X, clock, net, steady_table


@pytest.fixture(autouse=True)
def steady(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    steady_table(tmp_path_factory, monkeypatch)


def test_the_result_is_distilled_where_there_is_data(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    np.savez(tmp_path / "train.npz", x=np.random.default_rng(1).standard_normal((128, 3, 8, 8)).astype(np.float32))
    recipe = OptimizeRecipe(target="latency=0.3", metric="mse", data=str(tmp_path / "train.npz"))
    report = optimize(net(), recipe, samples={"x": X}, clock=clock(int8=3.0)).report
    assert any(note.startswith("distillation moved outputs") for note in report.notes)
    plain = optimize(net(), "latency=0.3", samples={"x": X}, clock=clock(int8=3.0)).report
    assert not any("distillation" in note for note in plain.notes)


def test_a_step_that_distils_needs_pytorch(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pipeline.steps.find_spec", lambda _: None)
    np.savez(tmp_path / "train.npz", x=X)
    assert steps.read("optimize", {}, tmp_path)
    with pytest.raises(OptionError, match=r"needs PyTorch: run pip install 'onnxprune\[torch\]'"):
        steps.read("optimize", {"data": "train.npz"}, tmp_path)
