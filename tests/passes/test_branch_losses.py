"""What branches cost."""

from __future__ import annotations

import pytest

from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import analyze
from onnxprune.linear.layers import linear_readers
from onnxprune.passes import BranchLosses
from onnxprune.pruning.branches import find_branches
from residual_nets import X, residual


def test_what_the_layer_in_front_can_do_costs_nothing() -> None:
    original = analyze(residual()).float32
    layers = {reader.node.index for reader in linear_readers(original.model, original.coupling)}
    branches = find_branches(original.model, original.shapes, layers)
    assert [branch.total for branch in branches] == ["first", "little", "much"]
    told: list[str] = []
    calibration = original.calibration(open_samples({"x": X}, original.model.inputs))
    lost = BranchLosses().run(original, branches, calibration, told.append)
    assert lost.keys() == {(0,), (1,), (2,), (0, 1), (1, 2)}
    assert lost[0,] == pytest.approx(0, abs=1e-4)
    assert 0 < lost[1,] < 0.5 * lost[2,]
    assert min(lost.values()) == lost[0,]
    assert told == [f"measuring what each branch costs ({count} of 5)" for count in range(1, 6)]


def test_a_quick_look_fits_the_layer_in_front_alone() -> None:
    original = analyze(residual()).float32
    layers = {reader.node.index for reader in linear_readers(original.model, original.coupling)}
    branches = find_branches(original.model, original.shapes, layers)
    calibration = original.calibration(open_samples({"x": X}, original.model.inputs))
    told: list[str] = []
    lost = BranchLosses(thorough=False).run(original, branches, calibration, told.append)
    assert lost.keys() == {(0,), (1,), (2,)}
    assert lost[0,] == pytest.approx(0, abs=1e-4)
    assert lost[2,] > BranchLosses().run(original, branches, calibration)[2,]
    assert told == [
        *(f"making up for branches ({count} of 3)" for count in range(1, 4)),
        *(f"measuring what each branch costs ({count} of 3)" for count in range(1, 4)),
    ]
