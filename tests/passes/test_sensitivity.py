"""What each group costs, measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Facts, Normalize, Pipeline, PruneChannels, Score, Sensitivity
from onnxprune.passes.base import need
from onnxprune.runtime.session import Session
from onnxprune.verify.divergence import divergence

IMAGES = {name: NETS[name] for name in ("chain", "residual", "depthwise", "concat_split", "gate")}


def measured(text: str, *, repair: bool = True) -> tuple[Model, Facts]:
    model, facts = Pipeline([Normalize(), Couple()]).run(Model.of(parse(text)))
    shape = [dim.dim_value for dim in model.inputs[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal((48, *shape[1:])).astype(np.float32)
    facts.calibration = Calibration.of(open_samples({"x": x}, model.inputs), need(facts.shapes, "shapes"))
    return Pipeline([Score("obs"), Sensitivity(repair)]).run(model, facts)


@pytest.mark.parametrize("name", IMAGES)
def test_curves_ascend_from_nothing(name: str) -> None:
    _, facts = measured(IMAGES[name])
    curves = need(facts.curves, "curves")
    for group in need(facts.coupling, "coupling").groups:
        curve = curves[group.id]
        assert len(curve.error) == group.size + 1
        assert curve.error[0] == 0
        assert (np.diff(curve.error) > 0).all()
        assert sorted(curve.order) == list(range(group.size))
        assert all(0 < width < group.size for width in curve.measured)
        for width, error in curve.measured.items():
            assert curve.error[group.size - width] >= error - 1e-9


def test_what_is_measured_without_repair_is_what_cutting_costs() -> None:
    model, facts = measured(NETS["residual"], repair=False)
    coupling, held = need(facts.coupling, "coupling"), need(facts.calibration, "calibration").held
    for group in coupling.groups:
        curve = need(facts.curves, "curves")[group.id]
        for width, error in curve.measured.items():
            part = Facts(shapes=facts.shapes, coupling=coupling, plan=Plan({group.id: curve.keep(width)}))
            small, large = Session(PruneChannels().run(model, part)), Session(model)
            assert np.mean([divergence(small.run(feed), large.run(feed)) for feed in held]) == pytest.approx(error, rel=1e-3)


def test_repair_makes_groups_cheaper() -> None:
    plain, repaired = (need(measured(NETS["residual"], repair=repair)[1].curves, "curves") for repair in (False, True))
    costs = [sum(sum(curve.measured.values()) for curve in found.values()) for found in (plain, repaired)]
    assert costs[1] < 0.8 * costs[0]


def test_a_model_that_is_too_much_work_is_measured_on_fewer_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, facts = measured(NETS["chain"])
    assert len(need(facts.calibration, "calibration").held) > 1
    batches: list[int] = []

    def meter(_original: Model, held: Sequence[object], _stages: object) -> Fixed:
        batches.append(len(held))
        return Fixed()

    monkeypatch.setattr("onnxprune.passes.sensitivity._WORK", 1.0)
    monkeypatch.setattr("onnxprune.passes.sensitivity.Meter", meter)
    facts.curves = None
    Sensitivity().run(model, facts)
    assert batches == [1]


class Fixed:
    """A meter without a model."""

    def measure(self, changed: Model, start: int) -> float:
        return 1.0


def test_known_curves_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, facts = measured(NETS["chain"])
    before = dict(need(facts.curves, "curves"))
    monkeypatch.delattr(Sensitivity, "_curve")
    Sensitivity().run(model, facts)
    assert need(facts.curves, "curves") == before
