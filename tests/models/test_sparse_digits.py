"""What sparsity costs a network that was really trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import digits
from onnxprune import SparseRecipe, sparsify

MODELS = Path(__file__).resolve().parent.parent.parent / "models"


def accuracy(recipe: SparseRecipe, export: str = "digits") -> float:
    data = digits.load()
    model = sparsify(MODELS / f"{export}.onnx", recipe, samples={"image": data.calib_x}, agreement=False).model
    return 100 * digits.accuracy(model.SerializeToString(), data.test_x, data.test_y)


@pytest.mark.parametrize("export", ["digits", "digits__bn"])
def test_four_of_five_weights_go_and_next_to_nothing_is_lost(export: str) -> None:
    """The original has 99.0 %."""
    assert accuracy(SparseRecipe(target="sparsity=0.8", allocation="uniform"), export) > 98
    assert accuracy(SparseRecipe(target="sparsity=0.8", allocation="uniform", method="magnitude", repair=False), export) < 50


def test_two_of_four_cost_nothing() -> None:
    assert accuracy(SparseRecipe(pattern="2:4")) > 98.5
