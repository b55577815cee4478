"""Nodes with sparse kernels: their names, and the height of blocks in a matrix."""

from __future__ import annotations

import re

import numpy as np
import pytest

from onnxprune.kernels.build import SOURCES
from onnxprune.sparse.kernel_nodes import FUSIONS, HEIGHTS, block_height


def test_names_and_inputs_are_those_of_the_library() -> None:
    text = (SOURCES / "library.c").read_text()
    rows = re.findall(r"F\((\w+), (\w+), (\d), (\w+), (\d)\)", text)
    known = {name: (kind, bool(int(adds)), bound, int(inputs)) for name, kind, adds, bound, inputs in rows}
    assert known == {
        name: (one.operator.upper(), one.adds, one.bound.upper() or "PLAIN", len(one.inputs)) for name, one in FUSIONS.items()
    }


def test_costs_are_those_of_the_library() -> None:
    text = (SOURCES / "pack.c").read_text()
    table = text[text.index("HEIGHTS[] = ") :].partition(";")[0]
    assert {int(height): float(cost) for height, cost in re.findall(r"\{(\d+), ([\d.]+)\}", table)} == HEIGHTS


@pytest.mark.parametrize("height", HEIGHTS)
@pytest.mark.parametrize("rows", [32, 37])
def test_blocks_are_found(height: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    kept = rng.random((-(-rows // height), 200)) < 0.2
    matrix = np.repeat(kept, height, axis=0)[:rows] * (0.1 + rng.random((rows, 200)))
    found, stored = block_height(matrix)
    assert found == height
    assert stored == pytest.approx((matrix != 0).mean())


def test_a_matrix_of_zeros_and_one_row() -> None:
    assert block_height(np.zeros((8, 8)))[1] == 0
    assert block_height(np.ones((1, 8))) == (1, 1.0)
