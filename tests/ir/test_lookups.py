"""Inputs that look up rows of tables."""

from __future__ import annotations

from nets import parse
from onnxprune.ir.lookups import rows_looked_up
from onnxprune.ir.model import Model


def test_ids_are_followed_through_casts_and_slices_to_the_smallest_table() -> None:
    model = parse(
        """(float[N,2,T] ids, int64[N,T] more, float[N,4] x) => (float[N,T,4] y, float[N,T,4] z, float[N,4] w)
        <float[50,4] large, float[9,4] small, float[4,7] turned, int64[1] zero = {0}, int64[1] one = {1}> {
          whole = Cast<to = 7>(ids)
          first = Slice(whole, zero, one, one)
          a = Squeeze(first, one)
          picked = Gather<axis = 1>(whole, one)
          b = Squeeze(picked, one)
          c = Gather(large, a)
          d = Gather(small, b)
          y = Add(c, d)
          e = Gather<axis = 1>(turned, more)
          z = Transpose<perm = [1, 2, 0]>(e)
          w = Identity(x)
        }""",
        13,
    )
    assert rows_looked_up(Model.of(model)) == {"ids": 9, "more": 7}


def test_a_table_may_be_dequantised() -> None:
    model = parse(
        """(int64[N,T] ids) => (float[N,T,4] y) <uint8[30,4] stored, float scale = {0.5}, uint8 zero = {128}> {
          table = DequantizeLinear(stored, scale, zero)
          y = Gather(table, ids)
        }"""
    )
    assert rows_looked_up(Model.of(model)) == {"ids": 30}


def test_what_is_computed_with_looks_up_nothing() -> None:
    text = "(int64[N,T] ids) => (float[N,T,4] y) <float[50,4] table, int64 two = {2}> { b = Mul(ids, two) y = Gather(table, b) }"
    assert rows_looked_up(Model.of(parse(text))) == {}
