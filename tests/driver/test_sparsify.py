"""Whole models made sparse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from nets import parse
from onnxprune import SparseRecipe, sparsify
from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import analyze
from onnxprune.driver.sparsifier import gzipped
from onnxprune.errors import OptionError, TargetError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array, Weight
from onnxprune.passes import Encode
from onnxprune.passes.encode import EncodedModel
from onnxprune.runtime.session import Session
from sparse_nets import NET, X

DIGITS = str(Path(__file__).resolve().parents[2] / "models" / "digits.onnx")


def zeros(model: onnx.ModelProto) -> dict[str, float]:
    return {t.name: float((onnx.numpy_helper.to_array(t) == 0).mean()) for t in model.graph.initializer if len(t.dims) > 1}


@pytest.mark.parametrize("allocation", ["auto", "uniform", "erk", "lamp", "global"])
def test_a_sparsity_is_met_to_the_weight(allocation: str) -> None:
    result = sparsify(DIGITS, SparseRecipe(target="sparsity=0.8", allocation=allocation), agreement=False)
    total = sum(layer.size for layer in result.report.layers)
    assert result.report.zeros == total - round(0.2 * total)
    found = zeros(result.model)
    assert found["stem.0.weight"] == found["classifier.weight"] == 0
    onnx.checker.check_model(result.model)


def test_with_samples_shares_are_measured_and_outputs_stay_near() -> None:
    model = parse(NET)
    blind = sparsify(model, SparseRecipe(target="sparsity=0.7"), samples=None)
    result = sparsify(model, SparseRecipe(target="sparsity=0.7"), samples={"x": X})
    assert result.report.method == "admm"
    assert result.report.allocation == "sensitivity"
    assert result.report.sparsity == pytest.approx(0.7, abs=1e-3)
    assert result.report.drift is not None
    (y,), (a,), (b,) = (Session(Model.of(m)).run({"x": X}) for m in (model, result.model, blind.model))
    assert np.square(a - y).mean() < 0.5 * np.square(b - y).mean()


def test_the_way_to_add_errors_whose_model_is_nearest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Model] = []

    def made(exponents: tuple[float, ...], *distances: float) -> Model:
        """The model, where that is how far those that are tried are from the original."""
        left = iter(distances)

        def drifted(changed: Model, _original: Model, feeds: Iterable[Mapping[str, Array]]) -> float:
            tried.append(changed)
            assert sum(len(feed["x"]) for feed in feeds) <= len(X) // 4, "repair has not seen what it is judged by"
            return next(left)

        monkeypatch.setattr("onnxprune.driver.sparsifier.LAYER_EXPONENTS", exponents)
        monkeypatch.setattr("onnxprune.driver.exponents.drifted", drifted)
        recipe = SparseRecipe(target="sparsity=0.7", method="magnitude")
        return Model.of(sparsify(parse(NET), recipe, samples={"x": X}, agreement=False).model)

    def kept(model: Model) -> dict[str, int]:
        return {name: int(np.count_nonzero(weight.array())) for name, weight in model.weights.items() if weight.is_float}

    uneven, even = made((0.1,), 0), made((4.0,), 0)
    assert kept(uneven) != kept(even)
    assert [kept(model) for model in tried] == [kept(uneven), kept(even)]
    assert not np.array_equal(tried[0].weights["inner"].array(), uneven.weights["inner"].array()), (
        "at last repair sees all samples"
    )
    assert kept(made((0.1, 4.0), 1, 2)) == kept(uneven)
    assert kept(made((0.1, 4.0), 2, 1)) == kept(even)
    monkeypatch.setattr("onnxprune.driver.exponents._WORK", 0)
    assert kept(made((0.1, 4.0))) == kept(uneven), "too large to try"


def test_runs_repeat_to_the_bit() -> None:
    runs = [sparsify(parse(NET), samples={"x": X}).model.SerializeToString() for _ in range(2)]
    assert runs[0] == runs[1]


def test_layers_may_have_sparsities_of_their_own() -> None:
    recipe = SparseRecipe(target="sparsity=0.5", layers=("inner=0.9", "fir*=0.25"), allocation="uniform")
    found = zeros(sparsify(parse(NET), recipe, agreement=False).model)
    assert found["inner"] == pytest.approx(0.9, abs=1e-2)
    assert found["first"] == pytest.approx(0.25, abs=1e-2)
    assert found["depth"] == pytest.approx(0.5, abs=1e-2)
    assert found["last"] == 0


def test_a_pattern_says_all() -> None:
    report = sparsify(DIGITS, SparseRecipe(pattern="2:4"), agreement=False).report
    assert report.requested == "2:4"
    assert all(layer.kept <= layer.size / 2 for layer in report.layers if layer.shape[1] % 4 == 0)


def test_a_file_size_is_met_with_an_encoding(tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    result = sparsify(DIGITS, SparseRecipe(target="size=0.4", encoding="auto"), agreement=False)
    result.save(out)
    assert out.stat().st_size == result.report.size[1]
    assert 0.39 * Path(DIGITS).stat().st_size <= out.stat().st_size <= 0.4 * Path(DIGITS).stat().st_size


def test_encoded_is_what_dense_is() -> None:
    dense, small = (sparsify(DIGITS, SparseRecipe(target="sparsity=0.8", encoding=e), agreement=False) for e in ("dense", "auto"))
    assert small.report.size[1] < 0.3 * small.report.size[0]
    decoded = onnxprune.decode(small.model).model
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in decoded.graph.initializer}
    for tensor in dense.model.graph.initializer:
        assert np.array_equal(weights[tensor.name], onnx.numpy_helper.to_array(tensor))


def test_channels_change_places_where_that_keeps_more() -> None:
    moved, still = (sparsify(DIGITS, SparseRecipe(pattern="2:4", permute=p)).report for p in (True, False))
    assert moved.permuted
    assert not still.permuted
    energies = [sum(layer.energy for layer in report.layers) for report in (moved, still)]
    assert energies[0] > energies[1]


def test_an_order_that_breaks_the_model_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.verify import law
    from onnxprune.verify.verdicts import Check

    real = law.compare

    def compare(changed: Model, *args: Any, **options: Any) -> Check:
        same = changed.weights["last.0.weight"].shape and bool(
            np.array_equal(changed.weights["last.0.weight"].array(), Model.of(DIGITS).weights["last.0.weight"].array())
        )
        return real(changed, *args, **options) if same else Check(ok=False, error=1.0, text="broken")

    monkeypatch.setattr(law, "compare", compare)
    report = sparsify(DIGITS, SparseRecipe(pattern="2:4"), agreement=False).report
    assert report.permuted
    assert not any("last" in name for name in report.permuted)


def test_ends_and_protection() -> None:
    model = parse(NET)
    found = zeros(sparsify(model, SparseRecipe(ends=True, protect=("inner",), allocation="uniform"), agreement=False).model)
    assert found["first"] == found["last"] == 0.5
    assert found["inner"] == 0
    with pytest.raises(OptionError, match="only first and last layers are left: pass --ends"):
        sparsify(model, SparseRecipe(protect=("inner", "depth", "skip")))


def test_a_threshold_is_by_layer() -> None:
    model = Model.of(parse(NET))
    report = sparsify(parse(NET), SparseRecipe(target="threshold=0.5"), agreement=False).report
    for layer in report.layers:
        w = model.weights[layer.weight].array()
        assert layer.kept == np.count_nonzero(np.abs(w) >= 0.5 * w.std())
    recipe = SparseRecipe(target="threshold=0.5", layers=("inner=0.75",))
    kept = {layer.weight: layer.kept for layer in sparsify(parse(NET), recipe, agreement=False).report.layers}
    assert kept == {layer.weight: layer.kept for layer in report.layers} | {"inner": 144}


def test_a_compressed_size_is_met_and_nearly_used_up() -> None:
    whole = gzipped(Model.of(DIGITS))
    report = sparsify(DIGITS, SparseRecipe(target="gzip=0.4"), agreement=False).report
    assert 0.38 * whole <= report.gzip[1] <= 0.4 * whole
    with pytest.raises(TargetError, match="cannot be reached: at a sparsity of"):
        sparsify(DIGITS, SparseRecipe(target="gzip=0.01"), agreement=False)


def test_reports_are_data() -> None:
    report: dict[str, Any] = sparsify(DIGITS, agreement=False).report.to_dict()
    assert report["sparsity"] == pytest.approx(0.5, abs=1e-4)
    assert {"layers", "gzip", "size", "overall", "seconds"} <= report.keys()
    assert all(0 <= layer["energy"] <= 1 for layer in report["layers"])


def test_notes_say_what_would_help() -> None:
    blind = sparsify(DIGITS, agreement=False).report.notes
    assert any("--calib" in note for note in blind)
    assert any("encode" in note for note in blind)
    assert not sparsify(parse(NET), SparseRecipe(encoding="auto"), samples={"x": X}, agreement=False).report.notes


def test_what_is_public() -> None:
    assert onnxprune.sparsify is sparsify


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_gradients_choose_weights(allocation: str) -> None:
    """Without repair what stays is as it was: of each layer the weights of highest importance, or of all layers together."""
    importance = pytest.importorskip("onnxprune.torch.importance", reason="PyTorch is not installed")
    samples = {"x": np.random.default_rng(0).random((16, 1, 8, 8), np.float32), "label": np.arange(16) % 10}
    recipe = SparseRecipe("sparsity=0.7", method="snip", allocation=allocation, repair=False)
    result = sparsify(DIGITS, recipe, samples=samples, agreement=False)
    before, after = Model.of(DIGITS), Model.of(result.model)
    opened = open_samples(samples, before.inputs)
    scores = importance.weight_importance(before, "snip", Calibration.of(opened, analyze(DIGITS).shapes).fit)
    kept = {layer.weight: after.weights[layer.weight].array() != 0 for layer in result.report.layers}
    for name, mask in kept.items():
        assert scores[name][mask].min() >= scores[name][~mask].max()
        assert np.array_equal(after.weights[name].array()[mask], before.weights[name].array()[mask])
    shares = {round(float(mask.mean()), 2) for mask in kept.values()}
    assert (len(shares) == 1) is (allocation == "uniform")


def test_gradients_that_ask_how_a_loss_falls_need_labels() -> None:
    pytest.importorskip("onnxprune.torch.importance", reason="PyTorch is not installed")
    with pytest.raises(OptionError, match="grasp asks how a loss falls"):
        sparsify(DIGITS, SparseRecipe(method="grasp"), samples={"x": np.eye(16, 64, dtype=np.float32).reshape(16, 1, 8, 8)})
    with pytest.raises(OptionError, match="method 'taylor' needs samples"):
        sparsify(DIGITS, SparseRecipe(method="taylor"))


@pytest.mark.parametrize("method", ["admm", "obs"])
def test_one_sample_alone_is_noted(method: str) -> None:
    """Its features do not vary: moments of float32 differ by their rounding alone."""
    x = np.random.default_rng(0).random((1, 1, 8, 8), np.float32)
    report = sparsify(DIGITS, SparseRecipe(sparsity=0.5, method=method), samples={"x": x}).report
    assert "samples: one sample alone shows little of the data: give more" in report.notes


@pytest.mark.parametrize("samples", [None, {"x": X}])
def test_the_result_is_the_file_with_the_same_weights(samples: dict[str, Array] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = SparseRecipe(sparsity=0.6, encoding="auto", require_proof=True)
    check = sparsify(parse(NET), recipe, samples=samples, agreement=False).report.verification
    assert check is not None
    assert check.runs == 3
    assert not check.notes
    right = Encode.run

    def wrong(self: Encode, given: Model, _: object) -> EncodedModel:
        found = right(self, given)
        found.model.weights["last"] = Weight("last", None, found.model.weights["last"].array() * np.float32(1.01))
        return found

    monkeypatch.setattr(Encode, "run", wrong)
    with pytest.raises(VerificationError, match="written, it computes something else than the file"):
        sparsify(parse(NET), recipe, samples=samples, agreement=False)
