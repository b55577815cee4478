"""Groups in their bases: cheaper to cut, and the plan speaks of the same positions."""

from __future__ import annotations

import numpy as np
import pytest

from linear.test_layers import close, values
from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Facts, Normalize, Pipeline, Rotate, Score, Sensitivity, turned
from onnxprune.passes.base import need


def found(*, rotate: bool) -> tuple[Model, Facts]:
    """The curves of an attention, its widths in their bases or not."""
    model, facts = Pipeline([Normalize(), Couple()]).run(Model.of(parse(NETS["attention"])))
    x = np.random.default_rng(0).standard_normal((48, 5, 8)).astype(np.float32)
    facts.calibration = Calibration.of(open_samples({"x": x}, model.inputs), need(facts.shapes, "shapes"))
    return Pipeline([Score("obs"), *([Rotate()] if rotate else []), Sensitivity()]).run(model, facts)


def test_bases_make_widths_cheaper() -> None:
    plain, rotated = (need(found(rotate=rotate)[1].curves, "curves") for rotate in (False, True))
    for width in ("wqkv:1.1", "wqkv:1.2"):
        assert rotated[width].error[2] < 0.8 * plain[width].error[2]
    heads = plain["wqkv:1.0"].error / np.maximum(rotated["wqkv:1.0"].error, 1e-30)
    assert heads[1:] == pytest.approx(1, rel=0.01)


def test_a_plan_turns_the_groups_that_it_cuts_alone() -> None:
    model, facts = found(rotate=True)
    same, facts = turned(model, Facts(bases=facts.bases, plan=Plan({"wqkv:1.0": np.array([0, 1])})))
    assert same is facts.original is model
    other, facts = turned(model, Facts(bases=found(rotate=True)[1].bases, plan=Plan({"wqkv:1.2": np.array([1, 3])})))
    assert facts.original is other
    assert not np.allclose(other.weights["wo"].array(), model.weights["wo"].array())
    np.testing.assert_array_equal(other.weights["wqkv"].array()[:, :24], model.weights["wqkv"].array()[:, :24])
    close(values(other, ["y"])["y"], values(model, ["y"])["y"])
