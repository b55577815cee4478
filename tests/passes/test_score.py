"""The pass that establishes the scores."""

from __future__ import annotations

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Facts, Normalize, Pipeline, Score
from onnxprune.passes.base import need
from onnxprune.pruning import criteria
from onnxprune.pruning.lossless.search import Removal


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


@pytest.mark.parametrize("step", [Score(), Score("random", seed=3), Score("fpgm")])
def test_what_goes_without_loss_is_worth_nothing(step: Score) -> None:
    model, facts = Model.of(parse(NETS["chain"])), Facts()
    facts.removal = Removal({"w1:0": np.array([2, 5]), "elsewhere:0": np.array([0])}, {}, ())
    Couple()(model, facts)
    step(model, facts)
    assert facts.scores is not None
    assert np.flatnonzero(facts.scores["w1:0"] == 0).tolist() == [2, 5]
    assert (facts.scores["w2:0"] > 0).all()


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "synflow"])
def test_gradients_score_without_labels(criterion: str) -> None:
    """Positions whose weights reach the output most, by samples; what the module knows of labels it draws itself."""
    model, facts = Model.of(parse(NETS["chain"])), Facts()
    Pipeline([Normalize(), Couple()]).run(model, facts)
    x = np.random.default_rng(0).standard_normal((12, 3, 8, 8), np.float32)
    facts.calibration = Calibration.of(open_samples({"x": x}, model.inputs), need(facts.shapes, "shapes"))
    scores = []
    for _ in range(2):
        Score(criterion).run(model, facts)
        assert facts.scores is not None
        scores.append(facts.scores)
    assert scores[0].keys() == {"w1:0", "w2:0"}
    for name, one in scores[0].items():
        assert one.mean() == pytest.approx(1)
        assert len(set(one)) > 1
        np.testing.assert_array_equal(one, scores[1][name])
