"""Criteria by gradients, as pruning uses them: on calibration samples, with labels where these are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from onnxprune import OptionError
from onnxprune.data.calibration import LABELS, CalibrationFeeds
from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.options.registries import CRITERIA
from onnxprune.options.registry import TORCH
from onnxprune.torch import to_module
from onnxprune.torch.importance import channel_importance, weight_importance

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"
LABELLED = ("snip", "grasp", "movement")


def feeds(labels: np.ndarray | None = None) -> CalibrationFeeds:
    x = np.random.default_rng(0).random((16, 1, 8, 8), np.float32)
    samples = open_samples({"x": x} | ({} if labels is None else {"label": labels}), Model.of(DIGITS).inputs)
    return CalibrationFeeds(samples, 4)


CLASSES = np.random.default_rng(1).integers(10, size=16)


@pytest.mark.parametrize("criterion", CRITERIA.needing(TORCH))
def test_every_weight_and_every_channel_has_a_score(criterion: str) -> None:
    found = analyze(DIGITS)
    weights = weight_importance(found.model, criterion, feeds(CLASSES))
    shapes = {name: tuple(weight.shape) for name, weight in to_module(found.model).weights().items()}
    assert {name: score.shape for name, score in weights.items()} == shapes
    assert all(np.isfinite(score).all() for score in weights.values())
    assert sum(np.unique(score).size > 1 for score in weights.values()) > len(weights) / 2
    positions = channel_importance(found.model, found.coupling, criterion, feeds(CLASSES))
    assert {name: scores.shape for name, scores in positions.items()} == {g.id: (g.size,) for g in found.coupling.groups}


@pytest.mark.parametrize("criterion", CRITERIA.needing(TORCH))
def test_labels_matter_to_those_that_ask_for_them(criterion: str) -> None:
    one, other = (weight_importance(Model.of(DIGITS), criterion, feeds(labels)) for labels in (CLASSES, (CLASSES + 1) % 10))
    same = all(np.array_equal(one[name], other[name]) for name in one)
    assert same is (criterion not in LABELLED)


@pytest.mark.parametrize("criterion", LABELLED)
def test_without_labels_they_say_what_would_do(criterion: str) -> None:
    with pytest.raises(OptionError, match=f"{criterion} asks how a loss falls: give --calib DATA with labels.*taylor or fisher"):
        weight_importance(Model.of(DIGITS), criterion, feeds())


def test_movement_leaves_the_model_as_it_was() -> None:
    model = Model.of(DIGITS)
    before = model.to_proto()
    weight_importance(model, "movement", feeds(CLASSES))
    assert model.to_proto() == before


def test_labels_come_with_the_batch_that_they_belong_to() -> None:
    batches = [*feeds(CLASSES).labelled()]
    assert np.array_equal(np.concatenate([batch[LABELS] for batch in batches]), CLASSES)
    assert all(LABELS not in batch for batch in feeds(CLASSES))


def test_labels_of_padded_sequences_go_with_their_rows() -> None:
    text = "(int64[N,L] ids, int64[N,L] attention_mask) => (int64[N,L] y) { y = Mul(ids, attention_mask) }"
    model = Model.of(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {text}'))
    ids = np.arange(4)[:, None].repeat(32, 1)
    mask = np.arange(32)[None] < np.array([[4], [32], [5], [30]])
    samples = open_samples({"ids": ids, "attention_mask": mask.astype(np.int64), "label": np.arange(4)}, model.inputs)
    parts = [*CalibrationFeeds(samples, 4, open_length={"ids", "attention_mask"}).labelled()]
    assert len(parts) > 1
    assert all(np.array_equal(part["ids"][:, 0], part[LABELS]) for part in parts)
