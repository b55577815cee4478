"""Every command takes a folder of Hugging Face for a model, and writes one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from command import names, refused, within
from nets import parse
from onnxprune.ir.model import Model

MLP = """(float[N,8] x) => (float[N,4] y) <float[8,32] w, float[32] b, float[32,4] v> {
  a = MatMul(x, w) h = Add(a, b) r = Relu(h) y = MatMul(r, v)
}"""
WRITTEN = {"model.onnx", "config.json", "README.md"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    onnx.save(parse(MLP), tmp_path / "home" / "model.onnx")
    (tmp_path / "home" / "config.json").write_text('{"model_type": "mlp", "intermediate_size": 32}')
    np.savez(tmp_path / "calib.npz", x=np.random.default_rng(0).standard_normal((64, 8), np.float32))
    return tmp_path / "home"


@pytest.mark.parametrize(
    "words",
    [
        ["prune", "home", "--target", "channels=0.5", "--align", "1", "--no-benchmark"],
        ["prune", "home/model.onnx", "--target", "channels=0.5", "--no-benchmark", "--calib", "calib.npz"],
        ["sparsify", "home", "--sparsity", "0.9", "--ends"],
        ["quantize", "home", "--calib", "calib.npz"],
        ["encode", "home"],
        ["decode", "home"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_commands_write_folders(home: Path, words: list[str]) -> None:
    done = within(words[0], words[1], "-o", "out", *words[2:], "--json", cwd=home.parent)
    assert not done.status, done.err
    assert done.json()["output"] == "out/model.onnx"
    assert names(home.parent / "out") == WRITTEN
    text = (home.parent / "out" / "README.md").read_text()
    assert f"    onnxprune {words[0]} {words[1]} -o out" in text
    assert "| file | " in text or words[0] in {"encode", "decode", "quantize"}
    width = Model.of(home.parent / "out").weights["w"].shape[1] if words[0] == "prune" else 32
    assert json.loads((home.parent / "out" / "config.json").read_text())["intermediate_size"] == width


def test_a_plan_is_made_of_a_folder_and_applied_to_it(home: Path) -> None:
    made = within("plan", "home", "-o", "plan.json", "--target", "channels=0.5", "--align", "1", cwd=home.parent)
    assert not made.status, made.err
    done = within("apply", "home", "plan.json", "-o", "out", cwd=home.parent)
    assert not done.status, done.err
    assert names(home.parent / "out") == WRITTEN
    checked = within("verify", "home", "out", "--plan", "plan.json", cwd=home.parent)
    assert not checked.status, checked.err
    assert not within("inspect", "out", cwd=home.parent).status


def test_a_recipe_begins_and_ends_with_folders(home: Path) -> None:
    recipe = 'model = "home"\noutput = "out"\n[prune]\ntarget = "channels=0.5"\nalign = 1\n[encode]\n'
    (home.parent / "recipe.toml").write_text(recipe)
    done = within("run", "recipe.toml", cwd=home.parent)
    assert not done.status, done.err
    assert names(home.parent / "out") == WRITTEN
    assert json.loads((home.parent / "out" / "config.json").read_text())["intermediate_size"] == 16


def test_what_is_there_is_replaced_when_that_is_asked_for(home: Path) -> None:
    words = ("prune", "home", "-o", "out", "--target", "channels=0.5", "--no-benchmark")
    assert not within(*words, cwd=home.parent).status
    (home.parent / "out" / "mine.txt").write_text("mine")
    refused(within(*words, cwd=home.parent), 2, "exists already: pass --force to replace it")
    assert not within(*words, "--force", cwd=home.parent).status
    assert names(home.parent / "out") == WRITTEN | {"mine.txt"}


def test_a_gate_that_is_not_met_leaves_no_folder(home: Path) -> None:
    words = ("prune", "home", "-o", "out", "--target", "channels=0.1", "--calib", "calib.npz", "--min-agreement", "100%")
    assert within(*words, cwd=home.parent).status == 1
    assert names(home.parent) == {"home", "calib.npz"}


def test_of_several_models_one_is_named(home: Path) -> None:
    (home / "model.onnx").rename(home / "first.onnx")
    onnx.save(parse(MLP), home / "second.onnx")
    refused(within("prune", "home", "-o", "out", cwd=home.parent), 2, "home: has 2 models: name one of them: first.onnx")


def test_a_size_that_a_config_cannot_say_is_told(home: Path) -> None:
    onnx.save(parse(MLP), home / "other.onnx")
    done = within("prune", "home", "-o", "out", "--target", "channels=0.5", "--no-benchmark", cwd=home.parent)
    assert not done.status, done.err
    assert "onnxprune: warning: config.json: sizes are those of the original" in done.err
