"""A step: the loss that it returns, and the weights that its optimizer changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from onnxprune import ModelError, RequirementError
from onnxprune.data.batching import Batch
from onnxprune.options.train import Training
from onnxprune.torch import to_module
from onnxprune.training.devices import find_devices
from onnxprune.training.phase import Phase
from onnxprune.training.step import TrainingStep, make_optimizer
from trainable import perceptron

RNG = np.random.default_rng(0)
BATCH = Batch({"x": RNG.normal(size=(8, 6)).astype(np.float32)}, RNG.integers(3, size=8), 8)
OPTIONS = Training(loss="cross_entropy", lr=0.1, weight_decay=0.5, optimizer="sgd", momentum=0)


def test_a_step_goes_down_along_the_gradient() -> None:
    module = to_module(perceptron(4))
    step = TrainingStep(module, OPTIONS, find_devices("cpu"), None)
    student, optimizer = step.student(), make_optimizer(module, OPTIONS, {})
    outputs, labels = module(torch.from_numpy(BATCH.feeds["x"])), torch.as_tensor(BATCH.labels)
    loss = torch.nn.functional.cross_entropy(outputs, labels)
    weight, bias = (module.value_of(name) for name in ("u", "a"))
    slopes = torch.autograd.grad(loss, (weight, bias))
    before = weight.detach().clone(), bias.detach().clone()
    assert step(student, optimizer, BATCH, Phase("fit", 1)) == pytest.approx(float(loss.detach()))
    torch.testing.assert_close(weight.detach(), before[0] - 0.1 * (slopes[0] + 0.5 * before[0]))
    torch.testing.assert_close(bias.detach(), before[1] - 0.1 * slopes[1])  # biases do not decay


def test_groups_have_a_rate_of_their_own() -> None:
    module = to_module(perceptron(4))
    parts = make_optimizer(module, OPTIONS, {"w": 3.0}).param_groups
    found = [(len(part["params"]), part["peak"], part["weight_decay"]) for part in parts]
    assert found == [(2, 0.1, 0.5), (2, 0.1, 0.0), (1, 3.0, 0.0)]
    module.requires_grad_(requires_grad=False)
    with pytest.raises(RequirementError, match="the module has no weight to train"):
        make_optimizer(module, OPTIONS, {})


def test_rates_follow_the_sizes_of_weights() -> None:
    module = to_module(perceptron(4))
    with torch.no_grad():
        module.value_of("u").fill_(3.0)[0] = 0.0  # zeros do not count
        module.value_of("v").zero_()
        module.value_of("a").fill_(2.0)
        module.value_of("b").zero_()
    names = {id(parameter): name for name, parameter in module.weights().items()}
    parts = make_optimizer(module, Training(weight_decay=0.5), {"w": 3.0}, 0.01).param_groups
    found = {names[id(part["params"][0])]: (part["peak"], part["weight_decay"]) for part in parts}
    expected = {"u": (0.03, 0.5), "v": (0.0001, 0.5), "a": (0.02, 0.0), "b": (0.001, 0.0), "w": (3.0, 0.0)}
    assert {name: pytest.approx(pair) for name, pair in expected.items()} == found


def test_a_loss_that_is_no_number_is_an_error() -> None:
    module = to_module(perceptron(4))
    step, phase = (
        TrainingStep(module, OPTIONS, find_devices("cpu"), None),
        Phase("fit", 1, penalty=lambda: torch.tensor(math.nan)),
    )
    with pytest.raises(RequirementError, match="the loss is nan in fit: make --lr smaller"):
        step(step.student(), make_optimizer(module, OPTIONS, {}), BATCH, phase)


def test_a_loss_that_no_weight_changes_is_the_models_fault() -> None:
    model = perceptron(4)
    model.graph.node.add(op_type="Identity", input=["x"], output=["through"])
    model.graph.output[0].name = "through"
    module = to_module(model)
    step = TrainingStep(module, OPTIONS, find_devices("cpu"), None)
    with pytest.raises(ModelError, match="no output that the loss reads depends on a weight"):
        step(step.student(), make_optimizer(module, OPTIONS, {}), BATCH, Phase("fit", 1))
