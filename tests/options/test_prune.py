"""Recipes: what is accepted, what is refused, and that TOML holds all of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Align, Target

OTHER = Recipe(
    "latency=0.25",
    "l1",
    "uniform",
    "8",
    ("head*", "stem.0"),
    ("mlp",),
    allow_inexact=True,
    verify=False,
    seed=7,
    calib="photos",
    preprocess="imagenet",
    repair=False,
    max_drop="1%",
    eval="others",
    metric="top1",
    lossless=True,
    layers=("stem.*=0.5", "*=1"),
    require_proof=True,
    shape=("height=224",),
    min_score="90%",
    min_agreement="95%",
    device_table="device.db",
    engine="dask",
    workers=3,
    scheduler="tcp://host:8786",
)


def toml(recipe: Recipe) -> str:
    """JSON spells strings, booleans, numbers and lists as TOML does."""
    return "[prune]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in recipe.to_dict().items())


@pytest.mark.parametrize("recipe", [Recipe(), OTHER])
def test_toml_holds_every_field(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(toml(recipe))
    assert Recipe.load(path) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_the_other_recipe_differs_in_every_field() -> None:
    assert all(getattr(OTHER, field.name) != getattr(Recipe(), field.name) for field in dataclasses.fields(Recipe))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"only": ["layers"]}, "no kind of group 'layers'; there are channels, heads, mlp, residual"),
        ({"only": ["residual"]}, "add --allow-inexact"),
        ({"foo": 1}, "there is no option 'foo'; there are target, criterion"),
        ({"target": 0.5}, "target '0.5': write one of"),
        ({"target": True}, "target = True is not a text"),
        ({"target": "macs"}, "target 'macs'"),
        ({"criterion": "l3"}, "no criterion 'l3'"),
        ({"scope": "here"}, "no scope 'here'"),
        ({"align": True}, "align = True is not a text"),
        ({"align": 16.0}, "align '16.0'"),
        ({"protect": 3}, "protect = 3 is not a list of texts"),
        ({"protect": [1]}, r"protect = \[1\] is not a list of texts"),
        ({"verify": 1}, "verify = 1 is not true or false"),
        ({"seed": True}, "seed = True is not a whole number"),
        ({"seed": 1.5}, "seed = 1.5 is not a whole number"),
        ({"seed": -1}, "--seed -1: write 0 or more"),
        ({"lossless": 1}, "lossless = 1 is not true or false"),
    ],
)
def test_a_field_without_sense_is_refused(tmp_path: Path, data: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Recipe.from_dict(data)
    path = tmp_path / "recipe.toml"
    path.write_text("[prune]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in data.items()))
    with pytest.raises(OptionError, match=rf"recipe\.toml: .*{words}"):
        Recipe.load(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"target = 'macs=0.5'", r"no table \[prune\]"),
        (b"[prun]\ntarget = 'macs=0.5'", r"no table \[prune\]"),
        (b"prune = 3", r"no table \[prune\]"),
        (b"", r"no table \[prune\]"),
        (b"[prune", "not TOML"),
        (b"\xff\xfe", "not TOML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=rf"recipe\.toml: .*{words}"):
        Recipe.load(path)


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "cannot be read"), (tmp_path / "absent.toml", "no such file")):
        with pytest.raises(OptionError, match=words):
            Recipe.load(path)


def test_integers_align(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[prune]\nalign = 8\n")
    assert Recipe.load(path).align == Align(8)


def test_targets_are_read_once() -> None:
    assert Recipe("params=0.25").target == Target("params", 0.25)
    assert Recipe(target=Target("macs", 0.1234567)).to_dict()["target"] == "macs=0.1234567"
    assert dataclasses.replace(Recipe(), target="macs=0.3").target == Target("macs", 0.3)
    assert (Recipe().target, Recipe(lossless=True).target) == (Target("macs", 0.5), Target("channels", 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().target = Target("macs", 1)  # type: ignore[misc]


def test_a_number_is_read_as_its_text_is() -> None:
    assert Recipe(align=16).align == Recipe(align="16").align == Align(16)
    with pytest.raises(OptionError, match="align '0': write auto, 1 or a number of channels"):
        Recipe(align=0)


def test_layers_have_a_share_that_remains() -> None:
    assert Recipe(layers=("*conv1*=0.5", "a=b=1")).own == (("*conv1*", 0.5), ("a=b", 1.0))


@pytest.mark.parametrize("text", ["conv1", "=0.5", "conv1=", "conv1=0", "conv1=1.5", "conv1=half", "conv1=nan"])
def test_layers_that_have_no_sense(text: str) -> None:
    with pytest.raises(OptionError, match="write GLOB=FRACTION"):
        Recipe(layers=(text,))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": 2}, "add --engine local, dask or ray"),
        ({"scheduler": "tcp://host:8786"}, "add --engine local, dask or ray"),
        ({"engine": "local", "scheduler": "tcp://host:8786"}, "add --engine dask or --engine ray"),
    ],
)
def test_an_engine_is_named_where_something_is_said_of_it(given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Recipe(**given)


def test_an_engine_needs_samples_to_share_out() -> None:
    assert Recipe().engines is None
    recipe = Recipe(engine="ray", workers=2)
    assert recipe.engines is not None
    assert (recipe.engines.engine, recipe.engines.workers) == ("ray", 2)
    assert recipe.settled(data=True).engine == "ray"
    with pytest.raises(OptionError, match="--engine ray: shares out the work on samples: add --calib DATA"):
        recipe.settled(data=False)
