"""What a sweep runs over: from the command line and from a file; what was given wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.engines import EngineOptions
from onnxprune.options.sweep import PickRecipe, SweepRecipe, is_remote

FILE = """
models = ["models/*.onnx", "other.onnx"]
output = "sweep"
calib = "data/{stem}.npz"
eval = "my.module:samples"
target = ["macs=0.9:0.2:8", "latency=0.8"]
retries = 3
workers = 3
no-latency = true

[option]
criterion = ["obs", "flap"]
align = 1
"""


def of(path: Path, **given: object) -> tuple[SweepRecipe, EngineOptions, object]:
    recipe = SweepRecipe(models=(path,), **given)  # type: ignore[arg-type]
    return SweepRecipe.given(recipe, EngineOptions())


def test_a_file_says_all_with_paths_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(FILE)
    recipe, engine, table = of(path)
    assert recipe == SweepRecipe(
        models=(tmp_path / "models/*.onnx", tmp_path / "other.onnx"),
        store=str(tmp_path / "sweep"),
        calib=str(tmp_path / "data/{stem}.npz"),
        eval="my.module:samples",
        target=("macs=0.9:0.2:8", "latency=0.8"),
        retries=3,
        latency=False,
    )
    assert engine == EngineOptions(workers=3)
    assert table == {"criterion": ["obs", "flap"], "align": 1}


def test_tables_of_devices_lie_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    for text, files in (('"a.db"', ["a.db"]), ('["a.db", "b.db"]', ["a.db", "b.db"])):
        path.write_text(f'models = "a.onnx"\n[option]\ndevice_table = {text}\n')
        assert of(path)[2] == {"device_table": [str(tmp_path / file) for file in files]}


def test_what_was_given_wins(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(FILE)
    recipe, _, _ = of(path, store="s3://bucket/x", target=("params=0.5",), retries=0)
    assert (recipe.store, recipe.target, recipe.retries) == ("s3://bucket/x", ("params=0.5",), 0)
    assert recipe.calib == str(tmp_path / "data/{stem}.npz")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models = 3", "models = 3 is not a list of texts"),
        ('model = ["a"]', "there is no option 'model'; did you mean 'models'"),
        ('models = ["a"]\nengine = "dusk"', "there is no engine 'dusk'"),
        ('models = ["a"]\nretries = -1', "--retries -1"),
        ('models = ["a"]\nstep = "train"', "there is no step that makes a model 'train'"),
        ("models = [", "not TOML"),
        ("", "no models"),
        ('models = ["a"]\nsearch = 5\nlatency = false', "a search for --min latency needs times"),
    ],
)
def test_mistakes_are_told_with_the_file(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=words):
        of(path)


def test_places() -> None:
    assert is_remote("s3://bucket/a")
    assert is_remote("memory://a")
    assert not is_remote("file:///tmp/a")
    assert not is_remote("C:\\sweep")
    assert not is_remote("sweep/")


def test_what_is_picked_makes_sense() -> None:
    PickRecipe(max_drop="1%", min_score="0.9", least="size")
    for given in ({"max_drop": "2"}, {"min_score": "x"}, {"min_agreement": "101%"}, {"least": "cost"}):
        with pytest.raises(OptionError):
            PickRecipe(**given)
    with pytest.raises(OptionError, match=r"^--min 'cost': write one of latency, size, macs, params$"):  # as it is typed
        PickRecipe(least="cost")
