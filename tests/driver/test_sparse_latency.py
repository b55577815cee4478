"""Zeros for a latency, by a clock that does not depend on the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kernel_nets import NET, sparse
from onnxprune.cli import phases
from onnxprune.driver import sparse_latency, sparsifier
from onnxprune.driver.progress import Phase
from onnxprune.driver.sparsify import sparsify
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.kernels import build
from onnxprune.latency.interleave import Quartiles
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.passes import Decode
from onnxprune.sparse.kernel_nodes import DOMAIN

pytestmark = pytest.mark.skipif(not build.compiler(), reason="no C compiler")
X = np.random.default_rng(0).standard_normal((40, 16, 9, 9)).astype(np.float32)


def taken(model: Model) -> float:
    """Of a weight that a kernel reads twice what is not zero, with a little that does not get less; of others all."""
    fast = {node.input[1] for node in model.graph.node if node.domain == DOMAIN}
    weights = Decode().run(model).weights
    return sum(
        2.0 * np.count_nonzero(weight.array()) + 0.1 * weight.size if name in fast else weight.size
        for name, weight in weights.items()
    )


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steady clocks."""

    def spreads(original: Model, models: Sequence[Model], *, seconds: float) -> list[Quartiles]:
        assert seconds > 0
        ratios = [taken(model) / taken(original) for model in models]
        return [Quartiles(ratio, ratio * 0.9, ratio * 1.1) for ratio in ratios]

    monkeypatch.setattr(sparse_latency, "measure_spreads", spreads)
    monkeypatch.setattr(sparsifier, "OrtTimer", lambda: lambda _: [4.0, 1.0])


def recipe(target: str, **fields: Any) -> SparseRecipe:
    return SparseRecipe(target, pattern="4x1", kernels=True, ends=True, **fields)


@pytest.mark.parametrize("fraction", [0.7, 0.4])
def test_the_result_takes_what_is_asked_for_and_little_less(fraction: float) -> None:
    told: list[object] = []
    result = sparsify(sparse(NET, density=1.0), recipe(f"latency={fraction}"), samples={"x": X}, progress=told.append)
    report = result.report
    assert report.latency is not None
    assert 0.9 * fraction <= report.latency <= fraction
    assert report.latency == pytest.approx(taken_by(result.compiled))
    assert report.spread == pytest.approx((report.latency * 0.9, report.latency * 1.1))
    assert report.requested == f"latency={fraction}"
    assert {layer.pattern for layer in report.kernels} == {"4x1"}
    assert any("with sparse kernels" in note for note in report.verification.notes)  # type: ignore[union-attr]
    kept = {layer.weight: layer.kept / layer.size for layer in report.layers}
    assert kept["last"] > 2 * kept["three"]  # which is multiplied at 81 positions
    document = report.to_dict()
    assert document["latency"] == report.latency
    names = dict.fromkeys(one.name for one in told if isinstance(one, Phase))
    expected = phases.sparsifying(recipe(f"latency={fraction}", calib="c.npz"))
    assert [name for name in names if name in expected] == [name for name in expected if name in names]


def taken_by(model: Model) -> float:
    return taken(model) / taken(Model.of(sparse(NET, density=1.0)))


def test_layers_that_a_kernel_does_not_make_faster_keep_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def timer(models: Sequence[Any]) -> list[float]:
        return [1.0, 2.0] if any(tensor.name == "one" for tensor in models[0].graph.initializer) else [4.0, 1.0]

    monkeypatch.setattr(sparsifier, "OrtTimer", lambda: timer)
    report = sparsify(sparse(NET, density=1.0), recipe("latency=0.7")).report
    kept = {layer.weight: layer.kept / layer.size for layer in report.layers}
    assert kept["one"] == 1
    assert kept["three"] < 0.5


def test_what_cannot_be_reached_says_what_can() -> None:
    with pytest.raises(
        TargetError,
        match=r"target latency=0\.05 cannot be reached: the fastest of \d models has latency=0\.\d+, measured, with a",
    ):
        sparsify(sparse(NET, density=1.0), recipe("latency=0.05"))


def test_a_result_that_is_slower_than_its_draft_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured the second time is the result, with as many zeros as the draft."""
    calls: list[float] = []

    def slow(original: Model, models: Sequence[Model], **_: Any) -> list[Quartiles]:
        ratio = taken(models[0]) / taken(original)
        calls.append(ratio)
        return [Quartiles(0.55 if calls.count(ratio) == 2 else ratio, 0.5, 0.6)]

    monkeypatch.setattr(sparse_latency, "measure_spreads", slow)
    report = sparsify(sparse(NET, density=1.0), recipe("latency=0.5")).report
    assert report.latency is not None
    assert report.latency <= 0.5
    assert report.latency < calls[-2]
