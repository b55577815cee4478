"""Copies in float64: they compute what the model computes, to float64's precision, and tell rounding from error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from nets import NETS, both, parse, some
from onnxprune import Recipe, prune
from onnxprune.driver.prune import analyze
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.ir.precision import retyped
from onnxprune.runtime.session import Session
from onnxprune.verify import law
from onnxprune.verify.comparison import TOLERANCE
from onnxprune.verify.float64 import as_float64
from onnxprune.verify.law import compare


def computed(model: Model, *inputs: Any) -> Any:
    """The first output of a model's copy in float64."""
    names = [value.name for value in model.inputs]
    return Session(as_float64(model).model).run(dict(zip(names, inputs, strict=True)))[0]


# --- Convolutions, written out -----------------------------------------------------------------------------------------

ranks = st.integers(1, 3)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[str, int]:
    """A model of one convolution of any kind, and its opset."""
    rank, turned, groups = draw(ranks), draw(st.booleans()), draw(st.integers(1, 3))
    small, large = st.integers(1, 2), st.integers(1, 3)
    read, made = groups * draw(small), draw(small)
    kernel, strides, dilations = ([draw(large) for _ in range(rank)] for _ in range(3))
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, r)) for r in (*reach, *reach)]
    size = [draw(st.integers(max(1, r + 1 - pads[at] - pads[at + rank]), r + 5)) for at, r in enumerate(reach)]
    if turned:
        size = [s + 3 for s in size]  # whatever the padding takes away, something is left
    weight = [read, made, *kernel] if turned else [groups * made, read // groups, *kernel]
    given = f"strides = {strides}, dilations = {dilations}, pads = {pads}, group = {groups}"
    if turned:
        given += f", output_padding = {[draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)]}"
    op, bias = "ConvTranspose" if turned else "Conv", ", b" if draw(st.booleans()) else ""
    shapes = [",".join(map(str, shape)) for shape in (("N", read, *size), weight, ("N", groups * made, *"abc"[:rank]))]
    text = f"(float[{shapes[0]}] x) => (float[{shapes[2]}] y) <float[{shapes[1]}] w, float[{groups * made}] b>"
    return f"{text} {{ y = {op}<{given}>(x, w{bias}) }}", draw(st.sampled_from([11, 12, 13, 18, 21]))


@given(convolutions(), st.integers(1, 2))
def test_a_convolution_of_any_kind(source: tuple[str, int], batch: int) -> None:
    model = Model.of(parse(*source))
    shape = [batch, *(dim.dim_value for dim in model.inputs[0].type.tensor_type.shape.dim[1:])]
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    (expected,) = Session(model).run({"x": x})
    result = computed(model, x.astype(np.float64))
    assert not as_float64(model).narrow
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5 * max(1, np.abs(expected).max()))


def test_a_convolution_rounds_as_float64_does() -> None:
    model = Model.of(parse("(float[N,6,7,7] x) => (float[N,4,3,3] y) <float[4,3,3,3] w, float[4] b> "
                           "{ y = Conv<strides = [2,2], group = 2>(x, w, b) }"))  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 6, 7, 7))
    results: Any = ReferenceEvaluator(retyped(model, TensorProto.DOUBLE).to_proto()).run(None, {"x": x})
    np.testing.assert_allclose(computed(model, x), results[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("given", ['auto_pad = "SAME_UPPER"', "pads = [1,1,1,1]"])
def test_one_that_cannot_be_written_out_stays_in_float32(given: str) -> None:
    opset = 18 if "auto" in given else 10
    model = Model.of(parse(f"(float[N,2,5,5] x) => (float[N,3,5,5] y) <float[3,2,3,3] w> {{ y = Conv<{given}>(x, w) }}", opset))
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 5), np.float32)
    assert as_float64(model).narrow == {"Conv"}
    np.testing.assert_array_equal(computed(model, x.astype(np.float64)), Session(model).run({"x": x})[0].astype(np.float64))


