"""Where zeros in constants are not enough: sums over activations and divisions by what is masked.

In each net the constant `w` makes the channels that the test asks about.
"""

from __future__ import annotations

import pytest

from nets import parse
from onnxprune.axes.rules.registry import Reason
from onnxprune.driver.prune import analyze


def reason(text: str, value: str = "w", axis: int = 0) -> Reason | None:
    """Why an axis of a constant may not be pruned; `None` if it may."""
    coupling = analyze(parse(text)).coupling
    for refusal in coupling.refusals:
        if (refusal.value, refusal.axis) == (value, axis):
            return refusal.reason
    assert any((m.value, m.axis) == (value, axis) for g in coupling.groups for m in g.members), "no such axis"
    return None


def gram(activation: str) -> str:
    """A product of two activations that sums over the channels of one convolution: nothing but zeros in it drop out."""
    return f"""
    (float[2, 3, 4, 4] x) => (float[2, 16, 16] y)
    <float[8, 3, 1, 1] w, float[8] b, int64[3] shape = {{2, 8, 16}}> {{
        c = Conv(x, w, b)
        {activation}
        f = Reshape(a, shape)
        t = Transpose<perm = [0, 2, 1]>(f)
        y = MatMul(t, f)
    }}"""


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("a = Relu(c)", None),
        ("a = Tanh(c)", None),
        ("a = Neg(c)", None),
        ("a = Sigmoid(c)", Reason.NOT_ZERO),
        ("a = Exp(c)", Reason.NOT_ZERO),
        ("s = Sigmoid(c) a = Mul(c, s)", None),
        ("s = Sigmoid(c) a = Add(c, s)", Reason.NOT_ZERO),
        ("s = Sigmoid(c) a = Relu(s)", Reason.NOT_ZERO),
        ("m = GlobalAveragePool(c) s = Sigmoid(m) a = Mul(c, s)", None),
    ],
)
def test_a_sum_over_activations_needs_zeros(activation: str, expected: Reason | None) -> None:
    assert reason(gram(activation)) == expected


def test_one_zero_operand_is_enough() -> None:
    text = """
    (float[2, 3, 4, 4] x) => (float[2, 16, 16] y)
    <float[8, 3, 1, 1] w, float[8] b, int64[3] shape = {2, 8, 16}> {
        c = Conv(x, w, b)
        s = Sigmoid(c)
        f = Reshape(c, shape)
        g = Reshape(s, shape)
        t = Transpose<perm = [0, 2, 1]>(f)
        y = MatMul(t, g)
    }"""
    assert reason(text) is None


@pytest.mark.parametrize(("activation", "expected"), [("Relu", None), ("Sigmoid", None)])
def test_a_constant_operand_brings_its_own_zeros(activation: str, expected: Reason | None) -> None:
    text = f"""
    (float[2, 3] x) => (float[2, 5] y)
    <float[3, 8] w, float[8, 5] v> {{
        h = MatMul(x, w)
        a = {activation}(h)
        y = MatMul(a, v)
    }}"""
    assert reason(text, axis=1) == expected


@pytest.mark.parametrize(
    ("op", "expected"),
    [("ReduceSum", None), ("ReduceL2", None), ("ReduceMean", Reason.MIXES), ("ReduceMax", Reason.MIXES)],
)
@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
def test_a_reduction_over_an_activation(op: str, expected: Reason | None, activation: str) -> None:
    axes = "(a, axes)" if op == "ReduceSum" else "<axes = [1]>(a)"
    declared = ", int64[1] axes = {1}" if op == "ReduceSum" else ""
    text = f"""
    (float[2, 3] x) => (float[2, 1] y)
    <float[3, 8] w{declared}> {{
        h = MatMul(x, w)
        a = {activation}(h)
        y = {op}{axes}
    }}"""
    model = parse(text, opset=17)
    refusals = {(r.value, r.axis): r.reason for r in analyze(model).coupling.refusals}
    assert refusals.get(("w", 1)) == (expected or (None if activation == "Relu" else Reason.NOT_ZERO))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("s = Sigmoid(h) a = Div(s, scale)", Reason.NOT_ZERO),
        ("s = Sigmoid(h) a = Mul(s, scale)", None),
        ("s = Sigmoid(h) a = Div(scale, s)", None),
        ("a = Reciprocal(h)", Reason.NOT_ZERO),
        ("p = Exp(h) a = Log(p)", None),
        ("p = Abs(h) a = Log(p)", Reason.NOT_ZERO),
    ],
)
def test_a_pole_at_zero_is_refused(nodes: str, expected: Reason | None) -> None:
    declared = ", float[8] scale" if "scale" in nodes else ""
    text = f"""
    (float[2, 3] x) => (float[2, 5] y)
    <float[3, 8] w{declared}, float[8, 5] v> {{
        h = MatMul(x, w)
        {nodes}
        y = MatMul(a, v)
    }}"""
    assert reason(text, axis=1) == expected


