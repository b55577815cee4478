"""Rules are known by their operator."""

from __future__ import annotations

import pytest

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import axes, rule
from onnxprune.ir.node import NodeView


def test_an_operator_has_one_rule() -> None:
    def again(node: NodeView) -> AxisRule:
        return axes("a -> a")

    with pytest.raises(ValueError, match=r"ai\.onnx::Relu has a rule already: onnxprune\.axes\.rules"):
        rule("Relu")(again)
