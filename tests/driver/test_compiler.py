"""One model, many targets: what is worked out once, what is proven, what is repaired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.data.samples import open_samples
from onnxprune.driver.compiler import GROUP_EXPONENTS, Compiler
from onnxprune.driver.exponents import drifted
from onnxprune.driver.proof import Judge
from onnxprune.errors import ModelError, OptionError, TargetError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array, Weight
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Target
from onnxprune.passes import MaskChannels, Restore, Sensitivity
from onnxprune.passes.analysis import Analysis
from onnxprune.verify.law import compare
from onnxprune.verify.verdicts import Check

HALF = Target("macs", 0.5)
X = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)


def compiler(net: str = "residual", *, data: bool = True, **options: object) -> Compiler:
    model = Model.of(parse(NETS[net]))
    samples = open_samples({"x": X}, model.inputs) if data else None
    return Compiler(model, Recipe(align="1", **options), samples)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["macs=0.5", "params=0.6", "size=0.7", "channels=0.5"])
def test_targets_with_data(target: str) -> None:
    asked = Target.parse(target)
    built = compiler().build(asked)
    assert built.check is not None
    assert built.check.ok
    assert built.plan.keep
    assert built.repairs
    if asked.metric != "channels":
        costs = built.analysis.costs
        counts = {g.factor: len(built.plan.keep.get(g.id, range(g.size))) for g in built.analysis.coupling.groups}
        assert costs.total(asked.metric, counts) <= asked.fraction * costs.total(asked.metric, {})


def test_repair_brings_the_model_nearer() -> None:
    plain, repaired = (compiler(repair=repair, criterion="l2", scope="global").build(HALF) for repair in (False, True))
    assert {name: kept.tolist() for name, kept in plain.plan.keep.items()} == {
        name: kept.tolist() for name, kept in repaired.plan.keep.items()
    }
    original = plain.analysis.model
    held = plain.analysis.calibration(open_samples({"x": X}, original.inputs)).held
    assert drifted(repaired.model, original, held) < 0.7 * drifted(plain.model, original, held)
    assert not plain.repairs


def test_repair_on_noise_brings_the_model_nearer_to_the_original_on_other_inputs() -> None:
    made = [compiler(data=False, repair=repair, calib="noise") for repair in (False, True)]
    plain, repaired = (one.build(HALF) for one in made)
    assert {name: kept.tolist() for name, kept in plain.plan.keep.items()} == {
        name: kept.tolist() for name, kept in repaired.plan.keep.items()
    }
    assert repaired.repairs
    assert not plain.repairs
    feeds, original = [{"x": X}], plain.analysis.model
    assert drifted(repaired.model, original, feeds) < 0.7 * drifted(plain.model, original, feeds)


def test_repair_on_noise_that_does_not_help_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.driver.compiler.drifted", lambda *_: 1.0)
    built = compiler(data=False, calib="noise").build(HALF)
    assert not built.repairs
    assert built.check is not None
    assert built.check.ok
    analysis, plan = compiler(data=False).planned(HALF)
    assert plan.keep.keys() == built.plan.keep.keys()
    assert compare(built.model, MaskChannels().run(analysis, plan)).ok


def test_noise_does_not_stand_in_for_indices() -> None:
    model = parse("(int64[N,T] ids) => (float[N,T,4] y) <float[9,8] w, float[8,4] v> { e = Gather(w, ids) y = MatMul(e, v) }")
    with pytest.raises(OptionError, match="input 'ids'"):
        Compiler(Model.of(model), Recipe(align="1", calib="noise")).build(Target("channels", 0.5))


def test_curves_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    run = Sensitivity.run

    def counted(self: Sensitivity, *given: Any) -> Any:
        runs.append(1)
        return run(self, *given)

    monkeypatch.setattr(Sensitivity, "run", counted)
    made = compiler()
    for share in (0.7, 0.5):
        made.build(Target("macs", share))
    assert runs == [1]
    assert made._exponent in GROUP_EXPONENTS


def test_the_way_to_add_errors_whose_model_is_nearest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Model] = []

    def built(exponents: tuple[float, ...], *distances: float) -> Model:
        """The model, where that is how far those that are tried are from the original."""
        left = iter(distances)

        def drifted(changed: Model, _original: Model, feeds: Iterable[Mapping[str, Array]]) -> float:
            tried.append(changed)
            assert sum(len(feed["x"]) for feed in feeds) <= len(X) // 4, "repair has not seen what it is judged by"
            return next(left)

        monkeypatch.setattr("onnxprune.driver.compiler.GROUP_EXPONENTS", exponents)
        monkeypatch.setattr("onnxprune.driver.exponents.drifted", drifted)
        return compiler("chain", verify=False).build(HALF).model

    def shapes(model: Model) -> list[tuple[int, ...]]:
        return [weight.shape for weight in model.weights.values()]

    uneven, even = built((0.1,), 0), built((4.0,), 0)
    assert shapes(uneven) != shapes(even)
    assert [shapes(model) for model in tried] == [shapes(uneven), shapes(even)]
    assert not np.array_equal(tried[0].weights["w2"].array(), uneven.weights["w2"].array()), "at last repair sees all samples"
    assert shapes(built((0.1, 4.0), 1, 2)) == shapes(uneven)
    assert shapes(built((0.1, 4.0), 2, 1)) == shapes(even)
    monkeypatch.setattr("onnxprune.driver.exponents._WORK", 0)
    assert shapes(built((0.1, 4.0))) == shapes(even), "too large to try"


def test_where_both_ways_come_to_one_plan_none_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.driver.compiler.best_exponent", lambda *_: pytest.fail("models were built"))
    made = compiler("chain", verify=False)
    made.build(Target("macs", 0.999))
    assert made._exponent == GROUP_EXPONENTS[0]


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again = (compiler(seed=3).build(HALF).model.to_proto().SerializeToString() for _ in range(2))
    assert first == again


def break_group(monkeypatch: pytest.MonkeyPatch, victim: str) -> None:
    """From now on the law does not hold where a group loses anything."""

    right = Judge.prove

    def wrong(self: Judge, analysis: Analysis, plan: Plan, pruned: Model) -> Check:
        return compare(pruned, _other(pruned)) if victim in plan.keep else right(self, analysis, plan, pruned)

    monkeypatch.setattr(Judge, "prove", wrong)


def test_groups_that_break_the_law_are_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """And planned around from then on, with the same curves."""
    made = compiler("chain")
    victim = made.curves()[0].groups[0].id
    monkeypatch.setattr(Sensitivity, "_curve", lambda *_: pytest.fail("measured again"))
    break_group(monkeypatch, victim)
    built = made.build(Target("macs", 0.6))
    assert set(built.frozen) == {victim}
    assert victim not in built.plan.keep
    assert built.repairs
    assert victim not in made.build(Target("macs", 0.7)).plan.keep


def test_what_was_built_before_a_group_failed_says_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that a later target leaves whole may well have lost positions in an earlier result."""
    made = compiler("chain")
    earlier = made.build(Target("macs", 0.6))
    victim = next(iter(earlier.plan.keep))
    break_group(monkeypatch, victim)
    later = made.build(Target("macs", 0.6))
    assert set(later.frozen) == {victim}
    assert not earlier.frozen
    assert victim in {group.id for group in earlier.analysis.coupling.groups}
    assert victim not in {group.id for group in later.analysis.coupling.groups}


