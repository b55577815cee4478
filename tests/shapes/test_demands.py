"""Sizes that graphs ask for are found from what contradicts others."""

from __future__ import annotations

import pytest

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.shapes.probes import probe

TWICE = "<kernel_shape = [2,2], strides = [2,2]>"


def sizes(text: str, opset: int = 18) -> tuple[tuple[int, ...] | None, tuple[bool, ...]]:
    """The shape of ``x``, and which of its axes are dynamic."""
    found = probe(Model.of(parse(text, opset)))
    return found.shapes["x"], found.dynamic.get("x", ())


@pytest.mark.parametrize("head", ["f = Flatten(p) m = MatMul(f, v) y = Relu(m)", "f = Flatten(p) y = Gemm(f, v)"])
@pytest.mark.parametrize(("size", "image"), [(14, 56), (22, 88), (1, 4)])
def test_a_classifier_behind_an_image(head: str, size: int, image: int) -> None:
    """The largest sizes that no trial has; of four that give the same the roundest."""
    text = f"""(float[N,3,H,W] x) => (float[N,5] y) <float[4,3,3,3] w, float[{4 * size * size},5] v> {{
      c = Conv<pads = [1,1,1,1]>(x, w) q = MaxPool{TWICE}(c) p = MaxPool{TWICE}(q) {head}
    }}"""
    other = image == 4  # 5 to 7 pixels are right, too
    assert sizes(text) == ((2, 3, image, image), (True, False, other, other))


def test_an_image_that_is_no_square() -> None:
    text = f"""(float[N,1,H,W] x) => (float[N,5] y) <float[1300,5] v> {{
      p = MaxPool{TWICE}(x) f = Flatten(p) y = Gemm(f, v)
    }}"""
    found, dynamic = sizes(text)
    assert found is not None
    assert (found[2] // 2) * (found[3] // 2) == 1300
    assert dynamic == (True, False, False, False)


def test_the_channels_of_an_image_may_be_open() -> None:
    text = f"""(float[N,C,H,W] x) => (float[N,5] y) <float[4,3,3,3] w, float[784,5] v> {{
      c = Conv<pads = [1,1,1,1]>(x, w) q = MaxPool{TWICE}(c) p = MaxPool{TWICE}(q) f = Flatten(p) y = Gemm(f, v)
    }}"""
    assert sizes(text) == ((2, 3, 56, 56), (True, False, False, False))


def test_as_many_tokens_as_positions() -> None:
    text = "(float[N,T,4] x) => (float[N,T,4] y) <float[1,77,4] table> { y = Add(x, table) }"
    assert sizes(text) == ((2, 77, 4), (True, False, False))


def test_no_more_tokens_than_a_table_has() -> None:
    """Fewer are right, too: the number stays dynamic."""
    text = """(float[N,T,4] x) => (float[N,T,4] y) <float[12,4] table, int64 zero = {0}, int64 one = {1}> {
      s = Shape<start = 1, end = 2>(x) t = Squeeze(s) at = Range(zero, t, one) p = Gather(table, at) y = Add(x, p)
    }"""
    assert sizes(text) == ((2, 12, 4), (True, True, False))


def test_batches_of_any_number_of_crops() -> None:
    text = "(float[N,8] x) => (float[M,8] y) <int64[3] to = {-1, 7, 8}> { z = Reshape(x, to) y = ReduceMean<keepdims = 0>(z) }"
    assert sizes(text) == ((7, 8), (True, False))


def test_multiples_of_a_window() -> None:
    """The numbers of windows along both sides are computed, each rounded down."""
    text = """(float[N,4,H,W] x) => (float[N,4,A,B,C,D] y)
    <int64[1] i0 = {0}, int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] side = {12}, int64[1] four = {4}> {
      s = Shape(x) n = Gather(s, i0) h = Gather(s, i2) w = Gather(s, i3) hs = Div(h, side) ws = Div(w, side)
      to = Concat<axis = 0>(n, four, hs, side, ws, side) y = Reshape(x, to)
    }"""
    found, dynamic = sizes(text)
    assert found is not None
    assert found[2] % 12 == found[3] % 12 == 0
    assert dynamic == (True, False, True, True)


def test_halves_that_come_together_again() -> None:
    """An image is halved six times, and enlarged again: both sides are multiples of 64, and stay dynamic."""
    text = """(float[N,3,H,W] x) => (float[N,6,H,W] y) <float[4] scales = {1, 1, 64, 64}> {
      p = AveragePool<kernel_shape = [64,64], strides = [64,64]>(x) u = Resize(p, , scales) y = Concat<axis = 1>(u, x)
    }"""
    found, dynamic = sizes(text)
    assert found == (2, 3, 64, 64)
    assert dynamic == (True, False, True, True)


def test_a_mask_as_long_as_two_inputs_together() -> None:
    found = probe(
        Model.of(
            parse("""(float[N,P,4] past, float[N,S,4] x, float[N,Q] mask) => (float[N,T,4] y) <int64[1] axis = {2}> {
      k = Concat<axis = 1>(past, x) m = Unsqueeze(mask, axis) y = Mul(k, m)
    }""")
        )
    )
    shapes = [found.shapes[name] for name in ("past", "x", "mask")]
    assert None not in shapes
    past, x, mask = (shape[1] for shape in shapes if shape)
    assert past + x == mask
    assert found.dynamic["mask"] == (True, True)


def test_frames_of_audio_that_a_classifier_counts() -> None:
    text = """(float[N,1,T] x) => (float[N,5] y) <float[8,1,400] frames, float[784,5] v> {
      c = Conv<strides = [160]>(x, frames) f = Flatten(c) y = Gemm(f, v)
    }"""
    found, dynamic = sizes(text)
    assert found is not None
    assert (found[2] - 400) // 160 + 1 == 98
    assert dynamic == (True, False, False)


def test_windows_one_after_the_other() -> None:
    """Frames of 512 samples, three of which are looked at together."""
    text = """(float[N,T] x) => (float[N,4,M] y) <int64[1] one = {1}, float[8,1,512] frames, float[4,8,3] w> {
      c = Unsqueeze(x, one) f = Conv<strides = [160]>(c, frames) y = Conv(f, w)
    }"""
    assert sizes(text) == ((2, 1024), (True, True))


def test_features_of_a_row_behind_windows() -> None:
    """40 numbers for each feature but 24, in rows of 1,060: 131 features, and any number of frames from nine on."""
    text = """(float[T,F] x) => (float[M,5] y)
      <int64[2] front = {0, 1}, float[10,1,3,25] w, int64[2] s = {-1, 1060}, float[1060,5] v> {
      u = Unsqueeze(x, front) c = Conv(u, w) t = Transpose<perm = [0, 2, 1, 3]>(c) r = Reshape(t, s) y = MatMul(r, v)
    }"""
    found, dynamic = sizes(text)
    assert found is not None
    assert found[1] == 106 + 24
    assert dynamic == (True, False)


def test_demands_of_one_node_are_met_one_after_the_other() -> None:
    text = "(float[T,F,C] x) => (float[T,F,C] y) <float[80,3] scale> { y = Mul(x, scale) }"
    assert sizes(text) == ((2, 80, 3), (True, False, False))
