"""What each group costs, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Normalize, Observe, PruneChannels, ScoreChannels, Sensitivity
from onnxprune.passes.analysis import Analysis
from onnxprune.passes.observe import Observed
from onnxprune.passes.sensitivity import FEW_WIDTHS, WIDTHS
from onnxprune.pruning.criteria import Scores
from onnxprune.pruning.knapsack import Curve
from onnxprune.runtime.session import Session
from onnxprune.verify.divergence import divergence

IMAGES = {name: NETS[name] for name in ("chain", "residual", "depthwise", "concat_split", "gate")}


@dataclass(frozen=True)
class Measured:
    """A model, what samples show of it, and what its groups cost."""

    analysis: Analysis
    observed: Observed
    scores: dict[str, Scores]
    curves: dict[str, Curve]


def measured(text: str, *, repair: bool = True) -> Measured:
    analysis = Couple().run(Normalize().run(Model.of(parse(text))))
    shape = [dim.dim_value for dim in analysis.model.inputs[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal((48, *shape[1:])).astype(np.float32)
    calibration = analysis.calibration(open_samples({"x": x}, analysis.model.inputs))
    observed = Observe(bases=False).run(analysis, calibration)
    scores = ScoreChannels("obs").run(analysis, observed)
    return Measured(analysis, observed, scores, Sensitivity(repair).run(analysis, scores, observed))


@pytest.mark.parametrize("name", IMAGES)
def test_curves_ascend_from_nothing(name: str) -> None:
    found = measured(IMAGES[name])
    for group in found.analysis.coupling.groups:
        curve = found.curves[group.id]
        assert len(curve.error) == group.size + 1
        assert curve.error[0] == 0
        assert (np.diff(curve.error) > 0).all()
        assert sorted(curve.order) == list(range(group.size))
        assert (np.diff(found.scores[group.id][curve.order]) >= 0).all()
        assert all(0 < width < group.size for width in curve.measured)
        for width, error in curve.measured.items():
            assert curve.error[group.size - width] >= error - 1e-9


def test_what_is_measured_without_repair_is_what_cutting_costs() -> None:
    found = measured(NETS["residual"], repair=False)
    held = found.observed.calibration.held
    for group in found.analysis.coupling.groups:
        curve = found.curves[group.id]
        for width, error in curve.measured.items():
            cut = PruneChannels().run(found.analysis, Plan({group.id: curve.keep(width)}))
            small, large = Session(cut), Session(found.analysis.model)
            assert np.mean([divergence(small.run(feed), large.run(feed)) for feed in held]) == pytest.approx(error, rel=1e-3)


def test_sizes_that_are_spelled_before_a_group_change_with_it() -> None:
    """The first state of a GRU is made of the batch and a number of hidden units, which goes with them."""
    found = measured(
        """(float[N,5,4] x) => (float[N,3] y) <float[1,24,4] w, float[1,24,8] r, float[8,3] v,
           int64[1] one = {1}, int64[1] hidden = {8}, int64[1] none = {0}> {
          s = Shape<start = 0, end = 1>(x) c = Concat<axis = 0>(one, s, hidden) h = ConstantOfShape(c)
          t = Transpose<perm = [1, 0, 2]>(x) o, l = GRU<hidden_size = 8>(t, w, r, , , h) q = Squeeze(l, none) y = MatMul(q, v)
        }""",
        repair=False,
    )
    group = next(group for group in found.analysis.coupling.groups if group.size == 8)
    for width, error in found.curves[group.id].measured.items():
        cut = Session(PruneChannels().run(found.analysis, Plan({group.id: found.curves[group.id].keep(width)})))
        large, held = Session(found.analysis.model), found.observed.calibration.held
        assert np.mean([divergence(cut.run(feed), large.run(feed)) for feed in held]) == pytest.approx(error, rel=1e-3)


def test_repair_makes_groups_cheaper() -> None:
    plain, repaired = (measured(NETS["residual"], repair=repair).curves for repair in (False, True))
    costs = [sum(sum(curve.measured.values()) for curve in found.values()) for found in (plain, repaired)]
    assert costs[1] < 0.8 * costs[0]


@pytest.mark.parametrize(
    ("work", "passes", "held", "shares"),
    [(1e11, 0.0, 2, WIDTHS), (1.0, 1000.0, 2, WIDTHS), (1.0, 1.0, 2, FEW_WIDTHS), (1.0, 0.1, 1, FEW_WIDTHS)],
)
def test_large_models_are_measured_on_fewer_batches_and_at_fewer_widths(
    monkeypatch: pytest.MonkeyPatch, work: float, passes: float, held: int, shares: Sequence[float]
) -> None:
    found = measured(NETS["chain"])
    batches: list[int] = []

    def meter(_original: Model, held: Sequence[object], _stages: object) -> Fixed:
        batches.append(len(held))
        return Fixed()

    monkeypatch.setattr("onnxprune.passes.sensitivity._WORK", work)
    monkeypatch.setattr("onnxprune.passes.sensitivity._PASSES", passes)
    monkeypatch.setattr("onnxprune.passes.sensitivity.SuffixDivergence", meter)
    curves = Sensitivity().run(found.analysis, found.scores, found.observed)
    assert batches == [held]
    for group in found.analysis.coupling.groups:
        assert set(curves[group.id].measured) == {round(share * group.size) for share in shares}


class Fixed:
    """A meter without a model."""

    def __init__(self, *errors: float) -> None:
        self.errors = cycle(errors or [1.0])

    def measure(self, changed: Model, start: int) -> float:
        return next(self.errors)


def test_a_curve_never_falls_and_goes_on_where_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(NETS["chain"])
    monkeypatch.setattr("onnxprune.passes.sensitivity.SuffixDivergence", lambda *_: Fixed(0.3, 0.1, 0.2, 0.5))
    curve = Sensitivity().run(found.analysis, found.scores, found.observed)["w1:0"]
    assert list(curve.measured) == [6, 5, 3, 2]
    assert curve.error[[2, 3, 5, 6]] == pytest.approx([0.3, 0.3, 0.3, 0.5], abs=1e-6)
    assert 0 < curve.error[1] < 0.1, "what the readers lose gives the shape: the first to go matters least"
    assert curve.error[7] > 0.51
    assert (np.diff(curve.error) > 0).all()


def test_known_curves_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(NETS["chain"])
    monkeypatch.delattr(Sensitivity, "_curve")
    assert Sensitivity().run(found.analysis, found.scores, found.observed, found.curves) == found.curves
