"""Scores on evaluation samples: labels, or the original's outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.errors import ModelError, OptionError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.options.gates import parse_drop
from onnxprune.verify import metrics
from onnxprune.verify.metrics import QUALITY_METRICS, Evaluation, Weighted, chance_notice

SCORES = "(float[N,4] x) => (float[N,3] y) <float[4,3] w> { y = MatMul(x, w) }"
IMAGES = "(float[N,4,2,2] x) => (float[N,3,2,2] y) <float[3,4,1,1] w> { y = Conv(x, w) }"
X = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)


def turned(model: Model) -> Model:
    """The same model with the signs of its weights turned."""
    other = model.copy()
    other.weights["w"] = Weight("w", None, -model.weights["w"].array())
    return other


@pytest.mark.parametrize(("metric", "score"), [("top1", 1), ("agreement", 1), ("mse", 1), ("cosine", 1)])
def test_the_original_agrees_with_itself(metric: str, score: float) -> None:
    model = Model.of(parse(SCORES))
    labels = (X @ model.weights["w"].array()).argmax(1)
    found = Evaluation(model, open_samples({"x": X, "label": labels}, model.inputs), metric).of(model)
    assert found.metric == metric
    assert found.original == pytest.approx(score)
    assert found.pruned == found.original
    assert found.samples == 150


@pytest.mark.parametrize(("metric", "score"), [("agreement", 0), ("mse", -3), ("cosine", -1)])
def test_a_model_that_says_the_opposite(metric: str, score: float) -> None:
    model = Model.of(parse(SCORES))
    found = Evaluation(model, open_samples({"x": X}, model.inputs), metric).of(turned(model))
    assert found.original == pytest.approx(1)
    assert found.pruned == pytest.approx(score, abs=0.1)


def test_the_metric_follows_from_labels_and_outputs() -> None:
    model, images = Model.of(parse(SCORES)), Model.of(parse(IMAGES))
    assert Evaluation(model, open_samples({"x": X, "label": np.zeros(150, int)}, model.inputs)).metric == "top1"
    assert Evaluation(model, open_samples({"x": X}, model.inputs)).metric == "agreement"
    assert Evaluation(images, open_samples({"x": np.ones((3, 4, 2, 2), np.float32)}, images.inputs)).metric == "cosine"


DETECTOR = "(float[N, 6, 9] x) => (float[N, 6, 9] y) { y = Identity(x) }"


def test_what_is_scored_counts_and_not_the_samples() -> None:
    """Of 128 images two show something; the anchor of one has gone."""
    model, x = Model.of(parse(DETECTOR)), np.zeros((128, 6, 9), np.float32)
    x[:, :4], x[3, 4, 2], x[100, 5, 8] = 100, 0.9, 0.9
    weaker = "(float[N, 6, 9] x) => (float[N, 6, 9] y) <float[9] mask> { y = Mul(x, mask) }"
    other = Model.of(parse(weaker))
    other.weights["mask"] = Weight("mask", None, np.array([1] * 8 + [0.1], np.float32))
    assert Evaluation(model, open_samples({"x": x}, model.inputs)).of(other).pruned == pytest.approx(2 / 3)


def test_a_letter_that_is_a_step_later_is_the_same_letter() -> None:
    wanted, found = np.zeros((2, 10, 4)), np.zeros((2, 10, 4))
    wanted[..., 0] = found[..., 0] = 0.5
    wanted[0, 4, 1], wanted[0, 7, 2], found[0, 5, 1], found[0, 6, 2] = 1, 1, 1, 1
    assert QUALITY_METRICS["ctc_agreement"]([found], [wanted], None) == Weighted(1, 2)
    found[0, 5, 3] = wanted[1, 2, 3] = found[1, 2, 3] = 2
    assert QUALITY_METRICS["ctc_agreement"]([found], [wanted], None) == Weighted(pytest.approx(2 / 3), 3)  # type: ignore[arg-type]
    assert QUALITY_METRICS["ctc_agreement"]([wanted[:, :2]], [wanted[:, :2]], None) == Weighted(1, 0)


def test_positions_of_the_usual_class_do_not_hide_others() -> None:
    """Nine blanks, and a letter that is another one."""
    wanted, found = np.zeros((1, 10, 3)), np.zeros((1, 10, 3))
    wanted[..., 0] = found[..., 0] = 0.5
    wanted[0, 4, 1] = found[0, 4, 2] = 1
    assert QUALITY_METRICS["position_agreement"]([found], [wanted], None) == Weighted(0, 1)
    found[0, 4, 1], found[0, 5, 1] = 2, 1  # the right letter, and one more
    assert QUALITY_METRICS["position_agreement"]([found], [wanted], None) == Weighted(0.5, 2)
    blank = wanted[:, :4]
    assert QUALITY_METRICS["position_agreement"]([blank], [blank], None) == Weighted(1, 0)


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_metrics.py").write_text("def count(outputs, reference, labels):\n    return float(len(outputs[0]))\n")
    monkeypatch.chdir(tmp_path)
    model = Model.of(parse(SCORES))
    assert Evaluation(model, open_samples({"x": X[:64]}, model.inputs), "mine_of_metrics:count").original == 64


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("top1", "needs labels"),
        ("accuracy", f"there is no metric 'accuracy'; there are {', '.join(QUALITY_METRICS)}"),
        ("nowhere_at_all:f", "there is no module 'nowhere_at_all': it must be in the working directory, or installed"),
        ("onnxprune.verify.metrics:QUALITY_METRICS", "is not a function"),
        ("onnxprune.verify.metrics:nothing", "has no nothing: write package.module:function"),
        ("onnxprune.verify.metrics:check_label", "has no check_label; did you mean 'check_labels'?"),
    ],
)
def test_bad_metrics(metric: str, message: str) -> None:
    model = Model.of(parse(SCORES))
    with pytest.raises(OptionError, match=re.escape(message)):
        Evaluation(model, open_samples({"x": X}, model.inputs), metric)


def test_images_have_no_classes() -> None:
    model = Model.of(parse(IMAGES))
    samples = open_samples({"x": np.ones((3, 4, 2, 2), np.float32)}, model.inputs)
    with pytest.raises(ModelError, match="the first output has 4 axes"):
        Evaluation(model, samples, "agreement")


@pytest.mark.parametrize(("text", "drop"), [("1%", 0.01), ("0.5%", 0.005), ("0.02", 0.02), ("0", 0)])
def test_drops(text: str, drop: float) -> None:
    assert parse_drop(text) == pytest.approx(drop)


@pytest.mark.parametrize("text", ["", "one", "-1%", "100%", "nan", "1.5"])
def test_what_is_no_drop(text: str) -> None:
    with pytest.raises(OptionError, match=r"as 1% or 0\.01"):
        parse_drop(text)


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (lambda y: np.where(np.arange(150) == 70, 3, y), "label 3 of sample 70 is no class of the model, which has 0 to 2"),
        (lambda y: np.where(np.arange(150) == 5, -1, y), "label -1 of sample 5 is no class"),
        (lambda y: y + 10**9, "is no class of the model"),
        (lambda y: y + 0.5, "of sample 0 is no class of the model"),
        (lambda y: np.eye(3)[y], "give the index of one class for each sample"),
    ],
)
def test_labels_must_be_classes(spoilt: Any, message: str) -> None:
    model = Model.of(parse(SCORES))
    labels = spoilt((X @ model.weights["w"].array()).argmax(1))
    with pytest.raises(OptionError, match=message):
        Evaluation(model, open_samples({"x": X, "label": labels}, model.inputs))


def test_an_original_that_guesses_is_noticed() -> None:
    model = Model.of(parse(SCORES))
    right = (X @ model.weights["w"].array()).argmax(1)
    samples = [open_samples({"x": X, "label": labels}, model.inputs) for labels in (right, right.astype(float), (right + 1) % 3)]
    notices = [Evaluation(model, one).of(model).notice for one in samples]
    assert notices[:2] == ["", ""]
    assert "the original's top1 of 0.0000 is no better than guessing" in notices[2]


def test_mse_is_a_share_of_the_variance() -> None:
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert QUALITY_METRICS["mse"]([x + 0.25], [x], None) == pytest.approx(0.75)
    assert QUALITY_METRICS["mse"]([x + 0.5, x], [x, x], None) == pytest.approx(0.5)


@pytest.mark.parametrize(("score", "guesses"), [(0.62, True), (0.63, False)])
def test_two_deviations_above_guessing_may_be_luck(score: float, guesses: bool) -> None:
    """One of two classes, 64 samples: 1/2 + 2 * sqrt(1/2 * 1/2 / 64) = 0.625."""
    assert bool(chance_notice(score, [np.zeros((64, 2))], 64, "labels.npz")) is guesses


@pytest.mark.parametrize("room", [1 << 26, 1000, 0])
def test_the_originals_outputs_are_kept_while_there_is_room(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 64, 64 and 22 rows of three floats: 768, 768 and 264 bytes."""
    monkeypatch.setattr(metrics, "spare", lambda *_: room)
    model = Model.of(parse(SCORES))
    evaluation = Evaluation(model, open_samples({"x": X}, model.inputs), "cosine")
    again: list[int] = []
    run = evaluation._session.run

    def counted(feeds: Any) -> list[Any]:
        again.append(len(feeds["x"]))
        return run(feeds)

    monkeypatch.setattr(evaluation._session, "run", counted)
    assert evaluation.of(turned(model)).pruned == pytest.approx(-1)
    assert sorted(again, reverse=True) == {1 << 26: [], 1000: [64, 22], 0: [64, 64, 22]}[room]  # batches run side by side


