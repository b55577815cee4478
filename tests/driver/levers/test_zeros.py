"""Zeros as a lever: where kernels make layers faster, what stays dense, and int8 of the layers that have none."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from onnxprune.driver.levers import zeros
from onnxprune.driver.levers.base import Made, Mixture
from onnxprune.driver.levers.precision import Precision
from onnxprune.driver.levers.zeros import Zeros
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.kernels import build, library
from onnxprune.options.optimize import OptimizeRecipe
from onnxprune.passes import Decode
from onnxprune.runtime.custom_operators import libraries
from onnxprune.runtime.session import Session
from onnxprune.sparse.kernel_nodes import DOMAIN
from optimizable import X, closed, ground

__all__ = ["closed"]

pytestmark = [
    pytest.mark.usefixtures("closed"),
    pytest.mark.skipif(not build.compiler(), reason="no C compiler"),
]
SLOW: list[str] = []
"""Weights whose kernels are slow."""


@pytest.fixture(autouse=True)
def _timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel is four times as fast, except those of slow layers; no test depends on the machine."""

    def timer(models: list[object]) -> list[float]:
        slow = any(tensor.name in SLOW for model in models for tensor in model.graph.initializer)  # type: ignore[attr-defined]
        return [1.0, 2.0] if slow else [4.0, 1.0]

    SLOW.clear()
    monkeypatch.setattr(zeros, "OrtTimer", lambda: timer)


def lever(**fields: object) -> Zeros:
    return Zeros(ground(OptimizeRecipe(kernels=True, **fields)))  # type: ignore[arg-type]


def carried(pulled: Zeros, choice: str) -> Made:
    return pulled.carry_out(Made(Mixture(), pulled.ground.original), choice)


def kernels(model: Model) -> list[str]:
    return [node.op_type for node in model.graph.node if node.domain == DOMAIN]


def empty(model: Model) -> dict[str, float]:
    """The share of zeros in each weight of a layer."""
    decoded = Decode().run(model).weights
    return {name: float((decoded[name].array() == 0).mean()) for name in ("w1", "w2", "w3", "w4")}


def test_it_is_offered_where_kernels_are_asked_for() -> None:
    assert Zeros(ground()).choices() == ()
    assert libraries() == ()
    pulled = lever()
    assert pulled.choices() == ("4x1 sparsity=0.75",)
    assert libraries() == (str(library().resolve()),)


def test_a_share_of_the_time_is_twice_as_much_of_the_weights() -> None:
    assert lever().at(0.4, Mixture()) == "4x1 sparsity=0.8"
    assert lever(target="size=0.3").at(0.4, Mixture()) == "4x1 sparsity=0.6"


def test_layers_get_zeros_kernels_and_a_proof_of_both_lives() -> None:
    pulled = lever()
    made = carried(pulled, "4x1 sparsity=0.8")
    assert kernels(made.model) == ["SparseConvRelu"] * 2
    shares = empty(made.model)
    assert (shares["w2"] * 9216 + shares["w3"] * 13824) / (9216 + 13824) == pytest.approx(0.8, abs=0.01)
    assert shares["w1"] == shares["w4"] == 0
    assert made.model.nbytes < 0.5 * pulled.ground.original.nbytes
    (step,) = made.steps
    assert list(step.models) == ["refit"]
    assert [layer.pattern for layer in step.kernels] == ["4x1"] * 2
    assert step.check
    assert "with sparse kernels" in step.check.notes[-1]
    assert "onnxprune.kernels.register" in step.notes[0]


def test_a_layer_whose_kernel_is_slower_stays_dense() -> None:
    SLOW.append("w3")
    made = carried(lever(), "4x1 sparsity=0.8")
    shares = empty(made.model)
    assert shares["w3"] == 0
    assert shares["w2"] > 0.6
    assert kernels(made.model) == ["SparseConvRelu"]
    assert made.steps[0].kept == ({"node": "third", "op": "Conv", "why": "no sparse kernel is faster"},)


def test_where_size_is_the_goal_every_layer_gets_zeros() -> None:
    SLOW.append("w3")
    made = carried(lever(target="size=0.3"), "4x1 sparsity=0.8")
    assert empty(made.model)["w3"] > 0.6
    assert made.steps[0].kept == ()


def test_where_no_kernel_is_faster_it_is_not_offered() -> None:
    SLOW.extend(["w2", "w3"])
    pulled = lever()
    assert pulled.choices() == ()
    assert "with 90% zeros no layer is faster by a sparse kernel" in pulled.notes[0]
    with pytest.raises(TargetError, match="with 90% zeros no layer is faster"):
        carried(pulled, "4x1 sparsity=0.8")


def test_what_is_protected_stays() -> None:
    made = carried(lever(protect=("second",)), "4x1 sparsity=0.8")
    assert empty(made.model)["w2"] == 0
    assert empty(made.model)["w3"] > 0.6


def test_layers_without_a_kernel_compute_in_int8() -> None:
    """The quantizer sees what kernels stand for, and leaves it alone; the file has the kernels, and runs without the library."""
    SLOW.append("w3")
    pulled = lever()
    pulled.choices()
    sparse = carried(pulled, "4x1 sparsity=0.8")
    mixed = Precision(pulled.ground).carry_out(sparse, "int8")
    assert kernels(mixed.model) == ["SparseConvRelu"]
    assert "w2" in Decode().run(mixed.model).weights
    assert {"w1", "w3", "w4"} <= Decode().run(mixed.model).weights.keys()
    assert empty_of(mixed.model, "w2") == empty_of(sparse.model, "w2")
    step = mixed.steps[-1]
    assert {"node": "second", "op": "Conv", "why": "a sparse kernel computes it"} in step.kept
    assert "without sparse kernels ONNX Runtime may put these layers into int8 itself" in step.notes[-1]
    plain = ort.InferenceSession(mixed.model.to_proto().SerializeToString()).run(None, {"x": X[:8]})[0]
    fast = Session(mixed.model).run({"x": X[:8]})[0]
    floats = Session(sparse.model).run({"x": X[:8]})[0]
    scale = float(np.abs(floats).max())
    np.testing.assert_allclose(fast, floats, atol=0.1 * scale)
    np.testing.assert_allclose(plain, floats, atol=0.1 * scale)


def empty_of(model: Model, name: str) -> int:
    return int((Decode().run(model).weights[name].array() == 0).sum())
