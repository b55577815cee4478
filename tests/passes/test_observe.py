"""What calibration samples show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from linear.test_layers import close
from nets import NETS, parse
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.linear.gather import gather
from onnxprune.linear.moments import collect
from onnxprune.linear.rotation import BasisSums
from onnxprune.passes import Couple, Normalize, Observe
from onnxprune.runtime.session import Session


@pytest.mark.parametrize("bases", [True, False])
def test_choices_are_fitted_on_three_batches_of_four(bases: bool) -> None:
    analysis = Couple().run(Normalize().run(Model.of(parse(NETS["attention"]))))
    x = np.random.default_rng(0).standard_normal((48, 5, 8)).astype(np.float32)
    calibration = analysis.calibration(open_samples({"x": x}, analysis.model.inputs))
    found = Observe(bases, seed=1).run(analysis, calibration)
    expected = collect(analysis.model, analysis.coupling, calibration.fit, seed=1)
    assert found.calibration is calibration
    assert found.statistics.moments.keys() == expected.moments.keys()
    for name, moments in expected.moments.items():
        np.testing.assert_array_equal(found.statistics.moments[name].array, moments.array)
    turns = BasisSums(analysis.model, analysis.coupling)
    gather(analysis.model, calibration.fit, turns)
    known = turns.bases()
    assert found.bases.keys() == (known.keys() if bases else set())
    assert known
    for name, basis in known.items() if bases else ():
        close(found.bases[name].forth, basis.forth)


def test_the_model_runs_once_over_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = Couple().run(Normalize().run(Model.of(parse(NETS["attention"]))))
    x = np.random.default_rng(0).standard_normal((48, 5, 8)).astype(np.float32)
    calibration = analysis.calibration(open_samples({"x": x}, analysis.model.inputs))
    run, seen = Session.run, list[int]()

    def counted(self: Session, feeds: Mapping[str, Any]) -> list[Any]:
        seen.append(len(feeds["x"]))
        return run(self, feeds)

    monkeypatch.setattr(Session, "run", counted)
    Observe().run(analysis, calibration)
    assert sum(seen) == 36  # three of four
