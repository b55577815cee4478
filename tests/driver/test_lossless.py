"""Lossless removal as users meet it: equal to the original, composed with targets, honest about what it could not do."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from nets import NETS, parse
from onnxprune.driver.lossless import remove
from onnxprune.driver.prune import make_plan, prune
from onnxprune.driver.report import Report
from onnxprune.errors import OptionError, TargetError
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Target
from onnxprune.pruning.lossless import columns, search
from onnxprune.verify import law
from pruning.lossless.test_search import ROWS
from pruning.lossless.test_value_numbering import edited, fill
from verify.test_law import TWO_WAYS, inject, same

ONLY = Recipe(lossless=True, align="1")


def wasteful() -> ModelProto:
    """Two copies, one constant and one dead channel of 14."""
    return edited(parse(NETS["chain"]), **ROWS, w2=fill((slice(None), [3])), w3=fill((slice(None), [5])))


def test_the_result_is_the_original_and_says_what_went() -> None:
    result = prune(wasteful(), ONLY)
    assert law.compare(Model.of(result.model), Model.of(wasteful())).ok
    onnx.checker.check_model(result.model, full_check=True)
    report = result.report
    assert report.requested == "lossless"
    assert report.lossless is not None
    assert {kind: report.lossless[kind] for kind in (*search.REMOVAL_KINDS, "kept")} == {
        "dead": 2,
        "constant": 0,
        "duplicated": 2,
        "kept": 0,
    }
    assert report.verification is not None
    assert report.verification.ok
    assert report.lossless["check"] == dataclasses.asdict(report.verification)
    assert {name: kept.tolist() for name, kept in result.plan.keep.items()} == {"w1:0": [0, 1, 2, 5, 7], "w2:0": [0, 1, 2, 3, 4]}


def test_costs_are_those_of_the_original() -> None:
    """Biases that the rewrite adds count as costs of the result alone."""
    model = edited(parse(NETS["chain"]), w2=fill([2]))
    report = prune(model, ONLY).report
    assert report.before == prune(model, Recipe(target="channels=1")).report.before
    assert report.obtained["params"] == report.after.params / report.before.params
    assert report.after.params == report.before.params - 8 * 9 - 4 + 4


def test_alone_is_the_default_target() -> None:
    assert Recipe(lossless=True).only_exact
    assert Recipe(lossless=True, target="params=1").only_exact
    assert not Recipe(lossless=True, target="params=0.9").only_exact
    assert not Recipe(target="channels=1").only_exact
    assert Recipe().target == Recipe(target="auto").target == Target("macs", 0.5)


def test_nothing_to_remove() -> None:
    with pytest.raises(TargetError, match="<model>: nothing can go without loss: no position is dead, constant or a duplicate"):
        prune(parse(NETS["chain"]), ONLY)


def test_nothing_that_alignment_lets_go() -> None:
    words = (
        "4 positions are dead, constant or duplicates, but in no group enough for a block of 16, in narrow layers 4; "
        "--align 1 removes them"
    )
    with pytest.raises(TargetError, match=words):
        prune(wasteful(), Recipe(lossless=True))


def dead_of(report: Report) -> tuple[int, int]:
    assert report.lossless is not None
    return report.lossless["dead"], report.lossless["kept"]


@pytest.mark.parametrize("criterion", ["l2", "random", "fpgm"])
def test_a_target_is_met_after_everything_that_costs_nothing(criterion: str) -> None:
    model = edited(parse(NETS["residual"]), w1=fill((slice(None), [0, 5])), w3=fill((slice(None), [0, 5])), w2=fill(slice(None)))
    recipe = Recipe(target="params=0.6", align="1", criterion=criterion, lossless=True)
    result = prune(model, recipe)
    report = result.report
    assert report.requested == "params=0.6"
    assert report.obtained["params"] <= 0.6
    assert report.obtained["params"] == report.after.params / report.before.params
    assert not np.isin(result.plan.keep["w0:0"], [0, 5]).any()
    assert report.verification is not None
    assert report.verification.ok
    assert report.lossless is not None
    assert report.lossless["check"]["ok"]


def test_a_target_that_is_met_without_loss_costs_nothing() -> None:
    model = wasteful()
    result = prune(model, Recipe(target="params=0.9", align="1", lossless=True))
    assert result.report.obtained["params"] < 0.7
    assert law.compare(Model.of(result.model), Model.of(model)).ok


def test_zeros_stay_for_alignment_in_a_target_too() -> None:
    result = prune(wasteful(), Recipe(target="params=0.99", align="2", lossless=True))
    assert {name: len(kept) for name, kept in result.plan.keep.items()} == {"w1:0": 6}
    assert dead_of(result.report) == (2, 2)


def test_zeros_that_all_stay_for_alignment_are_proven_too() -> None:
    result = prune(wasteful(), Recipe(target="params=0.9", align="4", lossless=True))
    assert result.report.lossless is not None
    assert result.report.lossless["check"]["ok"]


def test_targets_are_fractions_of_the_original() -> None:
    """Which has fewer biases than the rewritten model."""
    model = edited(parse(NETS["chain"]), w2=fill([2]))
    recipe = Recipe(target="params=0.75", lossless=True)
    params = prune(model, Recipe(target="channels=1")).report.before.params
    rewritten = remove(Model.of(model), recipe).pruned.analysis
    assert sum(weight.size for weight in rewritten.model.weights.values()) == params + 4
    assert rewritten.costs.of("params").whole == params
    report = prune(model, recipe).report
    assert report.before.params == params
    assert report.after.params <= 0.75 * params


def test_a_plan_cannot_say_what_takes_over() -> None:
    with pytest.raises(OptionError, match="does not say what takes over removed positions"):
        make_plan(wasteful(), ONLY)


def test_without_verification() -> None:
    result = prune(wasteful(), dataclasses.replace(ONLY, verify=False), agreement=False)
    assert result.report.verification is None
    assert result.report.lossless is not None
    assert result.report.lossless["check"] is None
    assert law.compare(Model.of(result.model), Model.of(wasteful())).ok


def test_groups_that_fail_the_proof_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the rewrite of one matrix is found, and the other group goes all the same."""
    model = edited(parse(NETS["chain"]), **ROWS, w3=fill((slice(None), [5])))
    apply = columns.Edit.apply
    monkeypatch.setattr(columns.Edit, "apply", lambda edit, array: apply(edit, array) * 1.01)
    result = prune(model, ONLY)
    assert set(result.plan.keep) == {"w2:0"}
    assert list(result.report.frozen) == ["w1:0"]
    assert "differs from the original model's" in result.report.frozen["w1:0"]
    assert law.compare(Model.of(result.model), Model.of(model)).ok


