"""Options of `optimize`."""

from __future__ import annotations

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.optimize import OptimizeRecipe, seconds
from onnxprune.options.targets import Target


@pytest.mark.parametrize(("text", "expected"), [("10m", 600), ("90s", 90), ("1.5h", 5400), ("45", 45), (" 2 m ", 120)])
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-1m", "0", "10 d", "1e3"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(OptionError, match="write how long to search, as 10m, 90s or 1h"):
        OptimizeRecipe(time=text)


def test_without_a_target_one_percent_may_be_lost() -> None:
    recipe = OptimizeRecipe()
    assert recipe.max_drop == "1%"
    assert not recipe.targeted
    assert OptimizeRecipe.from_dict(recipe.to_dict() | {"target": ""}) == recipe


@pytest.mark.parametrize(("text", "by_size"), [("latency=0.25", False), ("size=0.2", True), ("latency=1", False)])
def test_targets(text: str, by_size: bool) -> None:
    recipe = OptimizeRecipe(target=text)
    assert recipe.target == Target.parse(text)
    assert recipe.targeted
    assert not recipe.max_drop
    assert recipe.by_size is by_size


def test_a_target_and_a_drop_contradict_each_other() -> None:
    with pytest.raises(OptionError, match=r"--target size=0\.2 wants the most accurate model, --max-drop 1% the fastest"):
        OptimizeRecipe(target="size=0.2", max_drop="1%")


@pytest.mark.parametrize(
    ("text", "message"), [("macs=0.5", "write latency=0.25 or size=0.2; other targets are prune's"), ("fast", "write one of")]
)
def test_targets_of_others(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        OptimizeRecipe(target=text)
