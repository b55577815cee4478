"""Results are judged on samples that nothing was learnt from, and gates stop what is not good enough."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nets import parse
from onnxprune import Gates, OptionError, QualityError, Recipe, SparseRecipe, prune, sparsify
from onnxprune.data.samples import open_samples
from onnxprune.driver.apply import carry_out
from onnxprune.driver.judgement import Judgement, Jury, Level, judge_optimized
from onnxprune.driver.prune import make_plan
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.options.optimize import OptimizeRecipe
from onnxprune.verify.drift import Drift
from onnxprune.verify.metrics import QualityScore

BODY = """(float[N,16] x) => (float[N,4] y) <float[16,64] u, float[64,4] v>
  { h = MatMul(x, u) a = Relu(h) y = MatMul(a, v) }"""


def data(count: int, *, labels: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    named: dict[str, Any] = {"x": rng.standard_normal((count, 16)).astype(np.float32)}
    return named | ({"label": rng.integers(0, 4, count)} if labels else {})


def jury(count: int, **gates: str) -> Jury:
    model = Model.of(parse(BODY))
    return Jury.of(Gates(**gates), model, open_samples(data(count), model.inputs))


def test_samples_are_held_out_where_their_axis_is_called_as_others_are(tmp_path: Path) -> None:
    """Samples show that it is the batch, when what `optimize` made is judged, too."""
    proto = parse(BODY.replace("float[N,16]", "float[any,any]").replace("float[N,4]", "float[any,4]"))
    np.savez(tmp_path / "calib.npz", **data(64))
    recipe, score = OptimizeRecipe(calib=str(tmp_path / "calib.npz")), QualityScore("agreement", 1.0, 1.0, 8, "some")
    found = judge_optimized(proto, recipe, Gates(), Model.of(proto), score)
    assert found.drift is not None
    assert found.drift.samples == 8
    assert found.drift.source.endswith("held out")


@pytest.mark.parametrize(("count", "held"), [(32, 4), (240, 30), (512, 64), (4096, 64)])
def test_each_eighth_sample_is_held_out_and_few_of_many(count: int, held: int) -> None:
    found = jury(count)
    assert found.apart
    assert found.judges is not None
    assert found.learnt is not None
    assert (found.judges.count, found.learnt.count) == (held, count - held)
    seen = {row.tobytes() for batch in found.learnt.batches() for row in batch.feeds["x"]}
    judged = {row.tobytes() for batch in found.judges.batches() for row in batch.feeds["x"]}
    assert (len(seen), len(judged)) == (count - held, held)
    assert not seen & judged


def test_few_samples_are_all_learnt_from_and_the_report_says_so() -> None:
    found = jury(31)
    assert found.judges is found.learnt
    report = prune(parse(BODY), Recipe(target="macs=0.5", align="1"), samples=data(31)).report
    assert report.drift is not None
    assert report.drift.source == "samples, too few to hold any out"


def test_a_report_says_how_many_samples_judged_and_whose() -> None:
    report = prune(parse(BODY), Recipe(target="macs=0.5", align="1"), samples=data(64)).report
    assert report.drift is not None
    assert (report.drift.samples, report.drift.source) == (8, "samples, held out")
    assert report.score is None
    labelled = prune(parse(BODY), Recipe(target="macs=0.5", align="1"), samples=data(64, labels=True)).report
    assert labelled.score is not None
    assert (labelled.score.metric, labelled.score.samples, labelled.score.chance) == ("top1", 8, 0.25)


def test_repair_does_not_see_what_judges() -> None:
    """Other samples in the held-out eighth change the agreement, and not a byte of the model."""
    recipe, mine, other = Recipe(target="macs=0.5", align="1"), data(64), data(64)
    other["x"][7::8] *= -1
    first, second = (prune(parse(BODY), recipe, samples=samples) for samples in (mine, other))
    assert first.model.SerializeToString() == second.model.SerializeToString()
    assert first.report.drift != second.report.drift
    other["x"][0] *= -1
    assert prune(parse(BODY), recipe, samples=other).model.SerializeToString() != first.model.SerializeToString()


def test_a_plan_carried_out_learns_from_the_same_samples() -> None:
    recipe, samples = Recipe(target="macs=0.5", align="1"), data(64)
    model = Model.of(parse(BODY))
    result = prune(parse(BODY), recipe, samples=samples)
    again = carry_out(parse(BODY), result.plan, samples=open_samples(samples, model.inputs))
    assert again.model.to_proto().graph.initializer == result.model.graph.initializer
    assert again.judgement is not None
    assert again.judgement.drift == result.report.drift
    assert make_plan(parse(BODY), recipe)[0].keep


@pytest.mark.parametrize("gate", [{"min_score": "0.9"}, {"max_drop": "1%"}, {"min_agreement": "0.9"}])
def test_gates_need_samples(gate: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="needs samples to judge by: add --eval DATA"):
        Jury.of(Gates(**gate), Model.of(parse(BODY)), None)


@pytest.mark.parametrize("made", [prune, sparsify])
def test_labels_that_are_no_classes_are_refused_before_anything_is_computed(made: Any) -> None:
    wrong, phases = {**data(64), "label": np.arange(64)}, list[object]()
    recipe = {prune: Recipe(target="macs=0.5", min_score="0.5"), sparsify: SparseRecipe(sparsity=0.5, min_score="0.5")}[made]
    with pytest.raises(OptionError, match=r"label \d+ of sample \d+ is no class of the model, which has 0 to 3"):
        made(parse(BODY), recipe, samples=wrong, progress=phases.append)
    assert not phases


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({"min_agreement": "99%"}, r"of 8 samples \(samples, held out\) have the original's answer, below --min-agreement 99%"),
        ({"min_score": "0.99"}, r"agreement is 0\.\d+ on 8 samples \(samples, held out\), below --min-score 0\.99"),
    ],
)
def test_a_result_that_is_not_good_enough_is_an_error(gate: dict[str, Any], words: str) -> None:
    asked = Recipe(target="macs=0.2", align="1")
    with pytest.raises(QualityError, match=words):
        prune(parse(BODY), dataclasses.replace(asked, **gate), samples=data(64))
    none: dict[str, Any] = dict.fromkeys(gate, "0")
    assert prune(parse(BODY), dataclasses.replace(asked, **none), samples=data(64)).report.judgement


def drift(agreement: float, classes: int = 10, cosine: float = 1.0) -> Drift:
    return Drift(cosine, 0.1, agreement, 16, "some", classes)


def score(original: float, pruned: float, chance: float = 0.1) -> QualityScore:
    return QualityScore("top1", original, pruned, 100, "others", chance=chance)


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (Judgement(None, drift(0.99), sampled=True), Level.GOOD),
        (Judgement(None, drift(0.9), sampled=True), Level.WORSE),
        (Judgement(None, drift(0.49), sampled=True), Level.COLLAPSED),
        (Judgement(None, drift(0.99), sampled=False), Level.UNKNOWN),
        (Judgement(None, drift(0.1), sampled=False), Level.COLLAPSED),
        (Judgement(None, drift(0.1, classes=0), sampled=True), Level.GOOD),
        (Judgement(None, drift(1.0, classes=0, cosine=0.3), sampled=True), Level.COLLAPSED),
        (Judgement(score(0.99, 0.11), drift(0.99), sampled=True), Level.COLLAPSED),
        (Judgement(score(0.99, 0.98), drift(0.3), sampled=True), Level.GOOD),
        (Judgement(score(0.05, 0.05), drift(0.99), sampled=True), Level.GOOD),
        (Judgement(None, None, exact=True), Level.GOOD),
        (Judgement(), Level.UNKNOWN),
    ],
)
def test_the_level_follows_from_the_score_else_from_the_answers(found: Judgement, level: Level) -> None:
    assert found.level is level
    assert found.to_dict()["level"] == level.value


def test_what_a_detector_finds_is_scored_without_labels() -> None:
    """Their cosine is that of boxes, which move little."""
    model, x = Model.of(parse("(float[N, 6, 9] x) => (float[N, 6, 9] y) { y = Identity(x) }")), np.zeros((40, 6, 9), np.float32)
    x[:, :4], x[:, 4, 2] = 100, 0.3
    gone = Model.of(parse("(float[N, 6, 9] x) => (float[N, 6, 9] y) <float[6, 1] mask> { y = Mul(x, mask) }"))
    gone.weights["mask"] = Weight("mask", None, np.array([[1.0]] * 4 + [[0.5]] * 2, np.float32))
    found = Jury.of(Gates(), model, open_samples({"x": x}, model.inputs)).judge(gone)
    assert found.score
    assert (found.score.metric, found.score.pruned, found.level) == ("detections", 0, Level.COLLAPSED)
    assert found.drift
    assert found.drift.cosine > 0.999


def test_drift_says_what_a_score_of_outputs_would() -> None:
    found = jury(64).judge(Model.of(parse(BODY)))
    assert found.score is None
    assert found.drift