@pytest.mark.parametrize("metric", ["cosine", "mse"])
def test_entries_that_the_original_has_no_number_for(metric: str) -> None:
    x, other = np.array([[1.0, np.nan, 3.0], [0.0, 0.0, 0.0]]), np.array([[np.nan, 1.0, 3.0], [0.0, 0.0, 0.0]])
    assert QUALITY_METRICS[metric]([x], [x], None) == pytest.approx(1), "zeros are as they were, too"
    found = QUALITY_METRICS[metric]([other], [x], None)
    assert isinstance(found, float)
    assert found <= 0.5, "a sample that lost a number is all wrong"


@pytest.mark.parametrize(
    ("metric", "shape", "axes"),
    [
        ("agreement", (2, 3, 4), "classes"),
        ("position_agreement", (2, 3), "positions, classes"),
        ("ctc_agreement", (2, 3), "steps, classes"),
        ("ctc_agreement", (2, 3, 4, 5), "steps, classes"),
        ("detections", (2, 3), "numbers, anchors"),
    ],
)
def test_outputs_that_a_metric_is_not_for_are_refused(metric: str, shape: tuple[int, ...], axes: str) -> None:
    with pytest.raises(ModelError, match=rf"has {len(shape)} axes, not \[samples, {axes}\]: use --metric cosine"):
        QUALITY_METRICS[metric]([np.zeros(shape)], [np.zeros(shape)], None)
