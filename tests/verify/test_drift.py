"""How far outputs are from the original's."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from onnx import numpy_helper

from nets import NETS, parse
from onnxprune.data.samples import held_out, open_samples
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.verify.drift import Changed, measure_drift
from verify.test_law import constant_output


def test_a_model_does_not_drift_from_itself() -> None:
    model = Model.of(parse(NETS["flatten"]))
    found = measure_drift(model, model, None)
    assert (found.cosine, found.relative, found.agreement) == pytest.approx((1, 0, 1))
    assert (found.samples, found.source) == (16, "seeded noise")


def test_drift_on_samples_by_hand() -> None:
    def scaled(factor: float) -> Model:
        model = parse("(float[N,2] x) => (float[N,2] y) <float[2] c> { y = Mul(x, c) }")
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([1, factor], np.float32), "c"))
        return Model.of(model)

    x = np.array([[1, 0], [0, 1], [2, 1]], np.float32)
    found = measure_drift(scaled(-1), scaled(1), open_samples({"x": x}, scaled(1).inputs))
    assert found.cosine == pytest.approx((1 - 1 + 3 / 5) / 3)
    assert found.relative == pytest.approx(np.sqrt(8 / 7))
    assert found.agreement == pytest.approx(2 / 3)
    assert (found.samples, found.source) == (3, "samples")


def test_samples_with_another_answer_are_named() -> None:
    def flipped(factor: float) -> Model:
        model = parse("(float[N,2] x) => (float[N,2] y) <float[2] c> { y = Mul(x, c) }")
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([1, factor], np.float32), "c"))
        return Model.of(model)

    x = np.tile(np.array([[1, 0.5]], np.float32), (40, 1))
    x[[17, 31]] = [0.5, 1]
    label = np.arange(40) % 2
    given = open_samples({"x": x, "label": label}, flipped(1).inputs)
    found = measure_drift(flipped(-1), flipped(1), given)
    assert found.changed == (Changed(17, 1, 0, 1), Changed(31, 1, 0, 1))
    _, held = held_out(given, flipped(1).inputs, 8)
    assert measure_drift(flipped(-1), flipped(1), held).changed == (Changed(31, 1, 0, 1),)
    assert measure_drift(flipped(-1), flipped(1), None).changed == ()
    whole = open_samples({"x": np.flip(x, 1).copy(), "label": label.astype(np.float32)}, flipped(1).inputs)
    many = measure_drift(flipped(-1), flipped(1), whole).changed
    assert len(many) == 24
    assert {one.label for one in many} == {None}


def test_integer_outputs_do_not_drift() -> None:
    model = constant_output(np.array([1, 2]), "int64")
    assert measure_drift(model, model, None).source == "no floating-point output"


@pytest.mark.parametrize(("batch", "taken"), [("N", 64), ("10", 60), ("80", 80)])
def test_drift_takes_the_first_samples(batch: str, taken: int) -> None:
    model = Model.of(parse(f"(float[{batch},2] x) => (float[{batch},2] y) {{ y = Relu(x) }}"))
    samples = open_samples({"x": np.ones((100, 2))}, model.inputs)
    assert measure_drift(model, model, samples).samples == taken


def test_a_graph_made_for_one_sample_drifts_too() -> None:
    model = Model.of(parse("(float[N,2] x) => (float[N,2] y) <int64[2] shape = {1, 2}> { y = Reshape(x, shape) }"))
    assert measure_drift(model, model, None).samples == 16
    assert measure_drift(model, model, open_samples({"x": np.ones((3, 2))}, model.inputs)).samples == 3


def test_samples_in_batches_that_the_model_takes() -> None:
    """Seven views of each sample go together: 16 samples at a time are no whole number of them."""
    model = Model.of(parse("(float[N,4] x) => (float[M,4] y) <int64[3] to = {-1, 7, 4}> { v = Reshape(x, to) y = ReduceMax(v) }"))
    samples = open_samples({"x": np.random.default_rng(0).normal(size=(20, 4))}, model.inputs)
    assert measure_drift(model, model, samples).samples == 7
    assert measure_drift(model, model, None).samples == 7


def test_samples_that_the_model_does_not_take() -> None:
    model = Model.of(parse("(float[N,T] x) => (float[N,7] y) <int64[2] shape = {-1, 7}> { y = Reshape(x, shape) }"))
    samples = open_samples({"x": np.ones((3, 3))}, model.inputs)
    with pytest.raises(ModelError, match="samples: the model does not run on it"):
        measure_drift(model, model, samples)


def test_outputs_without_entries_do_not_drift() -> None:
    model = Model.of(parse("(float[N,2] x) => (float[0,2] y) <int64[1] s = {0}, int64[1] e = {0}> { y = Slice(x, s, e) }"))
    assert measure_drift(model, model, None).source == "no floating-point output"


def test_the_memory_of_drift_is_that_of_a_batch() -> None:
    model = Model.of(parse("(float[N,100000] x) => (float[N,100000] y) { y = Relu(x) }"))
    x = np.ones((1, 100000), np.float32)
    peaks = []
    for count in (8, 64):
        samples = open_samples({"x": np.broadcast_to(x, (count, 100000))}, model.inputs)
        tracemalloc.start()
        measure_drift(model, model, samples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 3 * peaks[0]


def test_outputs_that_are_not_numbers_in_parts() -> None:
    """A pitch is NaN where nothing sounds: that is no drift, and is said; the other entries count."""
    net = "(float[N,3] x) => (float[N,3] pitch) <float[1] c = {C}> { r = Sqrt(x) pitch = Mul(r, c) }"
    model, other, broken = (Model.of(parse(net.replace("C", c))) for c in ("1", "-1", "nan"))
    samples = open_samples({"x": np.array([[-1, 4, 9], [1, -1, -1], [-1, -1, -1]], np.float32)}, model.inputs)
    same, turned, nothing = (measure_drift(one, model, samples) for one in (model, other, broken))
    assert turned.cosine == pytest.approx(-1 / 3), "one sample has no number"
    assert turned.relative == pytest.approx(2)
    assert nothing.cosine == pytest.approx(1 / 3)
    assert nothing.relative == pytest.approx(1)
    assert same.source == "samples, 'pitch' is not a number in parts"
    assert same.cosine == pytest.approx(1)
    assert same.relative == 0
