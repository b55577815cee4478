"""The phases that are expected are those that drivers go through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from command import net
from onnxprune import Recipe, SparseRecipe, prune, sparsify
from onnxprune.cli import phases
from onnxprune.driver.apply import carry_out
from onnxprune.driver.progress import Phase

DATA = {"x": np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)}


def told(run: Any, *given: Any, **options: Any) -> list[str]:
    names: list[str] = []

    def tell(text: str) -> None:
        if isinstance(text, Phase) and text.name not in names:
            names.append(text.name)

    run(*given, progress=tell, **options)
    return names


@pytest.mark.parametrize("calib", [False, True])
@pytest.mark.parametrize("changes", [{}, {"verify": False}, {"repair": False}, {"target": "channels=0.5"}, {"lossless": True}])
def test_prune(calib: bool, changes: dict[str, Any]) -> None:
    asked = {"target": "macs=0.7", "align": "1", **changes}
    expected = phases.pruning(Recipe(**asked, calib="c.npz" if calib else ""), timed=False)
    assert [*told(prune, net(), Recipe(**asked), samples=DATA if calib else None), phases.WRITING] == list(expected)


def test_apply() -> None:
    plan = prune(net(), Recipe(target="macs=0.7", align="1")).plan
    assert [*told(carry_out, net(), plan), phases.WRITING] == list(phases.applying(Recipe(), masked=False))


@pytest.mark.parametrize("calib", [False, True])
def test_sparsify(calib: bool) -> None:
    recipe = SparseRecipe(ends=True)
    found = told(sparsify, net(), recipe, samples=DATA if calib else None)
    expected = phases.sparsifying(SparseRecipe(ends=True, calib="c.npz" if calib else ""))
    at = [expected.index(name) for name in found if name in expected]
    assert at == sorted(at)
    assert {"analysis", "verification", "agreement"} <= set(found)
