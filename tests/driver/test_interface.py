"""What a file is said to be; and the lines that make samples for it run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command import net
from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.interface import interface, snippet
from onnxprune.ir.model import Model


def inputs(*values: Any) -> onnx.ModelProto:
    """A model with inputs of these names, types and shapes, which returns them."""
    given = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in values]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in values]
    results = [helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in values]
    return helper.make_model(
        helper.make_graph(nodes, "g", given, results), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )


MODELS = {
    "image": net(),
    "static": net(batch=3),
    "tokens": inputs(("input_ids", TensorProto.INT64, ["n", "t"]), ("attention mask.1", TensorProto.INT64, ["n", "t"])),
    "half": inputs(("x/0", TensorProto.FLOAT16, [None, 4])),
    "scalar": inputs(("x", TensorProto.FLOAT, ["n", 4]), ("scale", TensorProto.FLOAT, [])),
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_lines_make_samples_that_the_model_takes(name: str, tmp_path: Path) -> None:
    model = Model.of(MODELS[name])
    lines = snippet(model, {})
    assert len(lines) == 3
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, check=True)
    samples = open_samples(str(tmp_path / "calib.npz"), model.inputs)
    assert samples.count is not None
    assert samples.count >= 250
    assert set(np.load(tmp_path / "calib.npz")) == {value.name for value in model.inputs}


def test_inputs_without_a_rank_have_no_lines() -> None:
    assert snippet(Model.of(inputs(("x", TensorProto.FLOAT, None))), {}) == []


def test_the_file_is_described(tmp_path: Path) -> None:
    made = net()
    made.producer_name, made.producer_version = "pytorch", "2.6"
    onnx.save(made, tmp_path / "n.onnx")
    found = interface(Model.of(tmp_path / "n.onnx"), {})
    assert (found["producer"], found["opset"], found["ir_version"]) == ("pytorch 2.6", 18, 10)
    assert found["bytes"] == (tmp_path / "n.onnx").stat().st_size
    assert found["inputs"] == [{"name": "x", "type": "float", "shape": ["N", 3, 8, 8]}]
    assert found["outputs"] == [{"name": "y", "type": "float", "shape": ["N", 8, 8, 8]}]


def test_samples_have_the_sizes_that_the_model_takes() -> None:
    model = Model.of(inputs(("audio", TensorProto.FLOAT, ["n", "samples"]), ("lengths", TensorProto.INT64, ["m"])))
    made = snippet(model, {"audio": (2, 512), "lengths": (7,)})[1]
    assert "rng.random([256, 512])" in made
    assert "rng.integers(0, 2, [256])" in made


def test_ids_are_drawn_over_the_table_that_they_look_up() -> None:
    text = "(int64[N,T] ids, int64[N,T] mask) => (float[N,T,4] y) <float[50,4] table> { y = Gather(table, ids) }"
    made = snippet(Model.of(parse(text)), {})[1]
    assert "'ids': rng.integers(0, 50, [256, 64])" in made
    assert "'mask': rng.integers(0, 2, [256, 64])" in made