def test_zeros_pass_through_what_moves_data() -> None:
    text = """
    (float[2, 3, 4, 4] x) => (float[2, 16, 16] y)
    <float[8, 3, 1, 1] w, float[8, 3, 1, 1] v, int64[3] shape = {2, 16, 16}> {
        c = Conv(x, w)
        d = Conv(x, v)
        s = Relu(d)
        a = Concat<axis = 1>(c, s)
        f = Reshape(a, shape)
        t = Transpose<perm = [0, 2, 1]>(f)
        y = MatMul(t, f)
    }"""
    assert reason(text) is None
    assert reason(text, "v") is None
    sigmoid = text.replace("Relu", "Sigmoid")  # an axis is zero or not as a whole, so the other part is refused too
    assert reason(sigmoid) == reason(sigmoid, "v") == Reason.NOT_ZERO


def test_what_is_repeated_over_the_channels_is_not_zero() -> None:
    text = """
    (float[2, 3] x, float[2, 1] z) => (float[2, 2] y)
    <float[3, 8] w, int64[2] shape = {2, 8}> {
        h = MatMul(x, w)
        s = Sigmoid(h)
        e = Expand(z, shape)
        t = Transpose<perm = [1, 0]>(e)
        y = MatMul(s, t)
    }"""
    assert reason(text, axis=1) == Reason.NOT_ZERO


def looped(initial: str, step: str) -> str:
    """A product of two activations that a loop carries, summed over the hidden width."""
    return f"""
    (float[2, 3] x, int64 n) => (float[2, 2] y)
    <float[3, 8] w, float[8, 8] u> {{
        a = MatMul(x, w)
        {initial}
        hT = Loop (n, "", h0) <body = step (int64 i, bool going, float[2, 8] h) => (bool on, float[2, 8] hn) {{
            on = Identity(going)
            r = MatMul(h, u)
            {step}
        }}>
        t = Transpose<perm = [1, 0]>(hT)
        y = MatMul(hT, t)
    }}"""


@pytest.mark.parametrize(
    ("initial", "step", "expected"),
    [
        ("h0 = Relu(a)", "hn = Tanh(r)", None),
        ("h0 = Sigmoid(a)", "hn = Tanh(r)", Reason.NOT_ZERO),  # where it never runs, the initial value comes out
        ("h0 = Relu(a)", "hn = Sigmoid(r)", Reason.NOT_ZERO),
        ("h0 = Relu(a)", "s = Sigmoid(r) hn = Mul(s, h)", None),  # zero in the first iteration, so zero in the next
        ("h0 = Relu(a)", "s = Sigmoid(r) hn = Add(s, h)", Reason.NOT_ZERO),
        ("h0 = Sigmoid(a)", "s = Sigmoid(r) hn = Mul(s, h)", Reason.NOT_ZERO),
    ],
)
def test_what_a_loop_carries_is_zero_if_it_starts_and_goes_on_so(initial: str, step: str, expected: Reason | None) -> None:
    assert reason(looped(initial, step), axis=1) == expected


@pytest.mark.parametrize(
    ("then", "other", "expected"),
    [("Relu(a)", "Tanh(a)", None), ("Relu(a)", "Sigmoid(a)", Reason.NOT_ZERO), ("Sigmoid(a)", "Neg(a)", Reason.NOT_ZERO)],
)
def test_what_branches_return_is_zero_if_both_are(then: str, other: str, expected: Reason | None) -> None:
    text = f"""
    (float[2, 3] x, bool c) => (float[2, 2] y)
    <float[3, 8] w> {{
        a = MatMul(x, w)
        g = If (c) <then_branch = yes () => (float[2, 8] p) {{ p = {then} }},
                    else_branch = no () => (float[2, 8] q) {{ q = {other} }}>
        t = Transpose<perm = [1, 0]>(g)
        y = MatMul(g, t)
    }}"""
    assert reason(text, axis=1) == expected


def test_two_loops_that_feed_each_other() -> None:
    """It takes two rounds for what is not zero to reach the product: from one carried value to the other, and round again."""
    text = """
    (float[2, 3] x, int64 n) => (float[2, 2] y)
    <float[3, 8] w> {
        a = MatMul(x, w)
        p0 = Relu(a)
        q0 = Tanh(a)
        r0 = Neg(a)
        pT, qT, rT = Loop (n, "", p0, q0, r0) <
         body = step (int64 i, bool going, float[2, 8] p, float[2, 8] q, float[2, 8] r)
         => (bool on, float[2, 8] pn, float[2, 8] qn, float[2, 8] rn) {
            on = Identity(going)
            pn = Relu(q)
            qn = Relu(r)
            rn = LAST
        }>
        t = Transpose<perm = [1, 0]>(pT)
        y = MatMul(pT, t)
    }"""
    assert reason(text.replace("LAST", "Tanh(p)"), axis=1) is None
    assert reason(text.replace("LAST", "Cos(p)"), axis=1) == Reason.NOT_ZERO
