from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.latency.benchmark import benchmark
from timed_models import QUICK

FRAMES = """<ir_version: 9, opset_import: ["" : 18]> g (float[N, 1, samples] audio) => (float[N, 4, frames] y) {
    y = Conv <strides = [160]> (audio, w)
}"""


def framed(channels: int = 4) -> bytes:
    """Windows of 400 samples, to which 64 are too few."""
    proto = onnx.parser.parse_model(FRAMES)
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = channels
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((channels, 1, 400), np.float32), "w"))
    return bytes(proto.SerializeToString())


def test_a_window_is_filled_where_the_plain_size_does_not_do() -> None:
    report = benchmark([framed(), framed(2)], batches=[1, 3], **QUICK)
    assert [row.batch for row in report.rows] == [1, 1, 3, 3]
    for row in report.rows:
        assert row.inputs["audio"][0] == row.batch
        assert row.inputs["audio"][2] >= 400
    assert report.rows[1].ratio is not None
    assert any("sizes that the model takes: audio [1, 1, " in note for note in report.rows[0].notes)


def test_what_looks_like_a_batch_may_be_frames() -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]> g (float[frames_0, bins_0] x) => (float[b, c, f, 1] y) {
        image = Reshape (x, s)
        y = Conv (image, w)
    }"""
    proto = onnx.parser.parse_model(text)
    constants = {"s": np.array([1, 1, -1, 24]), "w": np.ones((1, 1, 8, 24), np.float32)}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    report = benchmark([bytes(proto.SerializeToString())] * 2, **QUICK)
    frames, bins = report.rows[0].inputs["x"]
    assert frames * bins >= 8 * 24
    assert report.rows[1].inputs == report.rows[0].inputs


def test_what_the_user_gives_stays() -> None:
    report = benchmark([framed()], shapes={"audio": [-1, 1, 800]}, **QUICK)
    assert report.rows[0].inputs["audio"] == (1, 1, 800)
    assert not report.rows[0].notes
