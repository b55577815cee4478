"""Groups in their bases: cheaper to cut, and the plan speaks of the same positions."""

from __future__ import annotations

import numpy as np
import pytest

from linear.test_layers import close, values
from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Normalize, Observe, Rotate, ScoreChannels, Sensitivity
from onnxprune.passes.analysis import Analysis
from onnxprune.passes.observe import Observed


def observed(*, bases: bool) -> tuple[Analysis, Observed]:
    """An attention, its widths in their bases or not."""
    analysis = Couple().run(Normalize().run(Model.of(parse(NETS["attention"]))))
    x = np.random.default_rng(0).standard_normal((48, 5, 8)).astype(np.float32)
    return analysis, Observe(bases).run(analysis, analysis.calibration(open_samples({"x": x}, analysis.model.inputs)))


def test_bases_make_widths_cheaper() -> None:
    curves = []
    for bases in (False, True):
        analysis, found = observed(bases=bases)
        curves.append(Sensitivity().run(analysis, ScoreChannels("obs").run(analysis, found), found))
    plain, rotated = curves
    for width in ("wqkv:1.1", "wqkv:1.2"):
        assert rotated[width].error[2] < 0.8 * plain[width].error[2]
    heads = plain["wqkv:1.0"].error / np.maximum(rotated["wqkv:1.0"].error, 1e-30)
    assert heads[1:] == pytest.approx(1, rel=0.01)


def test_a_plan_rotates_the_groups_that_it_cuts_alone() -> None:
    analysis, found = observed(bases=True)
    model = analysis.model
    assert Rotate().run(model, found.bases, Plan({"wqkv:1.0": np.array([0, 1])})) is model
    other = Rotate().run(model, found.bases, Plan({"wqkv:1.2": np.array([1, 3])}))
    assert not np.allclose(other.weights["wo"].array(), model.weights["wo"].array())
    np.testing.assert_array_equal(other.weights["wqkv"].array()[:, :24], model.weights["wqkv"].array()[:, :24])
    close(values(other, ["y"])["y"], values(model, ["y"])["y"])
