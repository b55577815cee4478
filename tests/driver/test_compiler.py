"""One model, many targets: what is worked out once, what is proven, what is repaired."""

from __future__ import annotations

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.compiler import EXPONENTS, Compiler, Stages, drifted
from onnxprune.errors import ModelError, OptionError, TargetError
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.passes import Facts, MaskChannels, Sensitivity
from onnxprune.passes.base import need
from onnxprune.verify.law import compare

X = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)


def compiler(net: str = "residual", *, data: bool = True, **options: object) -> Compiler:
    model = Model.of(parse(NETS[net]))
    samples = open_samples({"x": X}, model.inputs) if data else None
    return Compiler(model, Recipe(align="1", **options), samples)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["macs=0.5", "params=0.6", "size=0.7", "channels=0.5"])
def test_targets_with_data(target: str) -> None:
    made = compiler()
    built = made.build(target)
    assert built.check is not None
    assert built.check.ok
    assert built.plan.keep
    assert built.facts.repairs
    metric, _, fraction = target.partition("=")
    if metric != "channels":
        costs = need(built.facts.costs, "costs")
        counts = {g.factor: len(built.plan.keep.get(g.id, range(g.size))) for g in made.curves()[0].groups}
        assert costs.total(metric, counts) <= float(fraction) * costs.total(metric, {})


def test_repair_brings_the_model_nearer() -> None:
    plain, repaired = (compiler(repair=repair, criterion="l2", scope="global").build("macs=0.5") for repair in (False, True))
    assert {name: kept.tolist() for name, kept in plain.plan.keep.items()} == {
        name: kept.tolist() for name, kept in repaired.plan.keep.items()
    }
    held = need(repaired.facts.calibration, "calibration").held
    assert drifted(repaired.pruned, repaired.model, held) < 0.7 * drifted(plain.pruned, plain.model, held)
    assert not plain.facts.repairs


def test_repair_on_noise_brings_the_model_nearer_to_the_original_on_other_inputs() -> None:
    made = [compiler(data=False, repair=repair, calib="noise") for repair in (False, True)]
    plain, repaired = (one.build("macs=0.5") for one in made)
    assert {name: kept.tolist() for name, kept in plain.plan.keep.items()} == {
        name: kept.tolist() for name, kept in repaired.plan.keep.items()
    }
    assert repaired.facts.repairs
    assert not plain.facts.repairs
    feeds = [{"x": X}]
    assert drifted(repaired.pruned, repaired.model, feeds) < 0.7 * drifted(plain.pruned, plain.model, feeds)  # type: ignore[arg-type]


def test_repair_on_noise_that_does_not_help_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.driver.compiler.drifted", lambda *_: 1.0)
    built = compiler(data=False, calib="noise").build("macs=0.5")
    assert not built.facts.repairs
    assert built.check is not None
    assert built.check.ok
    _, facts = compiler(data=False).planned("macs=0.5")
    masked = MaskChannels()(built.model, Facts(facts.shapes, facts.coupling, plan=built.plan))
    assert compare(built.pruned, masked).ok


def test_noise_does_not_stand_in_for_indices() -> None:
    model = parse("(int64[N,T] ids) => (float[N,T,4] y) <float[9,8] w, float[8,4] v> { e = Gather(w, ids) y = MatMul(e, v) }")
    with pytest.raises(OptionError, match="input 'ids'"):
        Compiler(Model.of(model), Recipe(align="1", calib="noise")).build("channels=0.5")


def test_curves_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    run = Sensitivity.run

    def counted(self: Sensitivity, model: Model, facts: Facts) -> Model:
        runs.append(1)
        return run(self, model, facts)

    monkeypatch.setattr(Sensitivity, "run", counted)
    made = compiler()
    for target in ("macs=0.7", "macs=0.5"):
        made.build(target)
    assert runs == [1]
    assert made._exponent in EXPONENTS


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again = (compiler(seed=3).build("macs=0.5").pruned.to_proto().SerializeToString() for _ in range(2))
    assert first == again


def test_groups_that_break_the_law_are_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """And planned around from then on, with the same curves."""
    import onnxprune.driver.compiler as module

    made = compiler("chain")
    victim = made.curves()[0].groups[0].id
    prove = module.law

    def wrong(model: Model, facts: object, pruned: Model, seed: int) -> object:
        outcome = prove(model, facts, pruned, seed)  # type: ignore[arg-type]
        broken = victim in need(facts.plan, "plan").keep  # type: ignore[attr-defined]
        return compare(pruned, _other(model)) if broken else outcome

    monkeypatch.setattr(module, "law", wrong)
    built = made.build("macs=0.6")
    assert set(built.facts.frozen) == {victim}
    assert victim not in built.plan.keep
    assert built.facts.repairs


def _other(model: Model) -> Model:
    """A model that computes something else."""
    return Model.of(parse(NETS["chain"].replace("Relu", "Neg")))


@pytest.mark.parametrize("option", [{"criterion": "obs"}, {"scope": "sensitivity"}])
def test_what_needs_data_says_so(option: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="needs samples: add --calib DATA"):
        compiler(data=False, **option)


def test_an_unreachable_target() -> None:
    with pytest.raises(TargetError, match=r"target macs=0.01 cannot be reached: at least macs="):
        compiler().build("macs=0.01")


def test_a_model_without_floats() -> None:
    text = "(int64[N,2] x) => (int64[N,2] y) <int64[2] w = {1, 2}> { y = Add(x, w) }"
    with pytest.raises(ModelError, match="has no floating-point weights"):
        Compiler(Model.of(parse(text)), Recipe()).build()


def test_stages_are_timed() -> None:
    told: list[str] = []
    stage = Stages(told.append)
    with stage("one", "doing one"):
        pass
    assert told == ["doing one"]
    assert stage.seconds["one"] >= 0
