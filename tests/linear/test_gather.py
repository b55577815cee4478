"""Sums over samples, several kinds from one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import analyze
from onnxprune.ir.weights import Array
from onnxprune.linear.gather import gather
from onnxprune.runtime.session import Session


class Total:
    """Adds up some values."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.found = dict.fromkeys(names, 0.0)

    def add(self, values: Mapping[str, Array]) -> None:
        for name in self.names:
            self.found[name] += float(values[name].sum())


def test_every_kind_sees_its_values_of_every_batch_and_the_model_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = analyze(parse(NETS["residual"]))
    x = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    feeds = found.calibration(open_samples({"x": x}, found.model.inputs)).every
    expected = Session(found.model, ["a", "r", "sum"]).run({"x": x})
    run, seen = Session.run, list[int]()

    def counted(self: Session, feeds: Mapping[str, Any]) -> list[Any]:
        seen.append(len(feeds["x"]))
        return run(self, feeds)

    monkeypatch.setattr(Session, "run", counted)
    first, second, none = Total("a", "r"), Total("r", "sum"), Total()
    gather(found.model, feeds, first, second, none)
    assert sum(seen) == 40
    got = [first.found["a"], first.found["r"], second.found["sum"]]
    np.testing.assert_allclose(got, [float(value.sum()) for value in expected], rtol=1e-4)
    assert first.found["r"] == second.found["r"]


def test_where_nothing_is_looked_at_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = analyze(parse(NETS["residual"]))
    x = np.zeros((8, 3, 8, 8), np.float32)
    feeds = found.calibration(open_samples({"x": x}, found.model.inputs)).every
    monkeypatch.setattr(Session, "run", lambda *_: pytest.fail("the model ran"))
    gather(found.model, feeds, Total())
