"""Which differences the proof lets pass: the largest decides, beside the largest output, up to a limit that each type has."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array
from onnxprune.verify.law import compare
from onnxprune.verify.verdicts import Check

LIMITS = [("double", 1e-9), ("float", 1e-4), ("float16", 2e-2), ("bfloat16", 1e-1)]


def constant(values: Array, kind: str = "float") -> Model:
    """A model whose output is a constant; read as float32 where it is shorter."""
    wide, code = ("double", 11) if kind == "double" else ("float", 1)
    n = len(values)
    model = parse(f"({wide}[1] x) => ({wide}[{n}] y) <{kind}[{n}] c> {{ y = Cast<to = {code}>(c) }}")
    (tensor,) = model.graph.initializer
    array = np.asarray(values, helper.tensor_dtype_to_np_dtype(tensor.data_type))
    tensor.CopyFrom(numpy_helper.from_array(array, "c"))
    return Model.of(model)


def compared(wrong: float, kind: str, *, rounded: bool) -> Check:
    return compare(constant(np.array([1 + wrong, 1]), kind), constant(np.ones(2), kind), rounded=rounded)


@pytest.mark.parametrize(("kind", "limit"), LIMITS)
def test_constants_that_were_rounded_may_differ_by_the_limit_of_their_type(kind: str, limit: float) -> None:
    assert compared(0.8 * limit, kind, rounded=True).ok
    assert not compared(1.4 * limit, kind, rounded=True).ok


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_hides_nothing_where_nothing_was_rounded(kind: str) -> None:
    outcome = compared(0.016, kind, rounded=False)
    assert not outcome.ok
    assert any("compared as float32 copies" in note for note in outcome.notes)


def test_the_coarsest_type_of_a_model_decides() -> None:
    """What is computed in half precision is no better in a float32 output."""

    def model(bias: float) -> Model:
        made = parse("(float[N,2] x) => (float[N,2] y) <float16[2] b> { h = Cast<to = 10>(x) s = Add(h, b) y = Cast<to = 1>(s) }")
        made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(2, bias, np.float16), "b"))
        return Model.of(made)

    assert compare(model(100.5), model(100), rounded=True).ok
    assert not compare(model(100.5), model(100)).ok


def test_one_wrong_entry_of_many_is_enough() -> None:
    expected = np.ones(20_000)
    got = expected.copy()
    got[-1] += 3e-4
    assert not compare(constant(got), constant(expected)).ok
    assert not compare(constant(got - 1), constant(expected - 1)).ok, "nothing to be relative to"


def test_differences_are_relative_to_the_largest_output() -> None:
    expected = np.zeros(1000)
    expected[0] = 1000
    got = expected.copy()
    got[-1] = 0.05
    assert compare(constant(got), constant(expected)).error == pytest.approx(5e-5)


def test_the_error_is_the_largest_of_all_outputs() -> None:
    def model(first: float, second: float) -> Model:
        return Model.of(
            parse(f"""(float[1] x) => (float[1] y, float[1] z)
        <float[1] a = {{{first}}}, float[1] b = {{{second}}}> {{ y = Identity(a) z = Identity(b) }}""")
        )

    assert compare(model(1.00005, 1.00001), model(1, 1)).error == pytest.approx(5e-5, rel=0.02)


def test_a_difference_at_the_second_size_alone_is_seen() -> None:
    scaled = parse("""(float[N,2] x) => (float[N,2] y) <int64 zero = {0}> {
      shape = Shape(x) n = Gather(shape, zero) f = Cast<to = 1>(n) y = Mul(x, f)
    }""")
    outcome = compare(Model.of(parse("(float[N,2] x) => (float[N,2] y) { y = Identity(x) }")), Model.of(scaled))
    assert (outcome.ok, outcome.runs) == (False, 2)