# --- What has no kernel ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "narrow"),
    [
        ("(float[N,4] x) => (float[N,4] y) { e = Erf(x) y = Exp(e) }", {"Erf"}),
        ("(float[N,4] x) => (float[N,2] y, int64[N,2] i) <int64[1] k = {2}> { e = Erf(x) y, i = TopK(e, k) }", {"Erf"}),
        ("(float[3,N,2] x) => (float[3,1,N,5] y) <float[1,20,2] w, float[1,20,5] r> { y = LSTM<hidden_size = 5>(x, w, r) }",
         {"LSTM"}),
        ("(float[N,4] x) => (float[N,4] y) { c = Cast<to = 1>(x) h = Cast<to = 10>(c) d = Cast<to = 1>(h) y = Tanh(d) }", set()),
        ("(float[N,4] x, bool[N,4] b) => (float[N,4] y) { n = Neg(x) y = Where(b, x, n) }", set()),
    ],
)  # fmt: skip
def test_what_has_no_kernel_computes_in_float32(text: str, narrow: set[str]) -> None:
    model = Model.of(parse(text))
    rng = np.random.default_rng(0)
    shapes = [[d.dim_value or 2 for d in value.type.tensor_type.shape.dim] for value in model.inputs]
    feeds: list[Any] = [
        rng.standard_normal(shapes[0], np.float32),
        *(rng.integers(0, 2, shape).astype(bool) for shape in shapes[1:]),
    ]
    result = computed(model, feeds[0].astype(np.float64), *feeds[1:])
    assert as_float64(model).narrow == narrow
    assert result.dtype == np.float64
    (expected, *_) = Session(model).run(dict(zip("xb", feeds, strict=False)))
    np.testing.assert_allclose(result, expected, rtol=1e-3)


def test_a_model_that_does_not_load_has_no_copy() -> None:
    with pytest.raises(ModelError):
        as_float64(Model.of(parse("(float[N,4] x) => (float[N,4] y) { y = mine.op(x) }", domains=["mine"])))


@pytest.mark.parametrize("name", NETS)
def test_the_nets(name: str) -> None:
    model = Model.of(parse(NETS[name]))
    assert compare(as_float64(model).model, as_float64(model).model).ok


# --- What they decide --------------------------------------------------------------------------------------------------


AMPLIFIER = """(float[N,16,32] x) => (float[N,16,1] y)
<float[32,48] w1, float[48,80] w2, float[80] w3, float[1] far = {30000.0}, int64[1] last = {2}, int64[1] rows = {1}> {
  a = MatMul(x, w1)
  r = Relu(a)
  b = MatMul(r, w2)
  c = Add(b, far)
  d = Mul(c, w3)
  s = ReduceSum(d, last)
  m = ReduceMean(s, rows)
  y = Sub(s, m)
}"""
"""The outputs are what is left of large numbers that nearly cancel: rounding in float32 is some thousandths of it."""


def test_rounding_that_a_model_amplifies_is_no_error() -> None:
    report = prune(parse(AMPLIFIER), Recipe(target="channels=0.5", align="1")).report
    assert not report.frozen
    assert report.verification is not None
    assert report.verification.ok
    assert report.verification.error < TOLERANCE["float64"]
    assert any("decided by float64 copies" in note for note in report.verification.notes)


def test_without_the_copies_nothing_is_decided_in_its_favour(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Model) -> None:
        raise ModelError("no copy")

    monkeypatch.setattr(law, "as_float64", fails)
    assert prune(parse(AMPLIFIER), Recipe(target="channels=0.5", align="1")).report.frozen


@pytest.mark.parametrize("factor", [1 + 1e-3, 1 + 1e-5, 1 + 1e-6])
def test_an_error_among_the_rounding_is_seen(factor: float) -> None:
    """Float32 cannot tell these from rounding, and no tolerance for it could."""
    found = analyze(parse(AMPLIFIER))
    pruned, masked = both(found, {group.id: some(group.size) for group in found.coupling.groups})
    assert compare(pruned, masked).ok
    weight = pruned.weights["w3"]
    changed = weight.array().copy()
    changed[0] *= np.float32(factor)
    pruned.weights["w3"] = weight.derived(weight.shape, lambda _: changed)
    outcome = compare(pruned, masked)
    assert not outcome.ok
    assert outcome.error > TOLERANCE["float64"]


def test_every_single_wrong_position_is_seen_among_the_rounding() -> None:
    found = analyze(parse(AMPLIFIER))
    assert len(found.coupling.groups) == 2
    for group in found.coupling.groups:
        pruned, _ = both(found, {group.id: list(range(group.size - 1))})
        _, masked = both(found, {group.id: list(range(1, group.size))})
        assert not compare(pruned, masked).ok
