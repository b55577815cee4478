"""What depends on sizes that change, though it is equal in both probes."""

from __future__ import annotations

import pytest

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.shapes.probes import Shapes, probe

HEAD = """(float[N,T,6] x) => (float[A,B] y) <int64 i1 = {1}, int64[1] v0 = {0}, int64[1] v1 = {1}, int64[1] v2 = {2},
 int64 one = {1}, int64 big = {1000}, int64[1] rest = {-1}, int64[1] four = {4}, int64[2] first = {1, 1}, float zero = {0}> {
  s = Shape(x)
  t = Gather<axis = 0>(s, i1)
  q = Div(t, big)
  g = Max(q, one)
  g1 = Unsqueeze(g, v0)
"""


def shapes_of(body: str) -> Shapes:
    return probe(Model.of(parse(HEAD + body + " y = Identity(x) }")))


def test_what_is_equal_in_both_probes_and_depends_is_open() -> None:
    found = shapes_of("c = Gather<axis = 0>(s, v2) both = Concat<axis = 0>(c, g1, rest)")
    assert "g" not in found.moving
    assert found.values["both"].tolist() == [6, 1, -1]
    assert found.open["both"].tolist() == [False, True, False]
    assert found.open["g"].tolist() is True
    assert "c" not in found.open


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("p = Slice(s, v2, four) z = Add(p, v1)", None),
        ("p = Slice(s, v1, four) z = Sub(p, p)", [True, False]),
        ("p = Slice(s, v1, v2) z = Min(p, v1)", [True]),
        ("n = Concat<axis = 0>(g1, v2) e = Equal(n, first) z = Where(e, first, n)", [True, False]),
        ("n = Size(x) b = Mul(big, big) d = Div(n, b) z = Cast<to = 1>(d)", True),
        ("n = Concat<axis = 0>(v2, g1) z = Gather<axis = 0>(n, v1)", [True]),
        ("n = Concat<axis = 0>(v2, g1) z = Gather<axis = 0>(n, v0)", None),
    ],
)
def test_entries_that_depend(body: str, expected: object) -> None:
    found = shapes_of(body)
    assert "z" in found.values
    assert (found.open["z"].tolist() if "z" in found.open else None) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("n = Concat<axis = 0>(four, g1) z = ConstantOfShape(n)", (False, True)),
        ("n = Concat<axis = 0>(g1, rest) r = Reshape(x, n) a = Transpose<perm = [1, 0]>(r) z = Relu(a)", (True, True)),
        ("e = Expand(zero, g1) u = Unsqueeze(e, v1) z = Neg(u)", (True, False)),
        ("n = Concat<axis = 0>(g1, four) e = Expand(zero, n) z = ReduceSum<keepdims = 0>(e, v0)", None),
        ("n = Concat<axis = 0>(g1, four) e = Expand(zero, n) z = ReduceSum<keepdims = 0>(e, v1)", (True,)),
        ("n = Concat<axis = 0>(g1, four) e = Expand(zero, n) z = Softmax(e)", (True, False)),
    ],
)
def test_axes_whose_sizes_depend(body: str, expected: tuple[bool, ...] | None) -> None:
    assert shapes_of(body).dynamic.get("z") == expected


def test_windows_that_make_one_of_many_sizes() -> None:
    """A kernel as long as the shorter probe leaves one frame of both."""
    text = "(float[1,2,T] x) => (float[1,4,F] y) <float[4,2,16] w> { a = Conv<strides = [16]>(x, w) y = Relu(a) }"
    found = probe(Model.of(parse(text)))
    assert found.shapes["y"] == (1, 4, 1)
    assert found.dynamic["y"] == (False, False, True)


@pytest.mark.parametrize(
    "made",
    [
        """long = Greater(t, big)
      z = If (long) <then_branch = then () => (float[P] yes) { yes = Relu(e) },
                     else_branch = other () => (float[Q] no) { no = Neg(e) }>""",
        """z = Loop (four, , e) <body = body (int64 i, bool on, float[P] row) => (bool still, float[P] next) {
        still = Identity(on)
        next = Neg(row)
      }>""",
    ],
)
def test_what_control_flow_makes_depends_on_what_its_bodies_do(made: str) -> None:
    """Short inputs have one row in both probes, in a branch too, and after a loop."""
    found = shapes_of(f"e = Expand(zero, g1) {made} n = Shape(z)")
    assert found.dynamic["z"] == (True,)
    assert found.open["n"].tolist() == [True]
