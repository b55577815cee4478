"""The command as a whole, on a small network, by clocks that do not depend on the machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import onnxprune
from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.levers.base import Mixture
from onnxprune.driver.optimize import Clock, OptimizeResult, _nothing, optimize
from onnxprune.driver.prune import analyzed
from onnxprune.driver.trials import Trial, WithinDrop
from onnxprune.errors import ModelError, OptionError, TargetError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.kernels import build
from onnxprune.options.optimize import OptimizeRecipe
from onnxprune.passes import Decode
from onnxprune.runtime.custom_operators import libraries
from onnxprune.runtime.session import Session
from onnxprune.verify.metrics import Evaluation, QualityScore
from optimizable import X, clock, cost, net, steady_table

DATA = {"x": X}


@pytest.fixture(autouse=True)
def steady(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    steady_table(tmp_path_factory, monkeypatch)


def run(timed: Clock | None = None, samples: Any = DATA, source: Any = None, **fields: Any) -> OptimizeResult:
    return optimize(source or net(), OptimizeRecipe(**fields), samples=samples, clock=timed or clock())


def alone(result: OptimizeResult, *levers: str) -> list[Any]:
    return [row for row in result.report.tried if set(row["choices"]) == set(levers)]


def test_the_result_is_within_the_drop_and_no_slower_than_any_lever_alone() -> None:
    result = run(max_drop="5%", metric="mse")
    report = result.report
    assert report.score.original - report.score.pruned <= 0.05
    holding = [row for row in report.tried if row["holds"]]
    assert report.latency == pytest.approx(min(row["latency"] for row in holding))
    assert alone(result, "channels")
    assert alone(result, "precision")
    assert report.latency == pytest.approx(cost(result.compiled, 0.5) / cost(Model.of(net()), 0.5))
    assert [row["mixture"] for row in report.tried if row["chosen"]] == [report.chosen]
    onnx.checker.check_model(result.model)


def test_the_score_is_of_what_is_written_on_samples_that_were_held_out() -> None:
    result = run(max_drop="5%", metric="mse")
    held = X[3::4]
    before, after = (Session(Model.of(proto), fuse=True).run({"x": held})[0] for proto in (net(), result.model))
    expected = 1 - np.square(after.astype(float) - before).mean() / before.var()
    assert result.report.score.pruned == pytest.approx(expected, abs=1e-5)
    assert result.report.score.samples == len(held)
    assert "each fourth sample" in result.report.judged


def test_every_model_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[bytes] = []
    of = Evaluation.of

    def counted(self: Evaluation, model: Model) -> QualityScore:
        judged.append(model.to_proto().SerializeToString())
        return of(self, model)

    monkeypatch.setattr(Evaluation, "of", counted)
    result = run(max_drop="5%", metric="mse")
    assert len(judged) == len(set(judged)) == len(result.report.tried) - 1


def test_sizes_are_those_of_files(tmp_path: Path) -> None:
    source = net()
    source.doc_string = "a file is more than its weights " * 2000
    onnx.save(source, tmp_path / "net.onnx")
    result = run(source=tmp_path / "net.onnx", target="size=0.6", metric="mse")
    result.save(tmp_path / "small.onnx")
    sizes = tuple((tmp_path / name).stat().st_size for name in ("net.onnx", "small.onnx"))
    assert result.report.nbytes == sizes
    assert result.report.size == pytest.approx(sizes[1] / sizes[0])
    assert result.report.size <= 0.6


def test_samples_of_their_own_judge() -> None:
    result = run(samples=None, calib="optimizable:calib", eval="optimizable:judges", max_drop="5%", metric="mse")
    assert result.report.score.samples == 24
    assert "optimizable:judges" in result.report.judged


def test_where_int8_is_slow_channels_alone_are_cut() -> None:
    report = run(clock(int8=3.0), max_drop="5%", metric="mse").report
    assert "int8" not in report.chosen
    assert any("int8" in row["mixture"] and row["latency"] > 1 for row in report.tried)


@pytest.mark.parametrize("target", ["latency=0.4", "size=0.3"])
def test_a_target_is_met(target: str) -> None:
    report = run(target=target, metric="mse").report
    metric, fraction = target.split("=")
    assert getattr(report, metric) <= float(fraction)
    met = [row["score"] for row in report.tried if row["holds"]]
    assert report.score.pruned == max(met)


def test_exact_parts_are_proven_and_drifts_are_listed() -> None:
    report = run(target="size=0.15", metric="mse", require_proof=True).report
    assert [lever.lever for lever in report.levers] == ["channels", "precision"]
    channels, precision = report.levers
    assert channels.check is not None
    assert channels.check.ok
    assert list(channels.drift) == ["cut", "repaired"]
    assert channels.drift["repaired"].relative < channels.drift["cut"].relative
    assert list(precision.drift) == ["rounded"]
    assert precision.size == pytest.approx(report.size)
    assert channels.size > precision.size


def test_the_same_seed_and_times_give_the_same_bytes() -> None:
    one, other = (run(target="latency=0.4", metric="mse").model.SerializeToString() for _ in range(2))
    assert one == other


def test_the_report_is_plain_data() -> None:
    document = run(target="size=0.3", metric="mse").report.to_dict()
    assert json.loads(json.dumps(document)) == json.loads(json.dumps(document))
    assert {"tried", "levers", "latency", "size", "score", "judged"} <= document.keys()


@pytest.mark.skipif(not build.compiler(), reason="no C compiler")
def test_kernels_are_mixed_in_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros alone, and in what channels were cut of; what is written runs in stock ONNX Runtime."""
    monkeypatch.setattr("onnxprune.driver.levers.zeros.OrtTimer", lambda: lambda _: [4.0, 1.0])

    def taken(model: Model) -> float:
        fast = {node.input[1] for node in model.graph.node if node.domain == "onnxprune"}
        weights = Decode().run(model).weights
        return sum(
            2.0 * np.count_nonzero(weight.array()) if name in fast else weight.size * (1.0 if weight.is_float else 1.5)
            for name, weight in weights.items()
        )

    timed = Clock(lambda original, models, _: [taken(model) / taken(original) for model in models], clock(int8=1.5).nodes)
    source = net()
    for tensor in source.graph.initializer:
        if tensor.name in {"w2", "w3"}:  # most of their blocks are small
            array = numpy_helper.to_array(tensor)
            small = np.repeat(np.random.default_rng(1).random((len(array) // 4, *array.shape[1:])) < 0.8, 4, axis=0)
            tensor.CopyFrom(numpy_helper.from_array(np.where(small, array * np.float32(0.02), array), tensor.name))
    result = run(timed, source=source, target="latency=0.45", metric="mse", kernels=True, require_proof=True)
    report = result.report
    assert alone(result, "zeros")
    assert alone(result, "channels", "zeros")
    assert report.latency <= 0.45
    assert [lever.lever for lever in report.levers][-1] == "zeros"
    assert report.levers[-1].check
    assert "with sparse kernels" in report.levers[-1].check.notes[-1]
    assert {layer.pattern for layer in report.kernels} == {"4x1"}
    assert report.to_dict()["kernels"][0]["pattern"] == "4x1"
    assert report.after.macs <= report.before.macs
    assert any("onnxprune.kernels.register" in note for note in report.notes)
    assert libraries() == ()
    result.save(tmp_path / "fast.onnx")
    plain = ort.InferenceSession(tmp_path / "fast.onnx").run(None, {"x": X[3::4]})[0]
    expected = Session(Model.of(source)).run({"x": X[3::4]})[0]
    score = 1 - np.square(plain.astype(float) - expected).mean() / expected.var()
    assert score == pytest.approx(report.score.pruned, abs=1e-4)


def test_without_a_compiler_kernels_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise OptionError("nothing compiles")

    monkeypatch.setattr("onnxprune.driver.optimize.library", refuse)
    with pytest.raises(OptionError, match="nothing compiles"):
        run(kernels=True)


def test_macs_are_counted_of_what_int8_was_made_of() -> None:
    result = run(target="size=0.15", metric="mse")
    assert [lever.lever for lever in result.report.levers] == ["channels", "precision"]
    before, after = result.report.before, result.report.after
    assert before.macs == analyzed(net()).costs.original().macs
    assert 0 < after.macs < before.macs
    assert after.params < before.params
    assert after.size == len(result.model.SerializeToString())


def test_an_input_is_not_changed() -> None:
    proto = net()
    before = proto.SerializeToString()
    run(source=proto, target="size=0.3", metric="mse")
    assert proto.SerializeToString() == before


# What is refused


def test_nothing_is_fast_enough_within_the_drop() -> None:
    same = Clock(lambda _, models, __: [1.0] * len(models), clock().nodes)
    words = r"nothing of \d+ mixtures is clearly faster within a drop of 1\.00%: the fastest, int8, takes 1\.000 .* 0\.00%; allow"
    with pytest.raises(TargetError, match=words):
        run(same, max_drop="1%", metric="mse")


def test_where_nothing_holds_the_fastest_is_named_and_what_keeps_most() -> None:
    one, other = Mixture().having("precision", "int8"), Mixture().having("channels", "latency=0.9")
    rows = [Trial(one, 0.5, 0.3, 0.8), Trial(other, 0.9, 0.9, 0.97)]
    tried = {Mixture(): Trial(Mixture(), 1, 1, 1)} | {row.mixture: row for row in rows}
    trials: Any = SimpleNamespace(original=Model.of(net()), tried=tried, failed={}, levers=(), over=True)
    told = _nothing(trials, WithinDrop(1.0, 0.01))
    assert (
        "the fastest, int8, takes 0.500 of the original's time and loses 20.00%; what keeps most, latency=0.9, takes 0.900"
        in told
    )
    assert told.endswith("loses 3.00%; the time was over: give more --time")


def test_what_was_fast_only_once_is_not_taken() -> None:
    """A model that was timed luckily in the search does not hold afresh; one of the next does."""
    calls: list[int] = []

    def ratios(original: Model, models: Any, seconds: float) -> list[float]:
        calls.append(len(models))
        times = clock().ratios(original, models, seconds)
        return [0.05] if len(calls) == 1 else times

    report = run(Clock(ratios, clock().nodes), target="latency=0.4", metric="mse").report
    assert report.latency <= 0.4
    assert report.tried[1]["latency"] == 0.05
    assert not report.tried[1]["chosen"]


def test_a_target_that_cannot_be_reached() -> None:
    with pytest.raises(TargetError, match=r"target size=0\.01 cannot be reached: .* comes nearest of \d+ mixtures with size=0\."):
        run(target="size=0.01", metric="mse")


def test_without_time_nothing_is_found() -> None:
    with pytest.raises(TargetError, match=r"nothing could be tried within the time: "):
        run(max_drop="1%", time="0.001s")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("", "add --calib DATA"),
        ({"x": X[:8]}, "has 8 samples; each fourth is held out to judge by, so give 16 or more, or others with --eval DATA"),
    ],
)
def test_too_few_samples(samples: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run(samples=samples)


def test_a_model_in_int8_is_refused() -> None:
    rounded = onnxprune.quantize(net(), samples=DATA).model
    with pytest.raises(ModelError, match=r"computes in int8 already .*: optimise the model it came from"):
        run(source=rounded)


def test_a_model_without_weights_is_refused() -> None:
    proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Exp(x) }')
    with pytest.raises(ModelError, match="has no floating-point weights"):
        run(source=proto)


def test_outputs_that_must_be_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise VerificationError("not tested")

    monkeypatch.setattr("onnxprune.driver.optimize.demand", refused)
    with pytest.raises(VerificationError, match="not tested"):
        run(target="size=0.15", metric="mse", require_proof=True)


def test_few_judges_are_noted() -> None:
    notes = run(max_drop="5%", metric="mse").report.notes
    assert any("24 samples judge" in note for note in notes)


@pytest.mark.parametrize(("drop", "given", "noted"), [("0.01%", "auto", True), ("0.01%", "yes", False), ("90%", "auto", False)])
def test_where_int8_loses_too_much_its_bits_are_noted(drop: str, given: str, noted: bool) -> None:
    notes = run(max_drop=drop, metric="mse", reduce_range=given).report.notes
    assert any("--reduce-range no may keep more" in note for note in notes) is noted


# The clock


def test_models_are_timed_at_the_sizes_of_the_samples() -> None:
    """The width is open, and nothing else says what it is."""
    model = Model.of(parse("(float[N, 4, W] x) => (float[N, 6, W] y) <float[6, 4, 1] w> { y = Conv(x, w) }"))
    timed = Clock.at(open_samples({"x": np.ones((2, 4, 50), np.float32)}, model.inputs))
    assert [one.output_bytes for one in timed.nodes(model) if one.op == "Conv"] == [4 * 6 * 50]
    (ratio,) = timed.ratios(model, [model], 0.0)
    assert ratio > 0


@pytest.mark.parametrize(("bias", "told"), [(0.0, False), (1e3, True)])
def test_one_answer_for_all_samples_is_told(bias: float, told: bool) -> None:
    proto = net()
    for tensor in proto.graph.initializer:
        if tensor.name == "b4":
            tensor.CopyFrom(numpy_helper.from_array(np.array([bias, *np.zeros(9)], np.float32), "b4"))
    result = run(source=proto, max_drop="50%", metric="agreement")
    assert any("one answer for all" in note for note in result.report.notes) == told
