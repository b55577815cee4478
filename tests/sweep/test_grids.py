"""What a user writes, expanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import ModelError, OptionError
from onnxprune.options.prune import Recipe
from onnxprune.sweep.grids import axes_of, combined, models_of, named_for, targets_of


def test_models_are_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.onnx", "a.onnx", "one/model.onnx", "two/x.onnx", "two/y.onnx", "deep/er/c.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    named: list[str | Path] = [tmp_path / "b.onnx", tmp_path / "*.onnx", tmp_path / "one", f"{tmp_path}/deep/**/*.onnx"]
    names = ["b.onnx", "a.onnx", "one/model.onnx", "deep/er/c.onnx"]
    assert models_of(named) == [tmp_path / name for name in names]
    with pytest.raises(OptionError, match=r"\*\.tflite: fits no file"):
        models_of([tmp_path / "*.tflite"])
    with pytest.raises(OptionError, match=r"c\.onnx: there is no such file"):
        models_of([tmp_path / "c.onnx"])
    with pytest.raises(ModelError, match="has 2 models"):
        models_of([tmp_path / "two"])


def test_samples_are_named_after_the_model() -> None:
    assert named_for("data/{stem}.npz", Path("m/a.b.onnx")) == "data/a.b.npz"
    assert named_for("{folder}/{name}.npz", Path("m/a.onnx")) == "m/a.onnx.npz"
    assert named_for("pkg.mod:samples", Path("a.onnx")) == "pkg.mod:samples"
    with pytest.raises(OptionError, match=r"\{model\} stands for nothing: write \{stem\}"):
        named_for("data/{model}.npz", Path("a.onnx"))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["macs=0.5"], ["macs=0.5"]),
        (["macs=0.9:0.3:3", "latency=0.8,0.6"], ["macs=0.9", "macs=0.6", "macs=0.3", "latency=0.8", "latency=0.6"]),
        (["macs=0.9:0.2:8"], [f"macs=0.{n}" for n in range(9, 1, -1)]),
        (["macs=0.5:0.2:1"], ["macs=0.5"]),
        (["size=2MB, 0.3"], ["size=2MB", "size=0.3"]),
        (["auto", "macs=0.5", "macs=0.5"], ["auto", "macs=0.5"]),
    ],
)
def test_targets(texts: list[str], expected: list[str]) -> None:
    assert targets_of(texts) == expected


@pytest.mark.parametrize("text", ["macs=0.9:0.2", "macs=0.9:0.2:0", "macs=a:b:3", "macs=nan:0.2:3", "macs=0.9:0.2:8:1"])
def test_a_range_has_three_numbers(text: str) -> None:
    with pytest.raises(OptionError, match="a range is FIRST:LAST:COUNT"):
        targets_of([text])


def axes(*texts: str, **table: Any) -> dict[str, list[Any]]:
    return axes_of((Recipe,), ["macs=0.5,0.4"], texts, table)


def test_options_have_values_of_their_type() -> None:
    found = axes(
        "criterion=obs,flap", "seed=0,1", "repair=true,no", align=[1, "auto"], only=[["heads"], ["heads", "mlp"]], scope="global"
    )
    assert found == {
        "target": ["macs=0.5", "macs=0.4"],
        "align": [1, "auto"],
        "only": [["heads"], ["heads", "mlp"]],
        "scope": ["global"],
        "criterion": ["obs", "flap"],
        "seed": [0, 1],
        "repair": [True, False],
    }
    settings = list(combined(found))
    assert len(settings) == 2 * 2 * 2 * 2 * 2 * 2
    assert settings[0] == {name: values[0] for name, values in found.items()}
    assert settings[1]["repair"] is False
    assert list(combined({})) == [{}]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["criterio=obs"], "the step has no option 'criterio'; did you mean 'criterion'"),
        (["criterion"], "write an option with its values"),
        (["criterion="], "write an option with its values"),
        (["seed=x"], "'x' is not a number"),
        (["repair=maybe"], "'maybe' is not true or false"),
    ],
)
def test_mistakes(texts: list[str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        axes(*texts)


def test_far_too_many_are_a_slip() -> None:
    with pytest.raises(OptionError, match="1000000 combinations"):
        list(combined({"a": range(1000), "b": range(1000)}))
