"""What is worked out once, and again where groups stay whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.data import calibration
from onnxprune.data.samples import open_samples
from onnxprune.driver.prepared import Prepared
from onnxprune.driver.progress import Stages
from onnxprune.driver.prune import prune
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.linear import gather
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Target
from onnxprune.passes import Normalize, Sensitivity
from onnxprune.runtime import engines

X = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)
HALF = Target("macs", 0.5)


def prepared(net: str = NETS["chain"], *, data: bool = True) -> Prepared:
    normal = Normalize().run(Model.of(parse(net)))
    calibration = normal.calibration(open_samples({"x": X}, normal.model.inputs)) if data else None
    return Prepared(Recipe(align="1").settled(data=data), normal, Stages(), calibration)


def test_everything_is_worked_out_once_and_each_in_its_stage() -> None:
    found = prepared()
    plan = found.allocator(HALF)
    assert plan(1.0).keep
    assert found.allocator(HALF)(1.0).keep.keys() == plan(1.0).keep.keys()
    assert list(found.stages.seconds) == ["analysis", "scoring", "sensitivity"]
    for name in ("analysis", "observed", "scores", "curves"):
        assert getattr(found, name) is getattr(found, name)


def test_groups_that_stay_whole_are_no_groups_and_nothing_is_measured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    found = prepared()
    curves = found.curves
    monkeypatch.setattr(Sensitivity, "run", lambda *_: pytest.fail("measured again"))
    fewer = found.without({"w1:0": "it fails"}, HALF)
    assert fewer.curves == curves
    assert [group.id for group in fewer.analysis.coupling.groups] == ["w2:0"]
    assert fewer.scores.keys() == {"w2:0"}
    assert fewer.without({"w2:0": "it fails, too"}, HALF).frozen == {"w1:0": "it fails", "w2:0": "it fails, too"}
    assert (found.frozen, fewer.frozen) == ({}, {"w1:0": "it fails"})
    assert [group.id for group in found.analysis.coupling.groups] == ["w1:0", "w2:0"]


def test_curves_are_for_targets_that_they_share_out() -> None:
    found, blind = prepared(), prepared(data=False)
    assert found.by_curves(HALF)
    assert not found.by_curves(Target("channels", 0.5))
    assert not blind.by_curves(HALF)
    assert blind.allocator(HALF)(1.0).keep
    assert blind.curves == {}


def test_samples_are_not_run_where_there_is_no_group() -> None:
    found = prepared("(float[N,3,8,8] x) => (float[N,3,8,8] y) <float[3,3,1,1] w> { y = Conv(x, w) }")
    assert not found.analysis.coupling.groups
    assert found.observed is None
    assert found.curves == {}
    assert found.scores == {}


def test_an_engine_makes_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of its processes; there are four shards."""
    pytest.importorskip("joblib", reason="the extra [sweep] is not installed")
    monkeypatch.setattr(gather, "_SHARD", 2)
    x = np.random.default_rng(0).standard_normal((80, 3, 8, 8)).astype(np.float32)
    monkeypatch.setattr(calibration, "LARGEST_BATCH", 8)

    def pruned(**engine: Any) -> bytes:
        result = prune(parse(NETS["chain"]), Recipe(align="1", **engine), samples={"x": x}, agreement=False)
        made: bytes = result.model.SerializeToString(deterministic=True)
        return made

    alone = pruned()
    assert all(pruned(engine="local", workers=workers) == alone for workers in (1, 2, 3))


def test_an_engine_that_is_not_installed_is_found_out_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    monkeypatch.setattr(Normalize, "run", lambda *_: pytest.fail("work was done before"))
    with pytest.raises(OptionError, match=r"run pip install \"onnxprune\[ray\]\""):
        prune(parse(NETS["chain"]), Recipe(engine="ray"), samples={"x": X})