def test_a_target_that_the_groups_that_are_left_do_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiler("chain")
    victim = made.curves()[0].groups[0].id
    break_group(monkeypatch, victim)
    with pytest.raises(TargetError, match=rf"cannot be reached: .* \(1 groups failed verification: {victim}\)"):
        made.build(Target("macs", 0.3))


def _other(model: Model) -> Model:
    """A model that computes something else."""
    return Model.of(parse(NETS["chain"].replace("Relu", "Neg")))


@pytest.mark.parametrize("option", [{"criterion": "obs"}, {"scope": "sensitivity"}])
def test_what_needs_data_says_so(option: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="needs samples: add --calib DATA"):
        compiler(data=False, **option)


def test_an_unreachable_target() -> None:
    with pytest.raises(TargetError, match=r"target macs=0.01 cannot be reached: at least macs="):
        compiler().build(Target("macs", 0.01))


def test_a_model_without_floats() -> None:
    text = "(int64[N,2] x) => (int64[N,2] y) <int64[2] w = {1, 2}> { y = Add(x, w) }"
    with pytest.raises(ModelError, match="has no floating-point weights"):
        Compiler(Model.of(parse(text)), Recipe()).build(HALF)


def test_what_is_wrong_with_every_plan_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault behind the surgery breaks every group and none: looking for the one that does it must not begin again."""

    def wrong(_: Restore, model: Model, original: Model) -> Model:
        changed = model.copy()
        name = next(iter(changed.weights))
        changed.weights[name] = Weight(name, None, changed.weights[name].array() + 1)
        return changed

    monkeypatch.setattr(Restore, "run", wrong)
    with pytest.raises(VerificationError, match="cannot be verified"):
        compiler("chain", data=False).build(HALF)


def test_a_rehearsal_moves_less_the_more_remains_and_keeps_nothing() -> None:
    one = compiler()
    drifts = [one.rehearsed(Target("macs", share)) for share in (0.3, 0.6, 0.9)]
    assert all(drift is not None for drift in drifts)
    assert drifts == sorted(drifts, key=lambda drift: -(drift or 0))
    assert one.build(HALF).plan.digest == compiler().build(HALF).plan.digest


def test_a_rehearsal_without_repair_moves_further() -> None:
    repaired, cut = compiler().rehearsed(HALF), compiler(repair=False).rehearsed(HALF)
    assert repaired is not None
    assert cut is not None
    assert repaired < cut


def test_without_samples_there_is_no_rehearsal() -> None:
    assert compiler(data=False).rehearsed(HALF) is None
