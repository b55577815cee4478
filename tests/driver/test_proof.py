"""The law on plans, and the groups that break it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nets import LAYER_NORM, NETS, both, parse, some
from onnxprune.axes.plan import Plan
from onnxprune.driver.proof import broken, kept_by, prove
from onnxprune.driver.prune import analyze
from onnxprune.errors import VerificationError
from onnxprune.ir.weights import Weight
from onnxprune.passes import PruneChannels
from onnxprune.verify.law import Check

FOUND = analyze(parse(NETS["residual"]))
PLAN = Plan({group.id: np.array(some(group.size)) for group in FOUND.coupling.groups})
FAILED = Check(ok=False, error=1.0, text="'y' differs")


def test_the_law_holds_for_what_was_cut_and_for_nothing_else() -> None:
    pruned = PruneChannels().run(FOUND, PLAN)
    assert prove(FOUND, PLAN, pruned, 0).ok
    pruned.weights["w2"] = Weight("w2", None, pruned.weights["w2"].array() * np.float32(1.01))
    assert not prove(FOUND, PLAN, pruned, 0).ok


def test_inexact_groups_need_only_run() -> None:
    found = analyze(parse(LAYER_NORM), allow_inexact=True)
    (group,) = found.coupling.groups
    pruned, masked = both(found, {group.id: [0, 2, 3]})
    plan = Plan({group.id: np.array([0, 2, 3])})
    assert prove(found, plan, pruned, 0).ok
    outcome = prove(found, plan, masked, 0)  # as large as the original, and runs
    assert outcome.ok
    assert not prove(found, plan, FOUND.model, 0).ok


def test_what_a_plan_keeps_of_a_value() -> None:
    kept = kept_by(FOUND.coupling, PLAN)
    rows, columns, *_ = kept("w1")
    assert rows is not None
    assert columns is not None
    assert (rows.tolist(), columns.tolist()) == (some(6), some(8))
    assert kept("nowhere") == ()


def test_the_groups_that_break_it_are_named() -> None:
    def holds(names: Sequence[str]) -> bool:
        return "b" not in names

    assert broken("net", ["a", "b", "c"], holds, FAILED) == {"b": "the verifier found: 'y' differs"}


def test_a_model_that_breaks_it_without_any_group() -> None:
    with pytest.raises(VerificationError, match=r"^net: cannot be verified: 'y' differs; --no-verify skips the proof$"):
        broken("net", ["a"], lambda _: False, FAILED)
