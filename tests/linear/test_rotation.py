"""Bases: nothing changes when a graph is written in one, and what is cut then costs no more than theory says."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from linear.test_layers import close, values
from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import analyze
from onnxprune.linear.gather import gather
from onnxprune.linear.rotation import Basis, BasisSums
from onnxprune.passes import PruneChannels
from onnxprune.passes.analysis import Analysis

STREAM = """(float[N,3,6,6] x) => (float[N,4,6,6] y)
<float[6,3,1,1] w0, float[6] b0, float[5,6,3,3] w1, float[6,5,1,1] w2, float[6] b2, float[8,6,1,1] w3, float[4,8,1,1] w4> {
  s = Conv(x, w0, b0)
  a = Conv<pads = [1,1,1,1]>(s, w1)
  r = Relu(a)
  c = Conv(r, w2, b2)
  t = Add(s, c)
  e = Conv(t, w3)
  g = Relu(e)
  y = Conv(g, w4)
}"""
GROUPED = """(float[N,T,8] x) => (float[N,T,8] y)
<float[8,12] wq, float[8,6] wk, float[8,6] wv, int64[5] hq = {0,0,2,2,3}, int64[5] hk = {0,0,2,1,3}, int64[3] join = {0,0,12},
 float[12,8] wo> {
  q = MatMul(x, wq)
  k = MatMul(x, wk)
  v = MatMul(x, wv)
  qr = Reshape(q, hq)
  qh = Transpose<perm = [0,2,3,1,4]>(qr)
  kr = Reshape(k, hk)
  kh = Transpose<perm = [0,2,3,4,1]>(kr)
  vr = Reshape(v, hk)
  vh = Transpose<perm = [0,2,3,1,4]>(vr)
  s = MatMul(qh, kh)
  w = Softmax<axis = -1>(s)
  o = MatMul(w, vh)
  ot = Transpose<perm = [0,3,1,2,4]>(o)
  of = Reshape(ot, join)
  y = MatMul(of, wo)
}"""


def bases(text: str) -> tuple[Analysis, dict[str, Basis]]:
    found = analyze(parse(text))
    rng = np.random.default_rng(0)
    name, dims = found.model.inputs[0].name, found.model.inputs[0].type.tensor_type.shape.dim
    shape = [64, *(dim.dim_value or 5 for dim in list(dims)[1:])]
    samples = open_samples({name: rng.normal(size=shape).astype(np.float32)}, found.model.inputs)
    sums = BasisSums(found.model, found.coupling)
    gather(found.model, Calibration.of(samples, found.shapes).every, sums)
    return found, sums.bases()


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        (NETS["attention"], {"wqkv:1.1": (3, 4), "wqkv:1.2": (3, 4)}),
        (GROUPED, {"wq:1.2": (2, 3), "wv:1.1": (2, 3)}),
        (STREAM, {"w0:0": (1, 6)}),
        (NETS["residual"], {"w0:0": (1, 8)}),
        (NETS["chain"], {}),
        (NETS["depthwise"], {}),
        (NETS["gate"], {}),
        (NETS["shuffle"], {"w1:0.1": (1, 4), "g1:0.2": (3, 2), "g2:0.1": (2, 6)}),
    ],
)
def test_a_graph_in_another_basis_computes_the_same(text: str, groups: dict[str, tuple[int, int]]) -> None:
    found, some = bases(text)
    assert {name: basis.forth.shape[:2] for name, basis in some.items()} == groups
    turned = found.model.copy()
    for basis in some.values():
        identity = np.broadcast_to(np.eye(basis.size), basis.back.shape)
        np.testing.assert_allclose(basis.forth.transpose(0, 2, 1) @ basis.back, identity, atol=1e-8)
        basis.rotate(turned, np.array([basis.size - 1]))
    close(values(turned, ["y"])["y"], values(found.model, ["y"])["y"])


def error(found: Analysis, value: str, group: str, keep: list[int], basis: Basis | None) -> float:
    """The mean square of what a value loses when a group is cut, as a share of its own."""
    model = found.model.copy()
    if basis is not None:
        basis.rotate(model, np.array(keep))
    cut = PruneChannels().run(replace(found, model=model), Plan({group: np.array(keep)}))
    before, after = values(found.model, [value])[value], values(cut, [value])[value]
    return float(np.square(after - before).mean() / np.square(before).mean())


@pytest.mark.parametrize(("group", "value", "size"), [("wqkv:1.2", "y", 4), ("wqkv:1.1", "s", 4)])
def test_the_first_directions_are_worth_more_than_any_positions(group: str, value: str, size: int) -> None:
    """Whichever positions keep them: those of the plan."""
    found, some = bases(NETS["attention"])
    for count in range(1, size):
        turned = [error(found, value, group, list(keep), some[group]) for keep in combinations(range(size), count)]
        plain = [error(found, value, group, list(keep), None) for keep in combinations(range(size), count)]
        assert max(turned) < min(plain)
        np.testing.assert_allclose(turned, turned[0], rtol=1e-3)


def test_what_is_lost_is_what_the_spectrum_says() -> None:
    basis = bases(NETS["residual"])[1]["w0:0"]
    assert basis.lost[0] == 0
    assert basis.lost[-1] == pytest.approx(1)
    assert (np.diff(basis.lost) >= 0).all()


def test_moments_of_values_that_never_vary_are_not_negative() -> None:
    """They are sums in float32, which rounding brings below zero, and a square root follows."""
    found, _ = bases(GROUPED)
    sums = BasisSums(found.model, found.coupling)
    shapes = {name: found.shapes.shapes[name] or () for name in sums.names}
    for level in np.random.default_rng(0).normal(size=16):
        shard = sums.fresh(0)
        for _ in range(9):
            shard.add({name: np.full(shape, level, np.float32) for name, shape in shapes.items()})
        for moments in shard._moments.values():
            assert (np.linalg.eigvalsh(moments.second(centred=True)) >= -1e-20).all()


def test_values_that_are_not_finite_give_no_basis() -> None:
    """A row of attention in which all is masked out is no number: its group is repaired as it stands."""
    found, some = bases(NETS["attention"])
    sums = BasisSums(found.model, found.coupling)
    rng = np.random.default_rng(0)
    shapes = {name: found.shapes.shapes[name] for name in sums.names}
    batch = {name: rng.normal(size=shape or ()).astype(np.float32) for name, shape in shapes.items()}
    first = sums.names[0]
    sums.add({**batch, first: np.where(np.arange(batch[first].shape[-1]) == 1, np.inf, batch[first]).astype(np.float32)})
    assert sums.bases().keys() < some.keys()
