"""Statistics of what readers read: equal to numpy's on all rows, however samples come in batches."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from nets import NETS, parse
from onnxprune.data.calibration import CalibrationFeeds
from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import analyze
from onnxprune.ir.weights import Array
from onnxprune.linear import moments
from onnxprune.linear.gather import gather
from onnxprune.linear.moments import MomentSums, Statistics, collect, rows_wanted
from onnxprune.passes.analysis import Analysis
from onnxprune.runtime import session

SAMPLES = 10


def samples_of(found: Analysis) -> dict[str, Array]:
    sizes = {v.name: [d.dim_value or 5 for d in v.type.tensor_type.shape.dim] for v in found.model.inputs}
    return session.random_feeds(found.model.inputs, {name: (SAMPLES, *shape[1:]) for name, shape in sizes.items()}, 3)


def collected(model: ModelProto, batch: int = 4, seed: int = 0) -> tuple[Statistics, dict[str, Array], Analysis]:
    """Statistics over ten samples; every value of the graph for all of them."""
    found = analyze(model)
    samples = samples_of(found)
    names = [name for node in found.model.graph.node for name in node.output]
    values = dict(zip(names, session.Session(found.model, names).run(samples), strict=True))
    feeds = CalibrationFeeds(open_samples(samples, found.model.inputs), batch)
    return collect(found.model, found.coupling, feeds, seed=seed), samples | values, found


def close(got: Array, expected: Array) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


def outer(rows: Array) -> Array:
    """The mean outer product of rows."""
    found: Array = np.mean([np.outer(row, row) for row in rows.astype(np.float64)], 0)
    return found


def ones(rows: Array) -> Array:
    return np.concatenate([rows, np.ones((len(rows), 1))], 1)


@pytest.mark.parametrize("batch", [1, 3, 4, 10])
def test_grams_of_convolutions(batch: int) -> None:
    """Whatever the batches are: the last one is smaller."""
    found, values, _ = collected(parse(NETS["chain"]), batch)
    x, r = values["x"], values["r"]
    for name, read in (("w1", x), ("w2", r)):
        padded = np.pad(read, ((0, 0), (0, 0), (1, 1), (1, 1)))
        places = [(row, column) for row in range(8) for column in range(8)]
        windows = [padded[:, :, row : row + 3, column : column + 3].reshape(SAMPLES, -1) for row, column in places]
        close(found.moments[name].array[0], outer(ones(np.concatenate(windows))))
    s = values["s"].transpose(0, 2, 3, 1).reshape(-1, 6)
    close(found.moments["w3"].array[0], outer(ones(s)))


@pytest.mark.parametrize(("together", "products"), [(1, 10), (64, 10), (65, 5), (512, 5)])
def test_few_rows_wait_for_those_of_other_batches(monkeypatch: pytest.MonkeyPatch, together: int, products: int) -> None:
    """64 rows of 73 features in each of ten batches: those of two batches are enough, and none is lost."""
    expected = collected(parse(NETS["chain"]), 1)[0].moments["w2"].array
    made: list[int] = []
    sums = moments._second_moments

    def counted(rows: Array, *, full: bool) -> list[Array]:
        made.append(rows.shape[2])
        return sums(rows, full=full)

    monkeypatch.setattr(moments, "_TOGETHER", together)
    monkeypatch.setattr(moments, "_second_moments", counted)
    close(collected(parse(NETS["chain"]), 1)[0].moments["w2"].array, expected)
    assert made.count(73) == products


@pytest.mark.parametrize("batch", [1, 4])
def test_grams_of_each_convolution_group(batch: int) -> None:
    found, values, _ = collected(parse(NETS["depthwise"]), batch)
    a = np.pad(values["a"], ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert found.moments["dw"].array.shape == (8, 10, 10)
    for channel in range(8):
        windows = [
            a[:, channel, row : row + 3, column : column + 3].reshape(SAMPLES, 9) for row in range(8) for column in range(8)
        ]
        close(found.moments["dw"].array[channel], outer(ones(np.concatenate(windows))))


@pytest.mark.parametrize("batch", [1, 4])
def test_grams_and_energies_of_attention(batch: int) -> None:
    """Products of activations have energies; a product without a bias has no constant feature."""
    found, values, _ = collected(parse(NETS["attention"]), batch)
    close(found.moments["wqkv"].array[0], outer(ones(values["x"].reshape(-1, 8))))
    close(found.moments["wo"].array[0], outer(values["of"].reshape(-1, 12)))
    assert [reader.affine for reader in found.readers] == [True, False]
    assert [meeting.node.view.outputs[0] for meeting in found.meetings] == ["s"]
    assert found.energies.keys() == {("qh", 3), ("kh", 2)}
    close(found.energies["qh", 3], np.square(values["qh"]).mean((0, 1, 2)))
    close(found.energies["kh", 2], np.square(values["kh"]).mean((0, 1, 3)))


def test_a_gram_of_half_precision_is_single() -> None:
    model = parse("(float16[N,4] x) => (float16[N,3] y) <float16[4,3] w> { y = MatMul(x, w) }")
    found, values, _ = collected(model)
    close(found.moments["w"].array[0], outer(values["x"]))


def arrays(seed: int = 0) -> dict[str, Array]:
    return {name: found.array for name, found in collected(parse(NETS["chain"]), seed=seed)[0].moments.items()}


def test_some_rows_are_drawn_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = arrays()
    monkeypatch.setattr(moments, "rows_wanted", lambda *_: 150)  # of 640
    one, same, other = (arrays(seed) for seed in (0, 0, 1))
    for name, gram in whole.items():
        np.testing.assert_array_equal(one[name], same[name])
        assert not np.array_equal(one[name], other[name])
        assert not np.array_equal(one[name], gram)
        assert np.linalg.norm(one[name] - gram) < 0.5 * np.linalg.norm(gram)


def test_many_features_leave_squares_and_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "MOST_FEATURES", 50)
    monkeypatch.setattr(moments, "rows_wanted", lambda *_: 10**6)
    found, values, _ = collected(parse(NETS["chain"]))
    assert {name: one.array.shape for name, one in found.moments.items()} == {
        "w1": (1, 28, 28),
        "w2": (1, 2, 73),
        "w3": (1, 7, 7),
    }
    centre = found.moments["w2"].array[0].reshape(2, 73)[:, 4:72:9]  # the middle taps read every position once
    close(centre[0], np.square(values["r"]).mean((0, 2, 3)))
    close(centre[1], values["r"].mean((0, 2, 3)))


def test_rows_are_as_many_as_features_need_but_where_rows_are_inverted() -> None:
    assert [rows_wanted(features) for features in (1, 577, 2305, 4609)] == [32768, 32768, 6 * 2305, 6 * 4609]
    assert 6 * 1153 < rows_wanted(1153) < 32768  # as many products as there may be
    assert rows_wanted(4701) == rows_wanted(10_000) == 4700


def test_rows_with_many_numbers_are_fewer_but_as_many_as_features_need() -> None:
    assert rows_wanted(9, 9 * 960) == 2**26 // (9 * 960)
    assert rows_wanted(120, 120 + 6625) == 2**26 // (120 + 6625)
    assert rows_wanted(577, 577 + 64) == 32768
    assert rows_wanted(2305, 10**6) == 6 * 2305
    assert [rows_wanted(features, most=8192) for features in (9, 577, 2305)] == [8192, 8192, 6 * 2305]


def test_a_model_without_readers() -> None:
    found, _, _ = collected(parse("(float[N,4] x) => (float[N,4] y) <float[4] s> { y = Mul(x, s) }"))
    assert (found.readers, found.moments, found.meetings, found.energies) == ((), {}, (), {})


def test_float32_is_enough_over_many_batches_of_values_far_from_zero() -> None:
    text = (
        "(float[N,6] x) => (float[N,3] y) <float[6,5] w1, float[5] b1, float[5,3] w2> { a = Gemm(x, w1, b1) y = MatMul(a, w2) }"
    )
    found = analyze(parse(text))
    x = (100 + np.random.default_rng(0).standard_normal((4096, 6))).astype(np.float32)
    samples = open_samples({"x": x}, found.model.inputs)
    sums = MomentSums(found.model, found.coupling, 2048)
    gather(found.model, CalibrationFeeds(samples, 2), sums)
    wide = np.concatenate([x.astype(np.float64), np.ones((4096, 1))], 1)
    exact = wide.T @ wide / len(wide)
    found32 = sums.statistics().moments["w1"].array[0]
    np.testing.assert_allclose(found32, exact, rtol=2e-6)
    # what is left without the mean, a ten-thousandth of it, is right to some percent
    spread = [one[:6, :6] - np.outer(one[:6, 6], one[:6, 6]) for one in (found32.astype(np.float64), exact)]
    np.testing.assert_allclose(np.diag(spread[0]), np.diag(spread[1]), rtol=0.05)