def test_a_wrong_rule_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Softmax claimed to be elementwise: what nobody reads behind it is not dead."""
    model = edited(parse(TWO_WAYS), w4=fill((slice(None), [2])), w2=fill((slice(None), [1, 3])))
    inject(monkeypatch, "Softmax", same)
    result = prune(model, ONLY)
    assert list(result.report.frozen) == ["w3:0"]
    assert list(result.plan.keep) == ["w1:0"]


def test_groups_that_fail_a_later_proof_do_not_bring_the_dead_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = edited(parse(TWO_WAYS), w2=fill((slice(None), [1, 3, 6])))
    inject(monkeypatch, "Softmax", same)
    result = prune(model, Recipe(target="channels=0.65", align="1", criterion="random", lossless=True))
    assert list(result.report.frozen) == ["w3:0"]
    assert not np.isin(result.plan.keep["w1:0"], [1, 3, 6]).any()


def test_nothing_is_left_when_everything_fails_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    model = edited(parse(NETS["chain"]), **ROWS)
    monkeypatch.setattr(columns.Edit, "apply", lambda _, array: array * 2)
    with pytest.raises(TargetError, match=r"nothing can go without loss.*\(1 groups failed verification: w1:0\)"):
        prune(model, ONLY)


@pytest.mark.parametrize("choose", ["ArgMax<axis = 1>", "mine.choose"])
def test_where_rounding_tips_a_choice_what_goes_into_it_is_compared(choose: str) -> None:
    """Two scores weigh two copies in turn: the original's differ by rounding, the result's are equal.

    Inside a function, too: functions are inlined when a model is read.
    """
    text = f"""(float[N,3,16,16] x) => (int64[N,1,16,16] y) <float[8,3,1,1] w, float[2,8,1,1] v> {{
      a = Conv(x, w)
      r = Relu(a)
      s = Conv(r, v)
      y = {choose}(s)
    }}
    <domain: "mine", opset_import: ["": 18]>
    choose (u) => (v) {{ v = ArgMax<axis = 1>(u) }}"""
    swapped = [7, 1, 2, 3, 4, 5, 6, 0]
    model = parse(text, domains=["mine"])
    model = edited(model, w=lambda w: w.__setitem__(7, w[0]), v=lambda v: v.__setitem__(1, v[0][swapped]))
    result = prune(model, ONLY)
    assert result.plan.keep["w:0"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    picked = law.compare(Model.of(result.model), Model.of(model))
    assert picked.behind == 1
    assert result.report.verification is not None
    assert result.report.verification.behind == 1


def test_a_source_is_not_changed() -> None:
    model = wasteful()
    data = model.SerializeToString(deterministic=True)
    prune(model, ONLY)
    assert model.SerializeToString(deterministic=True) == data


def test_removing_again_finds_nothing() -> None:
    again = prune(wasteful(), ONLY).model
    with pytest.raises(TargetError, match="nothing can go"):
        prune(again, ONLY)


def test_remove_gives_the_rewritten_model_at_every_size() -> None:
    found = remove(Model.of(wasteful()), ONLY).pruned
    assert law.compare(found.analysis.model, Model.of(wasteful())).ok
    assert found.analysis.model.weights["w1"].shape == (8, 3, 3, 3)
    assert found.model.weights["w1"].shape == (5, 3, 3, 3)
