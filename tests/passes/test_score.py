"""The pass that establishes the scores."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import criteria
from onnxprune.model import Model
from onnxprune.passes import Couple, Facts, Score
from test_coupling import NETS, parse


@pytest.mark.parametrize("step", [Score(), Score("l1"), Score("random", seed=3), Score("bn_scale")])
def test_it_establishes_the_scores_and_changes_nothing(step: Score) -> None:
    model, facts = Model.of(parse(NETS["chain"])), Facts()
    Couple()(model, facts)
    assert facts.coupling is not None
    assert step(model, facts) is model
    expected = criteria.score(model, facts.coupling, step.criterion, step.seed)
    assert facts.scores is not None
    assert facts.scores.keys() == expected.keys() == {"w1:0", "w2:0"}
    for name, scores in expected.items():
        np.testing.assert_array_equal(facts.scores[name], scores)
