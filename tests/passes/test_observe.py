"""What calibration samples show."""

from __future__ import annotations

import numpy as np
import pytest

from linear.test_layers import close
from nets import NETS, parse
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.linear import rotation
from onnxprune.linear.moments import collect
from onnxprune.passes import Couple, Normalize, Observe


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
    known = rotation.find_bases(analysis.model, analysis.coupling, calibration.fit) if bases else {}
    assert found.bases.keys() == known.keys()
    for name, basis in known.items():
        close(found.bases[name].forth, basis.forth)
