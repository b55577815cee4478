"""From scores and a budget to widths."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nets import NETS, parse
from onnxprune.driver.prune import analyze
from onnxprune.errors import OptionError, TargetError
from onnxprune.options.shared import SCOPES
from onnxprune.options.targets import Align, Target
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning.allocation import FLOOR, Allocation, allocate, allocate_by_curves, nearest, structure, widths
from onnxprune.pruning.cost import CostModel
from onnxprune.pruning.criteria import Scores, score_groups
from onnxprune.pruning.knapsack import Curve

WIDE = """(float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[64,3,1,1] w0, float[96,64,1,1] w1, float[64,96,1,1] w2, float[48,64,3,3] w3, float[64,48,1,1] w4,
 float[80,64,1,1] w5, float[4,80,1,1] w6> {
  s = Conv(x, w0)
  a = Conv(s, w1)
  ra = Relu(a)
  b = Conv(ra, w2)
  t = Add(s, b)
  c = Conv<pads = [1,1,1,1]>(t, w3)
  rc = Relu(c)
  d = Conv(rc, w4)
  u = Add(t, d)
  e = Conv(u, w5)
  re = Relu(e)
  y = Conv(re, w6)
}"""
HEADS = """(float[N,T,32] x) => (float[N,T,32] y)
<float[32,192] wqkv, int64[3] parts = {64,64,64}, int64[4] heads = {0,0,8,8}, int64[3] join = {0,0,64},
 float[64,32] wo, float[32,40] up, float[40,32] down> {
  qkv = MatMul(x, wqkv)
  q, k, v = Split<axis = 2>(qkv, parts)
  qr = Reshape(q, heads)
  qh = Transpose<perm = [0,2,1,3]>(qr)
  kr = Reshape(k, heads)
  kh = Transpose<perm = [0,2,3,1]>(kr)
  vr = Reshape(v, heads)
  vh = Transpose<perm = [0,2,1,3]>(vr)
  s = MatMul(qh, kh)
  w = Softmax<axis = -1>(s)
  o = MatMul(w, vh)
  ot = Transpose<perm = [0,2,1,3]>(o)
  of = Reshape(ot, join)
  h = MatMul(of, wo)
  m = MatMul(h, up)
  r = Relu(m)
  y = MatMul(r, down)
}"""

MODELS = {"wide": analyze(parse(WIDE)), "heads": analyze(parse(HEADS))} | {n: analyze(parse(t)) for n, t in NETS.items()}
SCORES = {name: score_groups(found.model, found.coupling, "l2") for name, found in MODELS.items()}


def choose(
    name: str, target: str, *, scope: str = "isomorphic", align: int = 1, scores: dict[str, Scores] | None = None
) -> Allocation:
    found = MODELS[name]
    costs, wanted = CostModel(found.model, found.coupling, found.shapes.batch), Target.parse(target)
    prices = costs.of(wanted.metric)
    return allocate(found.coupling, SCORES[name] if scores is None else scores, prices, wanted, scope=scope, align=Align(align))


@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic"])
@pytest.mark.parametrize("fraction", [0.3, 0.8, 0.999])
def test_positions_without_weight_stay_for_alignment_alone(scope: str, fraction: float) -> None:
    found = MODELS["wide"]
    gone = {"w0:0": np.arange(20, 30), "w1:0": np.arange(0, 60)}
    scores = {name: np.where(np.isin(np.arange(len(old)), gone.get(name, [])), 0, old) for name, old in SCORES["wide"].items()}
    costs = CostModel(found.model, found.coupling, found.shapes.batch)
    target = Target("params", fraction)
    allocation = allocate(found.coupling, scores, costs.of("params"), target, scope=scope, align=Align(8), gone=gone)
    assert len(allocation.keep["w0:0"]) <= 56  # two of 54 positions more than are needed
    assert len(allocation.keep["w1:0"]) <= 40
    assert obtained(found, "params", allocation) == pytest.approx(allocation.obtained)
    assert allocation.obtained <= fraction
    if obtained(found, "params", Allocation({"w0:0": np.arange(56), "w1:0": np.arange(40)}, 0)) <= fraction:
        assert {name: len(kept) for name, kept in allocation.keep.items()} == {"w0:0": 56, "w1:0": 40}


def obtained(found: Analysis, metric: str, allocation: Allocation) -> float:
    costs = CostModel(found.model, found.coupling, found.shapes.batch)
    counts = {g.factor: len(allocation.keep[g.id]) for g in found.coupling.groups if g.id in allocation.keep}
    return costs.total(metric, counts) / costs.total(metric, {})


def kept(found: Analysis, allocation: Allocation) -> dict[str, int]:
    return {g.id: len(allocation.keep.get(g.id, range(g.size))) for g in found.coupling.groups}


@settings(max_examples=60)
@given(
    st.sampled_from(["wide", "heads"]),
    st.sampled_from(["macs", "params", "size"]),
    st.floats(0.25, 1),
    st.sampled_from(SCOPES),
    st.integers(0, 2**16),
)
def test_the_target_holds_and_is_close(name: str, metric: str, fraction: float, scope: str, seed: int) -> None:
    found = MODELS[name]
    rng = np.random.default_rng(seed)
    scores = {g.id: rng.exponential(1, g.size) for g in found.coupling.groups}
    allocation = choose(name, f"{metric}={fraction}", scope=scope, scores=scores)
    share = obtained(found, metric, allocation)
    assert share == pytest.approx(allocation.obtained)
    assert share <= fraction
    if name == "wide":  # a head is more than a fiftieth of the other
        assert share >= fraction - 0.02


@settings(max_examples=60)
@given(st.sampled_from(sorted(MODELS)), st.sampled_from([1, 2, 4, 8, 16]), st.floats(0.3, 1), st.sampled_from(SCOPES))
def test_widths_are_aligned_and_the_floor_holds(name: str, align: int, fraction: float, scope: str) -> None:
    found = MODELS[name]
    try:
        allocation = choose(name, f"params={fraction}", scope=scope, align=align)
    except TargetError:
        return
    assert obtained(found, "params", allocation) <= fraction
    for group in found.coupling.groups:
        count = len(allocation.keep.get(group.id, range(group.size)))
        assert count in widths(group, found.coupling, Align(align))
        assert count >= max(1, FLOOR * group.size)
        positions = allocation.keep.get(group.id, np.arange(group.size))
        assert positions.dtype == np.int64
        assert np.all(np.diff(positions) > 0)
        assert 0 <= positions[0] <= positions[-1] < group.size


@pytest.mark.parametrize(
    ("name", "group", "align", "expected"),
    [
        ("wide", "w3:0", 1, list(range(5, 49))),  # a tenth of 48, rounded up
        ("wide", "w3:0", 16, [16, 32, 48]),
        ("wide", "w3:0", Align(16, 4), [8, 16, 24, 32, 40, 48]),  # 16 would leave two choices
        ("wide", "w5:0", Align(16, 4), [16, 32, 48, 64, 80]),
        ("chain", "w1:0", Align(16, 4), [4, 8]),
        ("wide", "w5:0", 32, [32, 64, 80]),  # all is always allowed
        ("chain", "w1:0", 16, [8]),  # less than one block
        ("chain", "w1:0", 1, list(range(1, 9))),
        ("heads", "wqkv:1.0", 8, list(range(1, 9))),  # a head is 8 columns of wo already
        ("heads", "wqkv:1.0", 16, [2, 4, 6, 8]),
        ("heads", "wqkv:1.1", 8, list(range(1, 9))),  # a channel is one of 8 heads
    ],
)
def test_widths(name: str, group: str, align: int | Align, expected: list[int]) -> None:
    found = MODELS[name]
    (chosen,) = (g for g in found.coupling.groups if g.id == group)
    assert widths(chosen, found.coupling, align if isinstance(align, Align) else Align(align)) == expected


@pytest.mark.parametrize("name", MODELS)
def test_half_of_every_group(name: str) -> None:
    found = MODELS[name]
    allocation = choose(name, "channels=0.5")
    for group, count in kept(found, allocation).items():
        size = len(SCORES[name][group])
        assert count == max(size // 2, 1)
        if group in allocation.keep:
            best = np.sort(np.argsort(-SCORES[name][group], kind="stable")[:count])
            np.testing.assert_array_equal(allocation.keep[group], best)


def test_uniform_takes_the_same_share_of_every_group() -> None:
    found = MODELS["wide"]
    shares = [
        count / g.size
        for g, count in zip(found.coupling.groups, kept(found, choose("wide", "macs=0.4", scope="uniform")).values(), strict=True)
    ]
    assert max(shares) - min(shares) < 0.05


def test_what_is_obtained_counts_the_groups_that_have_a_choice() -> None:
    """A group of eight in blocks of sixteen stays whole, and is no share of the channels that may go."""
    found = MODELS["wide"]
    allocation = choose("wide", "channels=0.5", align=64)
    counts = kept(found, allocation)
    sizes = {g.id: g.size for g in found.coupling.groups}
    free = [
        name
        for name, group in zip(sizes, found.coupling.groups, strict=True)
        if len(widths(group, found.coupling, Align(64))) > 1
    ]
    assert 0 < len(free) < len(sizes)
    assert allocation.obtained == pytest.approx(sum(counts[n] for n in free) / sum(sizes[n] for n in free))


def lopsided() -> dict[str, Scores]:
    """w1:0 is worth a hundredth of every other group; inside a group the scores grow evenly."""
    return {g.id: np.linspace(1, 2, g.size) * (0.01 if g.id == "w1:0" else 1) for g in MODELS["wide"].coupling.groups}


def test_global_takes_what_scores_least_anywhere() -> None:
    found = MODELS["wide"]
    counts = kept(found, choose("wide", "params=0.8", scope="global", scores=lopsided()))
    assert counts["w1:0"] < 0.3 * 96
    assert all(count > 0.8 * g.size for g, count in zip(found.coupling.groups, counts.values(), strict=True) if g.id != "w1:0")
    even = kept(found, choose("wide", "params=0.8", scope="uniform", scores=lopsided()))
    assert even["w1:0"] > 0.7 * 96


def test_isomorphic_ranks_groups_of_one_structure_together() -> None:
    found = MODELS["wide"]
    structures = {g.id: structure(g) for g in found.coupling.groups}
    assert structures["w1:0"] == structures["w3:0"] == structures["w5:0"] != structures["w0:0"]
    scores = lopsided() | {"w0:0": np.linspace(1, 2, 64) * 1e-4}  # least of all, but of a structure of its own
    counts = kept(found, choose("wide", "params=0.8", scope="isomorphic", scores=scores))
    everywhere = kept(found, choose("wide", "params=0.8", scope="global", scores=scores))
    assert counts["w1:0"] < 0.8 * 96
    assert counts["w3:0"] == 48
    assert everywhere == {"w0:0": 51, "w1:0": 96, "w3:0": 48, "w5:0": 80}
    assert counts["w0:0"] > 51


@pytest.mark.parametrize(
    ("name", "target", "align", "message"),
    [
        ("wide", "macs=0.001", 1, r"target macs=0.001 cannot be reached: at least macs=0\.\d+ remains with a floor of 10%"),
        ("wide", "params=0.05", 32, r"alignment 32; try --align 1, or ask for at least that"),
        ("residual", "macs=0.5", 16, r"at least macs=1.000 remains .* alignment 16; try --align 1"),
    ],
)
def test_what_cannot_be_reached_is_refused_with_what_can(name: str, target: str, align: int, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        choose(name, target, align=align)
    reachable = re.search(r"at least (\w+)=([\d.]+)", str(caught.value))
    assert reachable
    metric, least = reachable[1], float(reachable[2])
    assert choose(name, f"{metric}={least}", align=align).obtained <= least


def test_no_group_but_what_a_normalisation_runs_over() -> None:
    found = analyze(
        parse("""(float[N,T,6] x) => (float[N,T,6] y) <float[6,8] w, float[8] scale, float[8,6] v> {
          h = MatMul(x, w) n = LayerNormalization(h, scale) y = MatMul(n, v)
        }""")
    )
    costs = CostModel(found.model, found.coupling, found.shapes.batch)
    with pytest.raises(TargetError, match="inspect says why; --allow-inexact offers"):
        allocate(found.coupling, {}, costs.of("macs"), Target("macs", 0.5), scope="global", align=Align(1))


def test_no_group_at_all() -> None:
    found = analyze(parse(NETS["chain"]), protect=["w*"])
    costs = CostModel(found.model, found.coupling, found.shapes.batch)
    with pytest.raises(TargetError, match="no group that can be pruned; inspect says why"):
        allocate(found.coupling, {}, costs.of("macs"), Target("macs", 0.5), scope="global", align=Align(1))
    with pytest.raises(TargetError, match="no group that can be pruned; inspect says why"):
        allocate(found.coupling, {}, costs.of("channels"), Target("channels", 0.5), scope="global", align=Align(1))
    assert allocate(found.coupling, {}, costs.of("channels"), Target("channels", 1), scope="global", align=Align(1)).keep == {}


@pytest.mark.parametrize("scope", SCOPES)
def test_the_whole_model_is_the_answer_to_a_target_of_one(scope: str) -> None:
    assert choose("wide", "macs=1", scope=scope).keep == {}


@pytest.mark.parametrize("scope", SCOPES)
def test_deterministic(scope: str) -> None:
    one, other = (choose("wide", "macs=0.5", scope=scope, align=16) for _ in range(2))
    assert one.obtained == other.obtained
    assert one.keep.keys() == other.keep.keys()
    for name, positions in one.keep.items():
        np.testing.assert_array_equal(positions, other.keep[name])


@settings(max_examples=30)
@given(st.sampled_from(SCOPES), st.integers(0, 2**16))
def test_what_is_kept_scores_at_least_what_is_removed(scope: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = {g.id: rng.exponential(1, g.size) for g in MODELS["wide"].coupling.groups}
    for name, positions in choose("wide", "macs=0.5", scope=scope, align=16, scores=scores).keep.items():
        assert scores[name][positions].min() >= np.delete(scores[name], positions).max()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("fraction", [0.35, 0.5, 0.62, 0.8])
def test_no_aligned_block_would_still_fit(scope: str, fraction: float) -> None:
    found = MODELS["wide"]
    allocation = choose("wide", f"macs={fraction}", scope=scope, align=16)
    costs = CostModel(found.model, found.coupling, found.shapes.batch)
    counts = {g.factor: kept(found, allocation)[g.id] for g in found.coupling.groups}
    whole = costs.total("macs", {})
    room = fraction * whole - costs.total("macs", counts)
    for group in found.coupling.groups:
        wider = next((w for w in widths(group, found.coupling, Align(16)) if w > counts[group.factor]), None)
        assert wider is None or room <= 1e-3 * whole or costs.change("macs", counts, group.factor, wider) > room


def test_little_is_lost_and_little_left_over() -> None:
    """No more than when this was written: the sum of scores that go, and the mean room that is left."""
    lost, left = 0.0, []
    for metric, align, scope in product(("macs", "params"), (1, 8, 16), ("uniform", "global", "isomorphic")):
        for seed, fraction in enumerate(np.linspace(0.3, 0.9, 7)):
            rng = np.random.default_rng(seed)
            scores = {g.id: rng.exponential(1, g.size) * 10 ** rng.uniform(-1, 1) for g in MODELS["wide"].coupling.groups}
            allocation = choose("wide", f"{metric}={fraction}", scope=scope, align=align, scores=scores)
            lost += sum(np.delete(scores[name], positions).sum() for name, positions in allocation.keep.items())
            left.append(fraction - allocation.obtained)
    assert lost < 2368
    assert np.mean(left) < 0.0083


def test_positions_without_weight_go_beyond_a_share_of_channels() -> None:
    found = MODELS["wide"]
    prices, gone = CostModel(found.model, found.coupling, found.shapes.batch).of("channels"), {"w1:0": np.arange(60)}
    allocation = allocate(
        found.coupling, SCORES["wide"], prices, Target("channels", 0.75), scope="uniform", align=Align(8), gone=gone
    )
    assert {name: len(positions) for name, positions in allocation.keep.items()} == {
        "w0:0": 48,
        "w1:0": 40,
        "w3:0": 32,
        "w5:0": 56,
    }


def test_positions_without_weight_stay_for_alignment_alone_by_curves_too() -> None:
    found = MODELS["wide"]
    prices = CostModel(found.model, found.coupling, found.shapes.batch).of("params")
    curves = {g.id: Curve(np.arange(g.size), np.linspace(0, 1, g.size + 1), {}) for g in found.coupling.groups}
    allocation = allocate_by_curves(
        found.coupling,
        curves,
        prices,
        Target("params", 0.999),
        align=Align(8),
        gone={"w0:0": np.arange(20), "w1:0": np.arange(60)},
    )
    assert {name: len(positions) for name, positions in allocation.keep.items()} == {"w0:0": 48, "w1:0": 40}


def test_the_exponent_of_errors_decides_how_evenly_groups_lose() -> None:
    """Errors that grow ever more slowly make it best to take all from few groups; their fourth powers do not."""
    found = MODELS["wide"]
    prices = CostModel(found.model, found.coupling, found.shapes.batch).of("params")
    curves = {g.id: Curve(np.arange(g.size), np.sqrt(np.linspace(0, 1, g.size + 1)), {}) for g in found.coupling.groups}

    def shares(exponent: float) -> list[float]:
        allocation = allocate_by_curves(found.coupling, curves, prices, Target("params", 0.5), align=Align(1), exponent=exponent)
        return [count / group.size for group, count in zip(found.coupling.groups, kept(found, allocation).values(), strict=True)]

    assert shares(1).count(1) == 3
    assert shares(4).count(1) == 0


@pytest.mark.parametrize(("wanted", "expected"), [(0, 16), (16, 16), (24, 16), (25, 32), (40, 32), (1000, 48)])
def test_nearest(wanted: float, expected: int) -> None:
    assert nearest([16, 32, 48], wanted) == expected


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_a_model_without_what_the_target_counts_is_one_clear_line(scope: str) -> None:
    bare = analyze(parse("(float[N,8] x) => (float[N,8] y) <float[8] w> { y = Mul(x, w) }"))
    prices = CostModel(bare.model, bare.coupling, bare.shapes.batch).of("macs")
    coupling = analyze(parse(NETS["chain"])).coupling
    scores = {group.id: np.ones(group.size) for group in coupling.groups}
    with pytest.raises(OptionError, match="has no macs to take a fraction of: write channels="):
        allocate(coupling, scores, prices, Target("macs", 0.5), scope=scope, align=Align(1))


def test_what_no_group_reaches_is_told() -> None:
    """A tied table of words, whose width a normalisation runs over: most of the file."""
    found = analyze(
        parse("""(int64[N,T] ids) => (float[N,T,90] y) <float[90,6] e, float[6,8] w, float[8,6] v, float[6] s> {
          x = Gather(e, ids)
          n = LayerNormalization(x, s)
          h = MatMul(n, w)
          r = Relu(h)
          o = MatMul(r, v)
          t = Add(x, o)
          u = Transpose<perm = [1,0]>(e)
          y = MatMul(t, u)
        }""")
    )
    scores = score_groups(found.model, found.coupling, "l2")
    target = Target.parse("params=0.5")
    with pytest.raises(TargetError, match=r"at least params=0\.8\d\d .*no group holds 8\d\.\d% of the params: inspect says why"):
        allocate(found.coupling, scores, found.costs.of("params"), target, scope="global", align=Align(1))
