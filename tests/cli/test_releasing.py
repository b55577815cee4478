"""`release` on the command line and in a recipe file."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto

from command import within
from nets import parse, with_defaults

NET = """(float[N,8] x) => (float[N,4] y) <float[8,16] w, float[16] b, float[16,4] v> {
  a = MatMul(x, w) h = Add(a, b) r = Relu(h) y = MatMul(r, v)
}"""


def inputs(model: ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]


def test_the_command_and_the_step(tmp_path: Path) -> None:
    onnx.save(with_defaults(parse(NET), "w", "b", "v"), tmp_path / "m.onnx")
    done = within("release", "m.onnx", "-o", "r.onnx", "--input", "b", "--require-proof", cwd=tmp_path)
    assert done.status == 0, done.err
    assert "1 input released: b" in done.out
    assert inputs(onnx.load(tmp_path / "r.onnx")) == ["x", "w", "v"]
    recipe = """model = "m.onnx"
output = "small.onnx"
[release]
[prune]
target = "channels=0.5"
align = "1"
"""
    (tmp_path / "r.toml").write_text(recipe)
    done = within("run", "r.toml", cwd=tmp_path)
    assert done.status == 0, done.err
    small = onnx.load(tmp_path / "small.onnx")
    assert inputs(small) == ["x"]
    assert {tensor.name: list(tensor.dims) for tensor in small.graph.initializer}["w"] == [8, 8]
