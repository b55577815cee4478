"""Names of dimensions that are arithmetic."""

from __future__ import annotations

import pytest

from onnxprune.shapes.formulas import formula

SIZES = {"past": 16, "s0": 7, "h": 33}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("past + 1", 17), ("past + s0", 23), ("2*s0 - 1", 13), ("floor(h/2)", 16), ("(h - 1)//2 + 1", 17), ("Max(s0, 9)", 9)],
)
def test_arithmetic(name: str, expected: int) -> None:
    found = formula(name, SIZES)
    assert found is not None
    assert found(SIZES) == expected


@pytest.mark.parametrize(
    "name", ["past", "batch size", "x.1", "1", "unk__12", "other + 1", "past.real", "past**9", "print(past)", ""]
)
def test_what_is_none(name: str) -> None:
    assert formula(name, SIZES) is None


def test_nothing_comes_to_nothing() -> None:
    found = formula("past // (s0 - 7)", SIZES)
    assert found is not None
    assert found(SIZES) == 0
