"""The committed models: trained digits, three exports of one network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import digits
from nets import check_law, some
from onnxprune import Recipe, analyze, prune

FOLDER = Path(digits.__file__).resolve().parent
MODELS = sorted(path.name for path in FOLDER.glob("*.onnx"))

RECIPES = [
    Recipe(target="macs=0.5", align="1"),
    Recipe(target="params=0.6", align="4", criterion="l1", scope="global"),
    Recipe(target="size=0.5", align="1", criterion="fpgm", scope="uniform"),
    Recipe(target="channels=0.5", align="8", criterion="random"),
    Recipe(target="macs=0.4", align="1", criterion="linf", scope="global"),
]


@pytest.fixture(scope="module")
def data() -> digits.Digits:
    return digits.load()


def test_there_are_three() -> None:
    assert MODELS == ["digits.onnx", "digits__bn.onnx", "digits__ts.onnx"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.target}-{recipe.criterion}-{recipe.scope}")
def test_pruned_is_masked(name: str, recipe: Recipe) -> None:
    result = prune(FOLDER / name, recipe)
    report = result.report
    assert report.verification is not None
    assert report.verification.ok
    assert report.verification.runs == 3  # a large batch, too
    assert not report.frozen
    assert report.obtained[recipe.target.metric] <= recipe.target.fraction + 1e-9
    onnx.checker.check_model(result.model, full_check=True)
    original = onnx.load(FOLDER / name)
    assert result.model.graph.input == original.graph.input
    assert result.model.graph.output == original.graph.output


@pytest.mark.parametrize("name", MODELS)
def test_each_group_alone(name: str) -> None:
    found = analyze(FOLDER / name)
    assert found.coupling.groups
    for seed, group in enumerate(found.coupling.groups):
        check_law(found, {group.id: some(group.size, seed)})


@pytest.mark.parametrize("name", MODELS)
def test_the_exports_differ_in_spelling_alone(name: str) -> None:
    """Whoever exported it, the same channels may go."""
    sizes = sorted(group.size for group in analyze(FOLDER / name).coupling.groups)
    assert sizes == sorted(group.size for group in analyze(FOLDER / MODELS[0]).coupling.groups)


@pytest.mark.parametrize("name", MODELS)
def test_accuracy_of_the_original(name: str, data: digits.Digits) -> None:
    assert digits.accuracy(FOLDER / name, data.test_x, data.test_y) >= 0.98


@pytest.mark.parametrize("name", MODELS)
def test_magnitudes_rank_better_than_noise(name: str, data: digits.Digits) -> None:
    def accuracy(criterion: str, seed: int) -> float:
        recipe = Recipe(target="macs=0.8", align="1", criterion=criterion, seed=seed)
        model = prune(FOLDER / name, recipe, agreement=False).model
        return digits.accuracy(model.SerializeToString(), data.test_x, data.test_y)

    assert accuracy("l2", 0) > np.mean([accuracy("random", seed) for seed in range(3)])


def test_bn_scale_ranks_the_export_that_kept_batch_normalisation() -> None:
    assert (
        prune(FOLDER / "digits__bn.onnx", Recipe(target="macs=0.5", align="1", criterion="bn_scale")).report.obtained["macs"]
        <= 0.5
    )
