"""Inputs that have defaults become constants, and every command that left them whole then changes them."""

from __future__ import annotations

import pytest
from onnx import ModelProto

import onnxprune
from nets import parse, with_defaults
from onnxprune.errors import TargetError
from onnxprune.options.prune import Recipe
from onnxprune.options.release import ReleaseRecipe

HALF = Recipe(target="channels=0.5", align="1")
NET = """(float[N,8] x) => (float[N,4] y) <float[8,16] w, float[16] b, float[16,4] v> {
  a = MatMul(x, w) h = Add(a, b) r = Relu(h) y = MatMul(r, v)
}"""


def inputs(model: ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]


def test_what_was_left_whole_is_pruned() -> None:
    model = with_defaults(parse(NET), "w", "b", "v")
    with pytest.raises(TargetError, match="no group"):
        onnxprune.prune(model, HALF)
    remedies = {refusal.remedy for refusal in onnxprune.analyze(model).coupling.refusals}
    assert "if nobody overrides it, `onnxprune release` makes it a constant" in remedies
    released = onnxprune.release(model, ReleaseRecipe(require_proof=True))
    assert released.inputs == ("b", "v", "w")
    assert [one.verdict for one in released.verification.outputs] == ["proven"]
    assert inputs(released.model) == ["x"]
    assert inputs(model) == ["x", "w", "b", "v"]
    assert onnxprune.prune(released.model, HALF).report.obtained["channels"] == 0.5
