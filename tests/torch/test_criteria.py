"""Importance by gradients, against formulas worked out by hand and against the losses they predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.torch import GraphModule, criteria, to_module
from reference import feeds_of
from trainable import graph

DIGITS = Path(__file__).resolve().parents[2] / "models"
LINEAR = """(float[N,2] x) => (float[N,1] y)
    <float[2,2] a = {1, -2, 3, 0.5}, float[2,1] b = {2, -1}> { h = MatMul(x, a) y = MatMul(h, b) }"""
X = torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
LABELS = torch.tensor([[3.0], [-2.0]])


def squared(outputs: dict[str, torch.Tensor], batch: criteria.BatchDict) -> torch.Tensor:
    residual: torch.Tensor = outputs["y"] - batch["label"]
    return residual.square().mean()


def linear() -> tuple[GraphModule, list[criteria.BatchDict]]:
    return to_module(graph(LINEAR)), [{"x": X, "label": LABELS}]


def by_hand() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weights, and their gradients: with residual r, b's is 2/n (xA)'r, A's is 2/n x'(r b')."""
    a, b = torch.tensor([[1.0, -2], [3, 0.5]]), torch.tensor([[2.0], [-1]])
    residual = X @ a @ b - LABELS
    return a, b, X.T @ (residual @ b.T), (X @ a).T @ residual


def test_taylor_fisher_and_snip_by_hand() -> None:
    module, batches = linear()
    a, b, ga, gb = by_hand()
    taylor = criteria.taylor(module, batches, squared)
    torch.testing.assert_close(taylor["a"], (a * ga).abs())
    torch.testing.assert_close(taylor["b"], (b * gb).abs())
    torch.testing.assert_close(criteria.fisher(module, batches, squared)["a"], (a * ga).square() / 2)
    snip = criteria.snip(module, batches, squared)
    total = (a * ga).abs().sum() + (b * gb).abs().sum()
    torch.testing.assert_close(snip["b"], (b * gb).abs() / total)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_mean_over_batches_is_of_scores_or_of_gradients() -> None:
    """Contributions of two batches that cancel matter to taylor, and not to snip."""
    module, _ = linear()
    with torch.no_grad():
        y = module(X)
    batches = [{"x": X, "label": y + 1}, {"x": X, "label": y - 1}]
    assert all(bool((score > 0).any()) for score in criteria.taylor(module, batches, squared).values())
    mean = list(criteria.snip(module, [*batches, {"x": X, "label": y + 0.5}], squared).values())
    only = list(criteria.snip(module, [{"x": X, "label": y + 0.5}], squared).values())
    for one, other in zip(mean, only, strict=True):
        torch.testing.assert_close(one, other)


def test_grasp_is_the_slope_of_the_squared_gradient() -> None:
    """``w * H g`` is half of ``w`` times the derivative of ``|g|^2``, by finite differences in float64."""
    module, batches = linear()
    module.double()
    wide = [{name: value.double() for name, value in batch.items()} for batch in batches]
    scores = criteria.grasp(module, wide, squared)

    def flow(name: str, at: tuple[int, int], step: float) -> float:
        with torch.no_grad():
            module.value_of(name)[at] += step
        _, slopes = next(criteria.gradients(module, wide, squared))
        with torch.no_grad():
            module.value_of(name)[at] -= step
        return float(sum(slope.square().sum() for slope in slopes.values()))

    for name, at in (("a", (0, 1)), ("b", (1, 0))):
        slope = (flow(name, at, 1e-5) - flow(name, at, -1e-5)) / 2e-5
        assert float(scores[name][at]) == pytest.approx(float(module.value_of(name).detach()[at]) * slope / 2, rel=1e-6)


def test_synflow_conserves_flow() -> None:
    """Every layer carries the whole of R; and by hand for two layers."""
    module, batches = linear()
    scores = criteria.synflow(module, batches[0])
    a, b, _, _ = by_hand()
    ones = torch.ones(2, 2, dtype=torch.float64)
    total = (ones @ a.double().abs() @ b.double().abs()).sum()
    torch.testing.assert_close(scores["a"].sum(), total)
    torch.testing.assert_close(scores["b"].sum(), total)
    torch.testing.assert_close(scores["a"], a.double().abs() * (ones.T @ ones[:, :1] @ b.double().abs().T))
    assert module.value_of("a").dtype == torch.float32


