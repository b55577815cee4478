"""Stages that compilations share: results are those of one alone, byte by byte, also from files; wrong files do no harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.driver.packing import pack, unpack
from onnxprune.driver.prune import prune
from onnxprune.driver.shared import SharedStages, stage_name
from onnxprune.options.prune import Recipe
from onnxprune.passes import Normalize, Observe, Sensitivity

RNG = np.random.default_rng(0)
SAMPLES = {
    "chain": {"x": RNG.standard_normal((32, 3, 8, 8)).astype(np.float32)},
    "attention": {"x": RNG.standard_normal((32, 6, 8)).astype(np.float32)},
}
RECIPES = [
    Recipe(target, align="1", criterion=criterion, seed=seed)
    for target, criterion, seed in (
        ("macs=0.7", "obs", 0),
        ("macs=0.5", "obs", 0),
        ("params=0.6", "flap", 0),
        ("macs=0.7", "obs", 1),
    )
]


class Shelf(dict[str, bytes]):
    def put(self, name: str, content: bytes) -> None:
        self[name] = content


def made(name: str, recipe: Recipe, shared: SharedStages | None = None) -> bytes:
    result = prune(parse(NETS[name]), recipe, samples=SAMPLES[name], shared=shared)
    return bytes(result.model.SerializeToString(deterministic=True))


def unable(*_: object, **__: object) -> None:
    pytest.fail("worked out again")


@pytest.mark.parametrize("name", SAMPLES)
def test_results_are_those_of_a_compilation_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [made(name, recipe) for recipe in RECIPES]
    shelf = Shelf()
    shared = SharedStages(shelf)
    assert [made(name, recipe, shared) for recipe in RECIPES] == alone
    assert sorted(file.partition("-")[0] for file in shelf) == ["curves"] * 3 + ["scores"] * 3 + ["statistics"] * 2
    with monkeypatch.context() as patch:
        patch.setattr(Observe, "run", unable)
        patch.setattr(Sensitivity, "run", unable)
        assert [made(name, recipe, SharedStages(shelf)) for recipe in RECIPES] == alone  # as in another process
        patch.setattr(Normalize, "run", unable)
        assert made(name, RECIPES[0], shared) == alone[0]


Damage = Callable[[bytes], bytes]


def changed(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damaged(content: bytes) -> bytes:
        arrays = unpack(content)
        assert arrays
        return pack({name: change(array) for name, array in arrays.items()})

    return damaged


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda _: b"",
        lambda _: b"\x80\x04N.",  # a pickle
        lambda content: content.replace(b"wqkv", b"wxyz"),
        lambda _: pack({}),
        changed(lambda array: array[..., :-1]),
        changed(lambda array: np.full_like(array, -1) if array.dtype == np.float32 else array),
        changed(lambda array: array * np.nan if array.dtype.kind == "f" else array),
        changed(lambda array: array.astype(np.float16)),
    ],
)
def test_what_does_not_fit_is_worked_out_again(damage: Damage) -> None:
    recipe, shelf = RECIPES[0], Shelf()
    first = made("attention", recipe, SharedStages(shelf))
    whole = Shelf(shelf)
    for name in shelf:
        shelf[name] = damage(shelf[name])
    assert made("attention", recipe, SharedStages(shelf)) == first
    assert shelf == whole


def test_names_differ_where_a_stage_does() -> None:
    recipe = Recipe()
    other = replace(recipe, criterion="l1")
    assert stage_name("statistics", recipe) == stage_name("statistics", replace(other, target="params=0.2"))
    assert stage_name("scores", recipe) != stage_name("scores", other)
    assert stage_name("groups", recipe) != stage_name("groups", replace(recipe, protect=("a",)))
    assert stage_name("groups", recipe) == stage_name("groups", replace(recipe, seed=3))
    assert stage_name("statistics", recipe) != stage_name("statistics", replace(recipe, seed=3))
