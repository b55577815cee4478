"""The pass that scores positions."""

from __future__ import annotations

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Normalize, Observe, ScoreChannels
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning import criteria


def analysis() -> Analysis:
    return Couple().run(Normalize().run(Model.of(parse(NETS["chain"]))))


@pytest.mark.parametrize(
    "step", [ScoreChannels(), ScoreChannels("l1"), ScoreChannels("random", seed=3), ScoreChannels("bn_scale")]
)
def test_scores_are_those_of_the_criterion(step: ScoreChannels) -> None:
    found = analysis()
    expected = criteria.score_groups(found.model, found.coupling, step.criterion, step.seed)
    scores = step.run(found)
    assert scores.keys() == expected.keys() == {"w1:0", "w2:0"}
    for name, one in expected.items():
        np.testing.assert_array_equal(scores[name], one)


@pytest.mark.parametrize("step", [ScoreChannels(), ScoreChannels("random", seed=3), ScoreChannels("fpgm")])
def test_what_goes_without_loss_is_worth_nothing(step: ScoreChannels) -> None:
    scores = step.run(analysis(), gone={"w1:0": np.array([2, 5]), "elsewhere:0": np.array([0])})
    assert np.flatnonzero(scores["w1:0"] == 0).tolist() == [2, 5]
    assert (scores["w2:0"] > 0).all()


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "synflow"])
def test_gradients_score_without_labels(criterion: str) -> None:
    """Positions whose weights reach the output most, by samples; what the module knows of labels it draws itself."""
    found = analysis()
    x = np.random.default_rng(0).standard_normal((12, 3, 8, 8), np.float32)
    observed = Observe().run(found, found.calibration(open_samples({"x": x}, found.model.inputs)))
    scores, again = (ScoreChannels(criterion).run(found, observed) for _ in range(2))
    assert scores.keys() == {"w1:0", "w2:0"}
    for name, one in scores.items():
        assert one.mean() == pytest.approx(1)
        assert len(set(one)) > 1
        np.testing.assert_array_equal(one, again[name])
