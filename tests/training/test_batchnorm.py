"""Normalisations that are there for the training alone: they change nothing at first, and nothing is left of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from onnxprune.ir.model import Model
from onnxprune.torch import to_module, write_back
from onnxprune.torch.module import GraphModule
from onnxprune.training import masks
from onnxprune.training.batchnorm import RestoredNorm, fold_norms, initialize_norms, restore_norms, update_batchnorm
from trainable import filled

MODELS = Path(__file__).resolve().parents[2] / "models"


PLAIN = Model.of(filled(
    """(float[N,4,6,6] x) => (float[N,6,9,9] y)
    { a = Conv <group = 2> (x, u, p) r = Relu(a) b = ConvTranspose <group = 3> (r, v, q) s = Relu(b) y = Conv(s, w, o) }""",
    u=(6, 2, 1, 1), p=(6,), v=(6, 3, 5, 5), q=(9,), w=(6, 9, 2, 2), o=(6,),
))  # fmt: skip


def batches(count: int = 3) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [{"x": torch.randn(8, 4, 6, 6, generator=generator)} for _ in range(count)]


def unfolded() -> tuple[GraphModule, tuple[RestoredNorm, ...]]:
    form, norms = restore_norms(PLAIN)
    module = to_module(form)
    initialize_norms(module, norms, batches())
    return module, norms


def test_they_change_nothing_at_first() -> None:
    module, norms = unfolded()
    assert [norm.weight for norm in norms] == ["u", "v"]  # not behind what the model puts out
    x = batches(1)[0]["x"]
    with torch.no_grad():
        torch.testing.assert_close(module(x), to_module(PLAIN)(x), rtol=1e-4, atol=1e-4)
    assert PLAIN.proto == Model.of(PLAIN).proto


def test_values_keep_their_names() -> None:
    module, _ = unfolded()
    x = batches(1)[0]
    with torch.no_grad():
        for name in ("a", "b"):
            plain = to_module(PLAIN).compute(x, (name,))[name]
            torch.testing.assert_close(module.compute(x, (name,))[name], plain, rtol=1e-4, atol=1e-4)


def test_what_was_learnt_is_folded_into_the_weights() -> None:
    module, norms = unfolded()
    masks.apply_masks(module, {"v": torch.arange(450).reshape(6, 3, 5, 5) % 2 > 0})
    with torch.no_grad():
        for norm in norms:
            for name in (norm.scale, norm.shift, norm.mean):
                module.value_of(name).add_(torch.randn(module.value_of(name).shape))
    update_batchnorm(module, batches())
    x = batches(1)[0]["x"]
    with torch.no_grad():
        before = module(x)
    masks.remove_masks(module)
    fold_norms(module, norms)
    leave = frozenset(name for norm in norms for name in norm.constants)
    back = write_back(module, PLAIN, exclude=leave)
    assert back.proto == PLAIN.proto
    assert list(back.weights) == list(PLAIN.weights)
    zeros = back.weights["v"].array().reshape(-1)[::2]
    assert not zeros.any()
    assert not np.signbit(zeros).any()
    with torch.no_grad():
        torch.testing.assert_close(to_module(back)(x), before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(module(x), before, rtol=1e-4, atol=1e-4)


def test_statistics_are_those_that_training_meets() -> None:
    module, norms = unfolded()
    with torch.no_grad():
        module.value_of("u").mul_(7)
        update_batchnorm(module, batches())
        raw = torch.cat([module.compute(one, ("a__raw",))["a__raw"] for one in batches()])
    mean, var = (module.value_of(name) for name in (norms[0].mean, norms[0].var))
    torch.testing.assert_close(mean, raw.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(var, raw.var((0, 2, 3), unbiased=False), rtol=1e-4, atol=1e-4)
    assert not module.training


@pytest.mark.parametrize(
    ("body", "shapes"),
    [
        ("a = Conv(x, u) y = Relu(a)", {"u": (3, 2, 1, 1)}),  # no bias that could take the shift
        ("a = Conv(x, u, p) b = Conv(x, v, p) y = Add(a, b)", {"u": (3, 2, 1, 1), "v": (3, 2, 1, 1), "p": (3,)}),
        ("a = Conv(x, u, p) b = Conv(x, u, q) y = Add(a, b)", {"u": (3, 2, 1, 1), "p": (3,), "q": (3,)}),
        ("y = Conv(x, u, p)", {"u": (3, 2, 1, 1), "p": (3,)}),
    ],
)
def test_what_cannot_be_folded_again_is_left_alone(body: str, shapes: dict[str, tuple[int, ...]]) -> None:
    plain = Model.of(filled(f"(float[N,2,4,4] x) => (float[N,3,4,4] y) {{ {body} }}", **shapes))
    assert restore_norms(plain)[1] == ()


def test_what_is_normalised_stays_so() -> None:
    kept = {norm.weight for norm in restore_norms(Model.of(MODELS / "digits__bn.onnx"))[1]}
    added = {norm.weight for norm in restore_norms(Model.of(MODELS / "digits.onnx"))[1]}
    assert kept < added
    assert "stem.0.weight" in added - kept
