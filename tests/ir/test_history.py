from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxprune import (
    QuantRecipe,
    Recipe,
    SparseRecipe,
    Training,
    apply,
    decode,
    encode,
    make_plan,
    prune,
    quantize,
    sparsify,
)
from onnxprune.ir.history import history
from onnxprune.ir.unchanged import digest_of
from onnxprune.options.version import version

MODEL = Path(__file__).parents[2] / "models" / "digits.onnx"
IMAGES = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
SMALL = Recipe(target="macs=0.6", verify=False)


def finetuned() -> ModelProto:
    pytest.importorskip("torch", reason="needs PyTorch")
    from onnxprune import finetune

    return finetune(MODEL, (IMAGES, np.arange(40) % 10), Training(epochs=1, steps=1, batch=4)).model


COMMANDS: dict[str, Any] = {
    "prune": lambda: prune(MODEL, SMALL, agreement=False).model,
    "apply": lambda: apply(MODEL, make_plan(MODEL, SMALL)[0], verify=False).to_proto(),
    "sparsify": lambda: sparsify(MODEL, "sparsity=0.5", agreement=False).model,
    "quantize": lambda: quantize(MODEL, QuantRecipe(rounding="nearest"), samples=IMAGES, agreement=False).model,
    "encode": lambda: encode(MODEL).model,
    "decode": lambda: decode(MODEL).model,
    "finetune": finetuned,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_did(command: str) -> None:
    made = COMMANDS[command]()
    (step,) = history(made)
    assert (step.command, step.version, step.source) == (command.replace("apply", "prune"), version(), digest_of(MODEL))
    assert step.producer == " ".join(filter(None, (onnx.load(MODEL).producer_name, onnx.load(MODEL).producer_version)))
    assert (made.producer_name, made.producer_version) == ("onnxprune", version())
    assert bool(step.plan) == (command in {"prune", "apply"})


def test_steps_follow_each_other(tmp_path: Path) -> None:
    first, second = tmp_path / "sparse.onnx", tmp_path / "stored.onnx"
    recipe = SparseRecipe(target="sparsity=0.5", calib="", pattern="unstructured")
    sparsify(MODEL, recipe, agreement=False).save(first)
    encode(first).save(second)
    steps = history(decode(second).model)
    assert [step.command for step in steps] == ["sparsify", "encode", "decode"]
    assert [step.source for step in steps] == [digest_of(path) for path in (MODEL, first, second)]
    assert [bool(step.producer) for step in steps] == [True, False, False]
    assert steps[0].options == {"target": "sparsity=0.5"}


def test_a_plan_leaves_the_same_trace_whoever_carries_it_out() -> None:
    result = prune(MODEL, SMALL, agreement=False)
    applied = apply(MODEL, result.plan, verify=False).to_proto()
    assert applied.SerializeToString() == result.model.SerializeToString()
    assert history(applied)[0].plan == result.plan.digest
    masked = apply(MODEL, result.plan, masked=True, verify=False).to_proto()
    assert (history(masked)[0].command, history(masked)[0].options) == ("apply", {"masked": True})
    unknown = apply(MODEL, dataclasses.replace(result.plan, recipe=""), verify=False).to_proto()
    assert (history(unknown)[0].command, history(unknown)[0].options) == ("apply", {})
    assert prune(MODEL, "macs=0.7", agreement=False).plan.digest != result.plan.digest


def test_other_metadata_stays_and_folders_are_not_told(tmp_path: Path) -> None:
    proto = onnx.load(MODEL)
    proto.metadata_props.add(key="author", value="somebody")
    np.savez(tmp_path / "calib.npz", image=IMAGES)
    options = Recipe(target="macs=0.6", verify=False, calib=str(tmp_path / "calib.npz"))
    made = prune(proto, options, agreement=False).model
    assert [entry.value for entry in made.metadata_props if entry.key == "author"] == ["somebody"]
    (step,) = history(made)
    assert step.options == {"calib": "calib.npz", "target": "macs=0.6"}
    assert step.source == ""
    assert str(tmp_path) not in str(made.metadata_props)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "3",
        "[1, null]",
        "[" * 100_000,
        '{"command": "x", "o": ' + "[" * 600 + "]" * 600 + "}",
        '{"a": 1}',
        "x" * 2_000_000,
    ],
)
def test_what_anyone_may_have_written(text: str) -> None:
    proto = ModelProto()
    for key, value in (("version", "1"), ("recipe", text), ("before", text)):
        proto.metadata_props.add(key=f"onnxprune.{key}", value=value)
    step = history(proto)[-1]
    assert (step.command, step.options, step.version) == ("", {"a": 1} if text == '{"a": 1}' else {}, "1")
    json.dumps(step.to_dict())


def test_a_file_of_others_has_none() -> None:
    assert history(onnx.load(MODEL)) == ()
