"""No size is guessed into a graph: what is pruned is right at every size that the original file takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, numpy_helper

from nets import both, parse
from onnxprune import Recipe, prune
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array

FRAMES = """(float[N,samples] audio) => (float[F,4,252] y) <int64 one = {1}, int64 hop = {256}, int64[1] i0 = {0},
 int64[3] pads = {0, 0, 0}, int64[3] shape = {-1, 1, 256}, int64 zero = {0}, int64[1] i1 = {1}, int64[1] hops = {256},
 float[8,1,3] w1, float[4,8,3] w2> {
  s = Shape(audio)
  n = Gather<axis = 0>(s, one)
  q = Div(n, hop)
  frames = Max(q, one)
  wanted = Mul(frames, hop)
  missing = Sub(wanted, n)
  more = Max(missing, zero)
  m1 = Unsqueeze(more, i0)
  p = Concat<axis = 0>(pads, m1)
  padded = Pad(audio, p)
  f1 = Unsqueeze(frames, i0)
  end = Mul(f1, hops)
  cut = Slice(padded, i0, end, i1)
  f = Reshape(cut, shape)
  a = Conv(f, w1)
  b = Relu(a)
  y = Conv(b, w2)
}"""
"""A pitch detector cuts audio into frames; a short one is padded to one frame."""

POOLED = """(float[N,T,6] x) => (float[N,C,G] y) <int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] big = {100}, int64[1] one = {1},
 float[6,8] w1, float[8,5] w2, int64[1] cs = {8}> {
  s = Shape(x)
  t = Gather<axis = 0>(s, i1)
  n = Gather<axis = 0>(s, i0)
  q = Div(t, big)
  g = Max(q, one)
  a = MatMul(x, w1)
  b = Relu(a)
  e = ReduceMean<keepdims = 1>(b, i1)
  to = Concat<axis = 0>(n, g, cs)
  r = Expand(e, to)
  y = MatMul(r, w2)
}"""
"""The number of copies is 1 up to 199 rows; batch and width stand in the same vector."""

SQUEEZED = """(float[N,1,8] x) => (float[M] y) <float[8,16] w1, float[16,4] w2, float five = {5}, int64[1] i0 = {0},
 int64[1] i2 = {2}, int64[1] i4 = {4}> {
  a = MatMul(x, w1)
  b = Relu(a)
  d = MatMul(b, w2)
  s = Squeeze(d)
  p = Slice(s, i0, i2)
  q = Mul(p, five)
  u = Slice(s, i2, i4)
  y = Concat<axis = 0>(q, u)
}"""
"""Cuts rows, or channels where there is one row alone."""

POOLED_AND_SQUEEZED = """(float[N,3,H,W] x) => (float[M] y) <float[8,3,3,3] w1, float[6,8,1,1] w2> {
  a = Conv(x, w1)
  b = Relu(a)
  d = Conv(b, w2)
  e = GlobalAveragePool(d)
  s = Squeeze(e)
  y = Relu(s)
}"""


def masked_file(model: ModelProto, masked: Model) -> ModelProto:
    """The file as it was given, with zeros in its own constants."""
    zeroed = ModelProto()
    zeroed.CopyFrom(model)
    for tensor in zeroed.graph.initializer:
        weight = masked.weights.get(tensor.name)
        if weight is not None and weight.is_float and weight.shape == tuple(tensor.dims):
            tensor.CopyFrom(numpy_helper.from_array(weight.array(), tensor.name))
    return zeroed


def run(model: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    return list(ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds))


def check_at(model: ModelProto, keep: Mapping[str, Sequence[int]], sizes: Sequence[Mapping[str, tuple[int, ...]]]) -> Model:
    """The pruned model equals the masked file, which no pass has touched, at these sizes."""
    pruned, masked = both(analyze(Model.of(model)), keep)
    assert sum(w.size for w in pruned.weights.values()) < sum(w.size for w in masked.weights.values())
    judge = masked_file(model, masked)
    rng = np.random.default_rng(0)
    for shapes in sizes:
        feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for got, expected in zip(run(pruned.to_proto(), feeds), run(judge, feeds), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=str(shapes))
    return pruned


@pytest.mark.parametrize("batch", [1, 2])
def test_a_size_that_is_one_for_short_inputs_stays_computed(batch: int) -> None:
    sizes = [{"audio": (batch, length)} for length in (1, 100, 255, 512, 2049, 16000)]
    check_at(parse(FRAMES.replace("[N,", f"[{batch},")), {"w1:0": [0, 2, 5]}, sizes)


def test_static_entries_beside_one_that_did_not_move_are_still_refreshed() -> None:
    sizes = [{"x": (batch, rows, 6)} for batch, rows in ((1, 1), (3, 7), (2, 199), (1, 200), (3, 1000))]
    check_at(parse(POOLED), {"w1:1": [1, 4, 6]}, sizes)


def test_a_squeeze_of_every_unit_axis_keeps_its_form_where_the_batch_may_be_one() -> None:
    pruned = check_at(parse(SQUEEZED), {"w1:1": [0, 3, 9]}, [{"x": (batch, 1, 8)} for batch in (1, 2, 5, 64)])
    squeeze = next(node for node in pruned.graph.node if node.op_type == "Squeeze")
    assert list(squeeze.input) == ["d"]


@pytest.mark.parametrize("opset", [11, 18])
def test_channels_in_front_of_such_a_squeeze_stay(opset: int) -> None:
    model = parse(POOLED_AND_SQUEEZED, opset)
    sizes = [{"x": (batch, 3, size, size + 1)} for batch, size in ((1, 3), (2, 9), (1, 40))]
    check_at(model, {"w1:0": [5]}, sizes)
    assert [group.id for group in analyze(Model.of(model)).coupling.groups] == ["w1:0"]


VOICE = """(float[N,T] x, float[2,N,8] state) => (float[N,16] y) <int64[4] pads = {0, 64, 0, 64}, int64[1] i1 = {1},
 float[16,1,128] w1, float[8,16,1] w2, int64 i0 = {0}, int64[1] i2 = {2}> {
  p = Pad<mode = "reflect">(x, pads)
  u = Unsqueeze(p, i1)
  a = Conv<strides = [64]>(u, w1)
  b = Relu(a)
  d = Conv(b, w2)
  e = ReduceMean<keepdims = 0>(d, i2)
  s = Gather<axis = 0>(state, i0)
  y = Concat<axis = 1>(e, s)
}"""
"""A voice detector: reflection takes more than 64 samples."""

FLIPS = """(float[N,1,8,8] x) => (float[M,7] y) <float[16,1,3,3] w1, float[7,16,3,3] w2, int64[2] four = {4, -1},
 int64[2] seven = {-1, 7}, int64[1] i1 = {1}> {
  a = Conv(x, w1)
  b = Relu(a)
  d = Conv(b, w2)
  e = GlobalAveragePool(d)
  f = Reshape(e, four)
  t = Transpose<perm = [1, 0]>(f)
  k = ReduceMean<keepdims = 0>(t, i1)
  y = Reshape(k, seven)
}"""
"""Four views of each sample."""

SPECTRUM = """(float[N,T] x) => (float[N,4,F] y) <int64[1] i1 = {1}, float[64,1,512] w1, float[4,64,1] w2> {
  u = Unsqueeze(x, i1)
  a = Conv<strides = [160]>(u, w1)
  b = Relu(a)
  y = Conv(b, w2)
}"""


@pytest.mark.parametrize(
    ("text", "group", "sizes"),
    [
        (VOICE, "w1:0", [{"x": (n, t), "state": (2, n, 8)} for n, t in ((1, 512), (3, 65), (8, 4000))]),
        (FLIPS, "w1:0", [{"x": (n, 1, 8, 8)} for n in (4, 12, 64)]),
        (FLIPS.replace("{4, -1}", "{10, -1}"), "w1:0", [{"x": (n, 1, 8, 8)} for n in (70, 140)]),
        (SPECTRUM, "w1:0", [{"x": (n, t)} for n, t in ((1, 512), (3, 1001), (1, 16000))]),
    ],
)
def test_sizes_that_few_models_take_are_found(text: str, group: str, sizes: Sequence[Mapping[str, tuple[int, ...]]]) -> None:
    model = parse(text)
    pruned = prune(model, Recipe(target="macs=0.7", align="1"))
    verification = pruned.report.verification
    assert verification is not None
    assert verification.ok
    check_at(model, {group: [0, 2, 5, 9]}, sizes)


def test_a_negative_size_of_an_input_is_open() -> None:
    model = parse(
        "(float[N,3,H,W] x) => (float[N,4,A,B] y) <float[8,3,3,3] w1, float[4,8,3,3] w2> "
        "{ a = Conv(x, w1) b = Relu(a) y = Conv(b, w2) }"
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    assert prune(model, Recipe(target="channels=0.5", align="1")).report.obtained["channels"] == 0.5
    check_at(model, {"w1:0": [1, 2]}, [{"x": (n, 3, size, 9)} for n, size in ((1, 5), (3, 8), (2, 64))])
