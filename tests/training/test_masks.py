"""Masks hold against every optimizer, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onnxprune.ir.model import Model
from onnxprune.torch import to_module, write_back
from onnxprune.torch.module import GraphModule
from onnxprune.training import masks
from trainable import filled

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, weight_decay=0.1),
}


def small() -> GraphModule:
    return to_module(
        filled("(float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }", w=(6, 5), v=(5, 4))
    )


def train(module: GraphModule, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    for step in range(steps):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (module(x) - 1).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_revives_what_is_pruned(name: str) -> None:
    module = small()
    optimizer = OPTIMIZERS[name](list(module.parameters()))
    train(module, optimizer)  # momentum is there before the masks are
    keep = {key: torch.rand(w.shape, generator=torch.Generator().manual_seed(1)) > 0.5 for key, w in module.weights().items()}
    masks.apply_masks(module, keep)
    optimizer = OPTIMIZERS[name](list(module.parameters()))
    before = {key: w.detach().clone() for key, w in module.weights().items()}
    train(module, optimizer)
    for key, weight in module.weights().items():
        assert torch.equal(weight != 0, keep[key])
        assert not torch.equal(weight, before[key])
        assert not torch.signbit(weight[~keep[key]]).any()


def test_momentum_from_before_a_mask_does_not_pass_it() -> None:
    module = small()
    masks.apply_masks(module, {"w": torch.ones(6, 5, dtype=torch.bool)})
    optimizer = OPTIMIZERS["sgd"](list(module.parameters()))
    train(module, optimizer)
    keep = torch.arange(30).reshape(6, 5) % 2 == 0
    masks.apply_masks(module, {"w": keep})  # tighter, the same optimizer
    train(module, optimizer)
    assert torch.equal(module.value_of("w") != 0, keep)


def test_not_a_number_behind_a_mask_is_zero() -> None:
    module = small()
    with torch.no_grad():
        module.value_of("w")[0, 0] = torch.nan
    keep = torch.ones(6, 5, dtype=torch.bool)
    keep[0, 0] = False
    masks.apply_masks(module, {"w": keep})
    assert module.value_of("w")[0, 0] == 0


def test_strip_leaves_masked_values_and_nothing_else() -> None:
    plain = Model.of(DIGITS)
    module = to_module(plain)
    names = {name for name, _ in module.named_parameters()}
    keep = {name: w.detach().abs() > w.detach().abs().median() for name, w in module.weights().items() if w.dim() > 1}
    masks.apply_masks(module, keep)
    assert {name for name, _ in module.named_parameters()} != names
    assert masks.masks_of(module).keys() == keep.keys()
    masks.remove_masks(module)
    assert masks.masks_of(module) == {}
    assert {name for name, _ in module.named_parameters()} == names
    assert not dict(module.named_buffers()).keys() - dict(to_module(plain).named_buffers()).keys()
    back = write_back(module, plain)
    assert back.proto == plain.proto
    assert list(back.weights) == list(plain.weights)
    for name, weight in back.weights.items():
        old = plain.weights[name].array()
        wanted = np.where(keep[name].numpy(), old, 0) if name in keep else old
        assert wanted.tobytes() == weight.array().tobytes()


def test_zeros_that_come_in_are_masks() -> None:
    module = small()
    with torch.no_grad():
        module.value_of("w")[:3] = 0
    found = masks.masks_of_zeros(module)
    assert found.keys() == {"w"}
    assert masks.sparsity(found) == 0.5
    assert masks.masks_of_zeros(module, share=0.6) == {}


def test_scores_get_the_gradient_of_the_weight_times_the_weight() -> None:
    module = small()
    keep = torch.arange(30).reshape(6, 5) % 2 == 0
    masks.apply_masks(module, {"w": keep})
    scored = masks.add_scored_masks(module, {"w": torch.zeros(6, 5)})["w"]
    weight = masks.parameter_of(module, "w")
    module(torch.ones(2, 6)).sum().backward()
    assert torch.equal(scored.keep, keep)
    assert weight.grad is not None
    assert scored.scores.grad is not None
    assert torch.equal(weight.grad != 0, keep & (weight.grad != 0))
    whole = small()
    with torch.no_grad():
        whole.value_of("w")[~keep] = 0
    whole(torch.ones(2, 6)).sum().backward()
    dense = whole.value_of("w").grad
    assert dense is not None
    assert torch.allclose(scored.scores.grad, dense * weight)
    masks.remove_masks(module)
    assert torch.equal(module.value_of("w") != 0, keep)
    assert {name for name, _ in module.named_parameters()} == {"w", "v"}
