"""Branches out of one model: which go first, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.driver import depth
from onnxprune.driver.depth import Shortener, in_order
from onnxprune.driver.progress import Stages
from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model
from onnxprune.passes import RemoveBranches
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning.branches import Branch
from onnxprune.runtime.session import Session
from residual_nets import TEXT, X, residual

Saved = Callable[[Analysis, Branch], float]


def quarter(analysis: Analysis, branch: Branch) -> float:
    return 0.25


def shortener(proto: Any = None, *, protect: tuple[str, ...] = (), saved: Saved = quarter) -> Shortener:
    model = Model.of(proto or residual())
    return Shortener(model, protect, 0, open_samples({"x": X[:64]}, model.inputs), Stages(), saved)


def outputs(model: Model) -> Any:
    return Session(model).run({"x": X[64:]})[0]


def test_what_loses_least_for_what_it_saves_goes_first() -> None:
    branches = [Branch(place, f"s{place}", "x", frozenset({place - 1})) for place in (2, 4, 6)]
    lost: dict[tuple[int, ...], float] = {(0,): 0.1, (1,): 0.2, (2,): 0.4}
    assert in_order(branches, [0.1, 0.1, 0.1], lost) == [0, 1, 2]
    assert in_order(branches, [0.1, 0.1, 0.5], lost) == [2, 0, 1]
    assert in_order(branches, [0.1, 0.0, 0.1], lost) == [0, 2]  # what saves nothing stays
    assert in_order(branches, [0.1, 0.1, 0.1], {**lost, (0, 1): 0.8}) == [0, 2, 1]  # together they lose more than their sum


def test_of_the_terms_of_one_sum_one_goes() -> None:
    branches = [Branch(4, "s", "x", frozenset({1})), Branch(4, "s", "y", frozenset({2}))]
    assert in_order(branches, [0.1, 0.1], {(0,): 0.2, (1,): 0.1}) == [1]


def test_what_remains_is_what_the_others_save() -> None:
    ladder = shortener().ladder
    assert ladder[0][0].total == "first"
    assert [remains for _, remains in ladder] == [0.75, 0.5, 0.25]
    assert not shortener(saved=lambda *_: 0.0).ladder


def test_what_is_protected_stays() -> None:
    assert [branch.total for branch in shortener(protect=("w2", "much_node")).branches] == ["first"]


def test_the_cut_is_proven_and_repair_makes_up_for_it() -> None:
    found = shortener().build(2)
    assert found.check.ok
    for model in (found.cut, found.repaired):
        assert sum(node.op_type == "Add" for node in model.graph.node) == 1
        assert "linear" not in model.weights
    original = outputs(Model.of(residual()))
    gaps = [float(np.square(outputs(model) - original).mean() / original.var()) for model in (found.cut, found.repaired)]
    assert gaps[1] < 0.2 * gaps[0]


def test_a_draft_is_the_cut() -> None:
    one = shortener()
    np.testing.assert_array_equal(outputs(one.draft(1)), outputs(one.build(1).cut))


def test_the_proof_fails_where_something_else_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(RemoveBranches):
        def run(self, bypassed: Model, branches: Any) -> Model:
            model = RemoveBranches().run(bypassed, branches)
            model.weights["head"] = model.weights["head"].derived((10, 16), lambda array: array * np.float32(1.5))
            return model

    monkeypatch.setattr(depth, "RemoveBranches", Wrong)
    with pytest.raises(VerificationError, match="without branches, it computes something else"):
        shortener().build(1)


def test_a_file_that_spells_its_sums_otherwise() -> None:
    text = TEXT.replace("little = Add(c, r)", "copy = Identity(r) little = Add(c, copy)")
    found = shortener(parse(text)).build(3)
    assert found.check.ok


def test_half_precision() -> None:
    text = TEXT.replace("float[", "float16[")
    model = Model.of(parse(text))
    one = Shortener(model, (), 0, open_samples({"x": X[:64].astype(np.float16)}, model.inputs), Stages(), quarter)
    found = one.build(1)
    assert found.check.ok
    assert {weight.array().dtype for weight in found.repaired.weights.values()} == {np.dtype(np.float16)}
