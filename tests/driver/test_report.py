"""The report is data: the same facts for people and for machines."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from nets import LAYER_NORM, NETS, parse
from onnxprune import Recipe, Report, prune
from onnxprune.driver.apply import check
from onnxprune.driver.prune import analyze
from onnxprune.errors import OptionError
from onnxprune.pruning.cost import CostModel
from onnxprune.verify.verdicts import Check
from pruning.test_allocation import WIDE


@pytest.fixture(scope="module")
def report() -> Report:
    return prune(parse(WIDE), Recipe(target="macs=0.5", align="4")).report


def test_it_is_json(report: Report) -> None:
    data = json.loads(json.dumps(report.to_dict()))
    assert data["requested"] == "macs=0.5"
    assert data["groups"][0] == {"id": "w0:0", "size": 64, "kept": report.groups[0].kept, "exact": True, "members": 6}
    assert data["verification"]["ok"] is True
    assert set(data["obtained"]) == {"macs", "params", "size", "channels"}


def test_obtained_is_after_over_before(report: Report) -> None:
    for metric in ("macs", "params", "size"):
        assert report.obtained[metric] == pytest.approx(getattr(report.after, metric) / getattr(report.before, metric))
    assert report.obtained["channels"] == pytest.approx(sum(g.kept for g in report.groups) / sum(g.size for g in report.groups))
    assert report.obtained["macs"] <= 0.5


def test_the_costs_are_those_of_the_files(report: Report) -> None:
    result = prune(parse(WIDE), Recipe(target="macs=0.5", align="4"))
    found = analyze(result.model)
    after = CostModel(found.model, found.coupling, found.shapes.batch).cost({})
    assert (report.after.macs, report.after.params) == (after.macs, after.params)


def test_stages_are_timed_and_announced() -> None:
    told: list[str] = []
    report = prune(parse(NETS["residual"]), Recipe(target="channels=0.5", align="1"), progress=told.append).report
    assert list(report.seconds) == ["analysis", "scoring", "surgery", "verification", "agreement"]
    assert len(told) == 7
    assert all(seconds >= 0 for seconds in report.seconds.values())


def test_what_was_switched_off_is_absent() -> None:
    recipe = Recipe(target="channels=0.5", align="1", verify=False)
    report = prune(parse(NETS["residual"]), recipe, agreement=False).report
    assert report.verification is None
    assert report.drift is None
    assert list(report.seconds) == ["analysis", "scoring", "surgery"]


def test_inexact_groups_are_named_as_such() -> None:
    model = parse(LAYER_NORM)
    result = prune(model, Recipe(target="channels=0.5", align="1", allow_inexact=True))
    assert [(g.id, g.kept, g.exact) for g in result.report.groups] == [("w1:1", 3, False)]
    assert result.report.verification is not None
    assert result.report.verification.ok
    assert "proven for the exact ones only" in result.report.notes[0]
    assert check(model, result.model, result.plan).ok


def test_drift_is_measured_on_the_samples() -> None:
    x = np.random.default_rng(0).standard_normal((5, 3, 8, 8), np.float32)
    drift = prune(parse(NETS["residual"]), Recipe(target="channels=0.5", align="1"), samples={"x": x}).report.drift
    assert drift is not None
    assert (drift.samples, drift.source) == (5, "samples, too few to hold any out")
    assert drift.relative > 0
    assert -1 <= drift.cosine < 1


def test_a_recipe_names_its_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(960.0).reshape(5, 3, 8, 8))
    recipe = Recipe(target="channels=0.5", align="1", calib=str(tmp_path / "x.npy"))
    drift = prune(parse(NETS["residual"]), recipe).report.drift
    assert drift is not None
    assert (drift.samples, drift.source) == (5, f"--calib {tmp_path / 'x.npy'}, too few to hold any out")
    with pytest.raises(OptionError, match=r"^--preprocess unit: is for a folder of images"):
        prune(parse(NETS["residual"]), dataclasses.replace(recipe, preprocess="unit"))
    with pytest.raises(OptionError, match=r"^--preprocess unit: is for the images of --calib"):
        prune(parse(NETS["residual"]), dataclasses.replace(recipe, calib="", preprocess="unit"))


def test_verification_is_the_check(report: Report) -> None:
    assert isinstance(report.verification, Check)
    assert report.verification.runs == 3
    assert report.verification.error <= 1e-4


@pytest.mark.parametrize("target", ["size=0.6", "params=0.6"])
def test_targets_are_fractions_of_the_file(target: str, tmp_path: Path) -> None:
    """A file with one matrix for two layers, and a bias for two: what is written is what the report says."""
    source, out = tmp_path / "m.onnx", tmp_path / "o.onnx"
    onnx.save(
        parse("""(float[N,40] x) => (float[N,40] y) <float[40,64] w, float[64,40] v, float[40] b> {
          a = MatMul(x, w)
          r = Relu(a)
          c = MatMul(r, v)
          d = Add(c, b)
          w2 = Identity(w)
          e = MatMul(d, w2)
          f = Relu(e)
          v2 = Identity(v)
          g = MatMul(f, v2)
          y = Add(g, b)
        }"""),
        source,
    )
    result = prune(source, Recipe(target=target, align="1"), agreement=False)
    result.save(out)
    report, wanted = result.report, Recipe(target=target).target
    assert (report.before.params, report.before.size) == (2 * 40 * 64 + 40, source.stat().st_size)
    assert report.after.size == out.stat().st_size
    assert report.after.params == sum(math.prod(t.dims) for t in onnx.load(out).graph.initializer if t.data_type == 1)
    assert wanted.fraction - 0.03 < report.obtained[wanted.metric] <= wanted.fraction + 0.01
    assert result.report.to_dict()["before"]["size"] == source.stat().st_size
