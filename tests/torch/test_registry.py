"""Functions of operators are found by domain, name and version."""

from __future__ import annotations

import pytest

import onnxprune.torch.ops  # noqa: F401 - registers every operator
from onnxprune.torch.registry import find_operator, op


def test_versions_choose_the_function() -> None:
    old, new = find_operator("", "Softmax", 12), find_operator("", "Softmax", 13)
    assert old is not None
    assert new is not None
    assert old.function is not new.function
    assert find_operator("", "GroupNormalization", 17) is None
    assert find_operator("somebody.else", "Softmax", 13) is None


def test_two_functions_for_one_version_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ai.onnx::Softmax has a function already in versions 12 to 12"):
        op("Softmax", since=12, until=12)(find_operator)