def test_synflow_of_a_convolutional_network_is_finite_and_positive() -> None:
    path = DIGITS / "digits__bn.onnx"
    module = to_module(path)
    scores = criteria.synflow(module, feeds_of(Model.of(path), 1))
    assert all(bool(torch.isfinite(score).all()) for score in scores.values())
    gate = {name for name in scores if ".body.2.reduce" in name or ".body.2.expand" in name}  # its sigmoid saturates
    assert all(float(score.sum()) > 0 for name, score in scores.items() if name.endswith(".weight") and name not in gate)


def test_movement_adds_up_steps() -> None:
    module, batches = linear()
    movement, expected = criteria.Movement(module), torch.zeros(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        squared(module.compute({"x": X}), batches[0]).backward()
        weight = module.value_of("a")
        assert weight.grad is not None
        expected -= weight.detach() * weight.grad
        movement.update()
        optimizer.step()
    torch.testing.assert_close(movement.scores["a"], expected)


def test_scores_are_of_weights_as_they_act() -> None:
    class Mask(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.tensor([[1.0, 0], [1, 1]])

    module, batches = linear()
    torch.nn.utils.parametrize.register_parametrization(*module.holder_of("a"), Mask())
    assert float(criteria.taylor(module, batches, squared)["a"][0, 1]) == 0


@pytest.mark.parametrize("name", ["digits", "digits__bn"])
def test_positions_predict_the_loss_without_a_channel(name: str) -> None:
    """The first order is what the loss changes by when a channel is scaled down a little, for every group; on one batch."""
    found = analyze(DIGITS / f"{name}.onnx")
    model, coupling = found.model, found.coupling
    module = to_module(model)
    feeds = feeds_of(model, 4)
    (output,) = module.outputs

    def loss(outputs: dict[str, torch.Tensor], batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs[output], torch.arange(4))

    scores = criteria.channel_scores(module, model, coupling, [feeds], loss)
    assert set(scores) == {group.id for group in coupling.groups}
    (weights, slopes), *_ = criteria.gradients(module, [feeds], loss)
    for group in coupling.groups:
        assert scores[group.id].shape == (group.size,)
        expected = np.zeros(group.size)
        for member in group.members:
            if member.value in weights and member.alone:
                part = (weights[member.value].detach() * slopes[member.value]).double()
                expected += part.movedim(member.axis, 0).reshape(group.size, -1).sum(1).numpy() ** 2
        if all(member.alone for member in group.members):
            np.testing.assert_allclose(scores[group.id], expected, rtol=1e-4, atol=1e-12)


def test_sampled_labels_have_a_gradient_and_a_seed() -> None:
    module = to_module(DIGITS / "digits.onnx")
    feeds = feeds_of(Model.of(DIGITS / "digits.onnx"), 8)
    runs = [criteria.fisher(module, [feeds], criteria.sampled_loss(seed)) for seed in (0, 0, 1)]
    name = "stem.0.weight"
    assert float(runs[0][name].sum()) > 0
    assert torch.equal(runs[0][name], runs[1][name])
    assert not torch.equal(runs[0][name], runs[2][name])


def test_sampled_loss_of_probabilities_and_of_numbers() -> None:
    loss, logits = criteria.sampled_loss(), torch.tensor([[50.0, 0.0, 0.0]], requires_grad=True)
    assert float(loss({"y": logits.detach()}, {})) == pytest.approx(0, abs=1e-6)
    assert float(loss({"y": logits.detach().softmax(1)}, {})) == pytest.approx(0, abs=1e-6)
    numbers = torch.randn(3, 4, 5, requires_grad=True)
    loss({"y": numbers}, {}).backward()
    assert numbers.grad is not None
    assert float(numbers.grad.abs().sum()) > 0
