from __future__ import annotations

import json
from pathlib import Path

import onnx

from command import Cli
from onnxprune import encode, sparsify

MODEL = Path(__file__).parents[2] / "models" / "digits.onnx"


def test_the_commands_that_made_a_file(call: Cli, tmp_path: Path) -> None:
    first, second = tmp_path / "sparse.onnx", tmp_path / "stored.onnx"
    sparsify(MODEL, "sparsity=0.5", agreement=False).save(first)
    encode(first).save(second)
    told = call("log", second)
    assert told.status == 0
    rows = [line.split() for line in told.out.splitlines()]
    assert ["sparsify", "target=sparsity=0.5"] in [row[1:3] for row in rows]
    assert "encode" in [row[1] for row in rows if len(row) > 1]
    assert "made by pytorch" in told.out
    steps = json.loads(call("log", second, "--json").out)["steps"]
    assert [step["command"] for step in steps] == ["sparsify", "encode"]


def test_a_file_of_others(call: Cli) -> None:
    told = call("log", MODEL)
    assert (told.status, told.out) == (0, f"{MODEL}: nothing in the file says how it was made; onnxprune did not write it\n")


def test_a_step_as_deep_as_nobody_writes(call: Cli, tmp_path: Path) -> None:
    proto = onnx.load(MODEL)
    for key, value in (("version", "1"), ("recipe", '{"o": ' + "[" * 600 + "]" * 600 + "}")):
        proto.metadata_props.add(key=f"onnxprune.{key}", value=value)
    onnx.save(proto, tmp_path / "deep.onnx")
    assert call("log", tmp_path / "deep.onnx", "--json").json()["steps"][0]["options"] == {}


def test_signs_in_a_file_do_not_reach_the_terminal(call: Cli, tmp_path: Path) -> None:
    proto = onnx.load(MODEL)
    recipe = json.dumps({"command": "\x1b[31mred", "option": "\x07"})
    for key, value in (("version", "\x1b[2J"), ("recipe", recipe)):
        proto.metadata_props.add(key=f"onnxprune.{key}", value=value)
    onnx.save(proto, tmp_path / "hostile.onnx")
    told = call("log", tmp_path / "hostile.onnx")
    assert told.status == 0
    assert not {"\x1b", "\x07"} & set(told.out)
