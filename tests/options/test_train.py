"""Options of training: values that make sense, and the schedule of the learning rate."""

from __future__ import annotations

from typing import Any

import pytest

from onnxprune import OptionError
from onnxprune.options.train import Training


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"optimizer": "lion"}, "--optimizer 'lion': write one of adamw"),
        ({"schedule": "x"}, "--schedule 'x'"),
        ({"precision": "int8"}, "--precision 'int8'"),
        ({"epochs": 0}, "--epochs 0: write 1 or more"),
        ({"batch": -1}, "--batch -1"),
        ({"lr": -0.1}, "--lr -0.1"),
        ({"weight_decay": float("nan")}, "--weight-decay nan"),
        ({"temperature": 0}, "--temperature 0"),
        ({"warmup": 1}, "--warmup 1"),
    ],
)
def test_senseless_values_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Training(**values)


def test_the_loss_follows_from_what_there_is() -> None:
    assert Training().settled(teacher=True, labelled=True).loss == "distill"
    assert Training().settled(teacher=False, labelled=True).loss == "cross_entropy"
    with pytest.raises(OptionError, match="--teacher ORIGINAL for distillation"):
        Training().settled(teacher=False, labelled=False)
    with pytest.raises(OptionError, match="add --teacher ORIGINAL"):
        Training(loss="distill+mse").settled(teacher=False, labelled=True)
    with pytest.raises(OptionError, match="--match compares"):
        Training(match=("a",)).settled(teacher=False, labelled=True)


def test_schedules() -> None:
    cosine = Training(warmup=0.1)
    assert cosine.factor(0) == 0
    assert cosine.factor(0.05) == pytest.approx(0.5)
    assert cosine.factor(0.1) == pytest.approx(1)
    assert cosine.factor(0.55) == pytest.approx(0.5)
    assert cosine.factor(1) == pytest.approx(0)
    step = Training(warmup=0, schedule="step")
    assert [step.factor(at) for at in (0, 0.49, 0.5, 0.75, 1)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert Training(warmup=0, schedule="constant").factor(0.9) == 1


def test_rates_suit_the_optimizer() -> None:
    assert Training().rate == 1e-3
    assert Training(optimizer="sgd").rate == 1e-2
    assert Training(optimizer="sgd", lr=0.5).rate == 0.5


def test_sgd_has_a_bound_at_its_own_rate() -> None:
    assert Training(optimizer="sgd").bound == 1
    assert Training(optimizer="sgd", clip=5).bound == Training(clip=5).bound == 5
    assert Training(optimizer="sgd", lr=0.01).bound == Training().bound == 0


def test_steps_follow_sizes_unless_a_rate_is_given() -> None:
    assert Training().share == Training(optimizer="adam").share == 0.01
    assert Training(lr=1e-3).share == Training(optimizer="sgd").share == Training(optimizer="rmsprop").share == 0


@pytest.mark.parametrize(
    ("loss", "asked"), [("distill", False), ("0.9*distill+0.1*cross_entropy", True), ("cross_entropy", True), ("mse", True)]
)
def test_a_loss_may_ask_labels(loss: str, asked: bool) -> None:
    assert Training(loss=loss).by_labels is asked
