"""Every recipe: the sparsity that was asked for, from what its paper begins with, and training that may be killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from onnxprune import OptionError
from onnxprune.ir.model import Model
from onnxprune.options.registries import TRAININGS
from onnxprune.options.registry import load
from onnxprune.options.train import Sparse, Training, methods
from onnxprune.passes import UseKernels
from onnxprune.torch import to_module
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.recipes.gradual import cubic
from onnxprune.training.weights import train_weights
from trainable import Dying, KilledError, graph, perceptron

MODELS = Path(__file__).resolve().parents[2] / "models"
WEIGHTS = list("uavbw")
X = np.random.default_rng(1).normal(size=(96, 6)).astype(np.float32)
DATA = {"x": X, "label": np.abs(X[:, :3]).argmax(1)}
FAST = Training(epochs=4, batch=16, lr=0.01)


def layers(model: Model) -> dict[str, np.ndarray]:
    return {name: model.weights[name].array() for name in "uvw"}


METHODS = methods(channels=False)


def share(model: Model) -> float:
    arrays = layers(model).values()
    return 1 - sum(np.count_nonzero(a) for a in arrays) / sum(a.size for a in arrays)


def test_every_method_is_there() -> None:
    assert all(callable(load(TRAININGS[name].value.function)) for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_sparsity_is_what_was_asked_for(name: str) -> None:
    start = perceptron(20)
    long = replace(FAST, epochs=16)  # masks chosen before any training leave more to learn
    result = train_weights(start, TrainingInputs(DATA, evaluation=DATA), Sparse(name, 0.75, rounds=2), long)
    model, report = result.compiled, result.report
    assert share(model) == pytest.approx(0.75, abs=0.005)
    assert report["sparsity"] == pytest.approx(share(model))
    assert model.proto == Model.of(start).proto
    assert list(model.weights) == WEIGHTS
    if TRAININGS[name].value.allocation == "uniform":
        assert list(report["layers"].values()) == pytest.approx([0.75] * 3, abs=0.01)
    trained = [epoch for epoch in report["epochs"] if epoch["number"]]
    assert trained[-1]["loss"] < 1.2
    best = max(e["score"] for e in trained if e["phase"] == trained[-1]["phase"])
    assert report["score"]["after"] <= best + 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_without_sparsity_every_weight_stays(name: str) -> None:
    report = train_weights(perceptron(20), TrainingInputs(DATA), Sparse(name, 0), Training(epochs=1, batch=32)).report
    assert (report["recipe"]["sparsity"], report["sparsity"]) == (0, 0)


@pytest.mark.parametrize("name", ["oneshot", "gradual", "movement", "snip"])
def test_n_of_m_channels(name: str) -> None:
    model = train_weights(perceptron(20), TrainingInputs(DATA), Sparse(name, pattern="2:4"), FAST).compiled
    for array in layers(model).values():
        whole = array[: len(array) // 4 * 4]
        assert (np.count_nonzero(whole.reshape(-1, 4, array.shape[1]), axis=1) <= 2).all()
        assert np.count_nonzero(array) >= 0.4 * array.size


@pytest.mark.parametrize("name", ["oneshot", "gradual"])
def test_blocks_of_outputs_take_kernels(name: str) -> None:
    """Whole blocks of 4 outputs for one input are zero at the end; what is left of a layer is what a kernel reads."""
    model = train_weights(perceptron(32), TrainingInputs(DATA), Sparse(name, 0.8, pattern="4x1"), FAST).compiled
    blocks = layers(model)["v"].reshape(32, 8, 4)
    assert ((blocks != 0).any(axis=2) == (blocks != 0).all(axis=2)).all()
    (layer,) = UseKernels().run(model).layers  # of the others, one side is too narrow
    assert (layer.weight, layer.pattern) == ("v", "4x1")
    assert layer.stored == pytest.approx(np.count_nonzero(blocks) / blocks.size)


def test_a_threshold_is_in_deviations_of_the_layer() -> None:
    start = Model.of(perceptron(20))
    model = train_weights(start, TrainingInputs(DATA), Sparse("oneshot", threshold=1.0), FAST).compiled
    for name, old in layers(start).items():
        assert np.array_equal(layers(model)[name] != 0, np.abs(old) >= old.std(ddof=1))


def test_protected_layers_stay_dense() -> None:
    model = train_weights(perceptron(20), TrainingInputs(DATA), Sparse("oneshot", 0.5, protect=("w",)), FAST).compiled
    assert np.count_nonzero(layers(model)["w"]) == 60
    assert np.count_nonzero(layers(model)["u"]) < 120


def test_the_ticket_goes_back_to_a_file(tmp_path: Path) -> None:
    onnx.save(perceptron(20, 7), tmp_path / "first.onnx")
    none = Training(epochs=1, batch=96, lr=1e-30)
    trained = Model.of(perceptron(20, 8))
    recipe = Sparse("lottery", 0.5, rounds=1, rewind=str(tmp_path / "first.onnx"), allocation="global")
    model = train_weights(trained, TrainingInputs(DATA), recipe, none).compiled
    first = Model.of(perceptron(20, 7))
    for name, array in layers(model).items():
        kept = array != 0
        assert np.array_equal(array[kept], layers(first)[name][kept])
    every = np.concatenate([np.abs(a).ravel() for a in layers(trained).values()])
    kept = np.concatenate([(a != 0).ravel() for a in layers(model).values()])
    assert every[kept].min() >= every[~kept].max()


def test_the_ticket_goes_back_to_an_epoch_of_the_run() -> None:
    found = {}
    for rewind in ("epoch:0", "epoch:2"):
        report = train_weights(perceptron(20), TrainingInputs(DATA), Sparse("lottery", 0.5, rounds=2, rewind=rewind), FAST).report
        found[rewind] = [(e["phase"], e["number"]) for e in report["epochs"]]
    first = [("train", n) for n in (1, 2, 3, 4)]
    assert found["epoch:0"] == first + [(f"lottery {turn}/2", n) for turn in (1, 2) for n in (1, 2, 3, 4)]
    assert found["epoch:2"] == first + [(f"lottery {turn}/2", n) for turn in (1, 2) for n in (1, 2)]


def test_supermasks_change_no_weight() -> None:
    start = Model.of(perceptron(20))
    model = train_weights(start, TrainingInputs(DATA), Sparse("supermask", 0.5, start="given"), FAST).compiled
    for name, array in layers(model).items():
        assert np.array_equal(array[array != 0], layers(start)[name][array != 0])
    assert np.array_equal(model.weights["a"].array(), start.weights["a"].array())


@pytest.mark.parametrize("name", ["gradual", "oneshot", "random", "snip", "synflow", "scratch"])
def test_nets_whose_normalisation_was_folded_learn_with_a_tenth_of_their_weights(name: str) -> None:
    """Without normalisation or with a share for each layer these stay at one in ten: see `onnxprune.training.batchnorm`."""
    rng = np.random.default_rng(0)
    marks = rng.random((10, 1, 8, 8), np.float32)
    label = np.arange(320) % 10
    x = marks[label] + 0.3 * rng.standard_normal((320, 1, 8, 8), np.float32)
    model = Model.of(MODELS / "digits.onnx")
    options = Training(epochs=8, batch=32, lr=0.01, loss="cross_entropy", device="cpu")
    result = train_weights(model, TrainingInputs({model.inputs[0].name: x, "label": label}), Sparse(name, 0.9), options)
    assert [epoch["loss"] for epoch in result.report["epochs"]][-1] < 1.5
    found = to_module(result.compiled)(torch.from_numpy(x)).argmax(1).numpy()
    assert (found == label).mean() > 0.6
    assert result.compiled.proto == model.proto


def test_the_model_as_it_came_teaches_where_nobody_else_does() -> None:
    def losses(method: str, inputs: TrainingInputs, **options: Any) -> tuple[str, str | None]:
        report = train_weights(perceptron(20), inputs, Sparse(method, 0.5), Training(epochs=1, **options)).report
        return report["loss"], report["teacher"]

    unlabelled = TrainingInputs({"x": X})
    assert losses("oneshot", unlabelled) == losses("oneshot", TrainingInputs(DATA)) == ("distill", "<model>")
    assert losses("oneshot", TrainingInputs(DATA), loss="cross_entropy") == ("cross_entropy", None)
    assert losses("snip", TrainingInputs(DATA)) == ("cross_entropy", None)
    assert losses("snip", unlabelled) == ("distill", "<model>")


def test_half_precision_is_trained_in_float32() -> None:
    """Steps far below what a float16 weight can take add up; what comes back is float16."""
    proto = graph("(float16[N,4] x) => (float16[N,2] y) { y = MatMul(x, w) }")
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((4, 2), np.float16), "w"))
    data = {"x": np.ones((32, 4), np.float16), "label": np.zeros(32, np.int64)}
    options = Training(epochs=40, batch=8, lr=1e-4, optimizer="adam", schedule="constant", loss="cross_entropy")
    result = train_weights(proto, TrainingInputs(data), Sparse("oneshot", 0.05), options).compiled
    weight = result.weights["w"].array()
    assert weight.dtype == np.float16
    assert (weight[:, 0] > 1.01).all()
    assert result.proto == Model.of(proto).proto
    judged = train_weights(proto, TrainingInputs(data, evaluation=data), Sparse("oneshot", 0.0), replace(options, epochs=1))
    assert judged.report["score"]["after"] == 1.0


@pytest.mark.parametrize("name", ["gradual", "iterative", "lottery", "supermask", "soft_movement", "synflow"])
def test_killed_it_ends_at_the_same_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, options = Sparse(name, 0.75, rounds=2), Training(epochs=2, batch=32, lr=0.01)
    whole = train_weights(perceptron(20), TrainingInputs(DATA), recipe, options).compiled
    for step in (1, 5, 8):
        inputs = TrainingInputs(DATA, resume=tmp_path / f"{step}")
        with monkeypatch.context() as patch:
            patch.setattr("onnxprune.training.inputs.Checkpoint", Dying)
            Dying.left = step
            with pytest.raises(KilledError):
                train_weights(perceptron(20), inputs, recipe, options)
        again = train_weights(perceptron(20), inputs, recipe, options).compiled
        for weight in WEIGHTS:
            assert again.weights[weight].array().tobytes() == whole.weights[weight].array().tobytes(), step


def test_the_cubic_schedule() -> None:
    assert [cubic(0.8, at, 0.2, 0.6) for at in (0, 0.2, 0.4, 0.6, 1)] == pytest.approx([0, 0, 0.7, 0.8, 0.8])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"method": "magic"}, "--method 'magic': write one of gradual"),
        ({"sparsity": 1.0}, "--sparsity 1.0: write the share of zeros"),
        ({"sparsity": -0.1}, "--sparsity -0.1: write the share of zeros"),
        ({"threshold": 1.0}, "with --method oneshot"),
        ({"method": "oneshot", "threshold": 1.0, "sparsity": 0.5}, "--threshold 1.0 says what goes: leave --sparsity 0.5 out"),
        ({"rewind": "epoch:1"}, "is for --method lottery"),
        ({"method": "lottery", "rewind": "epoch:x"}, "write epoch:N"),
        ({"pattern": "4:2"}, "pattern '4:2'"),
        ({"method": "lottery", "rewind": "absent.onnx"}, "absent.onnx: no such file"),
    ],
)
def test_senseless_recipes_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train_weights(perceptron(20), TrainingInputs(DATA), Sparse(**values), FAST)


def test_another_graph_is_no_start(tmp_path: Path) -> None:
    other = perceptron(20)
    other.graph.initializer[0].name = other.graph.node[0].input[1] = "z"
    onnx.save(other, tmp_path / "z.onnx")
    with pytest.raises(OptionError, match=r"has no constant 'u' of shape \[6, 20\]: give the same graph"):
        train_weights(perceptron(20), TrainingInputs(DATA), Sparse("oneshot", start=str(tmp_path / "z.onnx")), FAST)


def test_seeds_draw_other_weights() -> None:
    found = [
        train_weights(perceptron(20), TrainingInputs(DATA), Sparse("scratch", 0.5), Training(epochs=1, seed=seed))
        for seed in (0, 1)
    ]
    assert not torch.equal(*(torch.from_numpy(layers(one.compiled)["u"].copy()) for one in found))
