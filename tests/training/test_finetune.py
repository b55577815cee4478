"""Fine-tuning whole models: what is written, what is reported, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import OptionError
from onnxprune.driver.sparsify import sparsify
from onnxprune.ir.model import Model
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.options.train import Training
from onnxprune.passes import UseKernels
from onnxprune.training.finetune import finetune
from onnxprune.training.inputs import TrainingInputs
from trainable import filled, graph, images, sparse

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"


def zeros(model: Model) -> dict[str, np.ndarray]:
    return {name: weight.array() == 0 for name, weight in model.weights.items() if len(weight.shape) > 1 and weight.is_float}


def test_a_sparse_model_keeps_its_zeros_and_learns_what_the_original_does() -> None:
    start = sparse(0.7)
    told: list[str] = []
    result = finetune(
        start, TrainingInputs(images(), DIGITS, {"x": images()["x"]}), Training(epochs=3, metric="mse"), progress=told.append
    )
    before, after = Model.of(start), result.compiled
    for name, places in zeros(before).items():
        assert np.array_equal(places, zeros(after)[name])
    assert after.proto.graph == before.proto.graph
    report = result.report
    assert report["loss"] == "distill"
    assert report["sparsity"] == pytest.approx(0.7, abs=0.01)
    assert [epoch["number"] for epoch in report["epochs"]] == [1, 2, 3]
    assert report["epochs"][-1]["loss"] < report["epochs"][0]["loss"]
    assert (report["score"]["metric"], report["score"]["original"]) == ("mse", 1)
    assert report["score"]["before"] < report["score"]["after"]
    assert any("epoch 1/3, loss" in text and "s left" in text for text in told)


def test_blocks_of_outputs_take_kernels_after_training_too() -> None:
    start = sparsify(DIGITS, SparseRecipe("sparsity=0.8", pattern="4x1", allocation="uniform"), agreement=False).model
    result = finetune(start, TrainingInputs(images(16), DIGITS), Training(epochs=1)).compiled
    before, after = (UseKernels().run(model).layers for model in (Model.of(start), result))
    assert after == before
    assert len(after) > 5
    assert {layer.pattern for layer in after} == {"4x1"}
    assert not all(
        np.array_equal(weight.array(), Model.of(start).weights[name].array()) for name, weight in result.weights.items()
    )


def test_zeros_may_go() -> None:
    result = finetune(sparse(0.5), TrainingInputs(images(), DIGITS), Training(epochs=1, keep_zeros=False))
    assert result.report["sparsity"] < 0.1  # what no sample reaches gets no gradient
    assert result.report["score"] is None


def test_the_learning_rate_follows_weights_unless_it_is_given() -> None:
    """Of a network whose weights are a tenth as large, steps are a tenth as large."""
    small, large = (filled("(float[N,6] x) => (float[N,3] y) { y = MatMul(x, w) }", w=(6, 3)) for _ in range(2))
    weight = onnx.numpy_helper.to_array(large.graph.initializer[0]) / 10
    small.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    rng = np.random.default_rng(0)
    inputs = TrainingInputs({"x": rng.normal(size=(32, 6)).astype(np.float32), "label": rng.integers(3, size=32)})

    def rate(model: onnx.ModelProto, lr: float) -> float:
        options = Training(epochs=2, batch=16, lr=lr, warmup=0, schedule="constant", device="cpu")
        return float(finetune(model, inputs, options).report["epochs"][-1]["rate"])

    assert rate(large, 0.0) == pytest.approx(10 * rate(small, 0.0))
    assert rate(large, 0.0) == pytest.approx(Training().share * 10 * np.sqrt(np.square(weight).mean()), rel=1e-5)
    assert rate(large, 0.002) == rate(small, 0.002) == 0.002


def test_values_inside_are_matched_too() -> None:
    start = sparse(0.5)
    losses = []
    for match in ((), ("*relu*",)):
        options = Training(epochs=1, match=match, match_weight=10.0)
        losses.append(finetune(start, TrainingInputs(images(16), DIGITS), options).report["epochs"][0]["loss"])
    assert losses[1] > losses[0]


@pytest.mark.parametrize(
    ("inputs", "options", "said"),
    [
        ({"data": {"x": np.zeros((4, 1, 8, 8), np.float32)}}, {}, "needs labels, and the data has none"),
        ({"data": images(4)}, {"patience": 1}, "--patience 1 needs samples to judge by"),
        ({"data": images(4)}, {"loss": "distill"}, "add --teacher ORIGINAL"),
        ({"data": {"x": np.zeros((4, 3, 8, 8), np.float32)}}, {}, r"array 'image' has shape \[4, 3, 8, 8\]"),
        ({"data": "nowhere.npz"}, {}, "--data nowhere.npz: no such file or folder"),
    ],
)
def test_bad_input_is_refused(inputs: dict[str, object], options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        finetune(DIGITS, TrainingInputs(**inputs), Training(**options))  # type: ignore[arg-type]


def test_logs_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    finetune(DIGITS, TrainingInputs(images(16), DIGITS, images(8), log=tmp_path / "log"), Training(epochs=1))
    assert [path.name.startswith("events") for path in (tmp_path / "log").iterdir()] == [True]


def test_the_loss_says_whether_photographs_are_augmented() -> None:
    proto = graph("(float[N,3,4,4] x) => (float[N,2] y) { f = Flatten(x) y = MatMul(f, w) }")
    weight = np.random.default_rng(0).normal(size=(48, 2)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    rng = np.random.default_rng(1)
    inputs = TrainingInputs({"x": rng.normal(size=(32, 3, 4, 4)).astype(np.float32), "label": rng.integers(2, size=32)}, proto)

    def trained(loss: str, augment: str) -> list[float]:
        options = Training(epochs=2, loss=loss, augment=augment, device="cpu")
        return [epoch["loss"] for epoch in finetune(proto, inputs, options).report["epochs"]]

    assert trained("cross_entropy", "auto") == trained("cross_entropy", "none") != trained("cross_entropy", "flip,shift:1")
    mixed = "0.5*distill+0.5*cross_entropy"
    assert trained(mixed, "auto") == trained(mixed, "none")
    start = proto.SerializeToString()
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight * 0.5, "w"))
    other = finetune(proto, TrainingInputs(inputs.data, start), Training(epochs=2, augment="none", device="cpu")).report["epochs"]
    moved = finetune(proto, TrainingInputs(inputs.data, start), Training(epochs=2, device="cpu")).report["epochs"]
    assert [epoch["loss"] for epoch in moved] != [epoch["loss"] for epoch in other]
