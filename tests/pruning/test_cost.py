"""Costs under a plan are the costs of the model that the plan makes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from control_flow_nets import net
from nets import NETS, both, parse, some
from onnxprune.driver.prune import analyze
from onnxprune.ir.files import written_bytes
from onnxprune.ir.model import Model
from onnxprune.ir.parameters import parameters
from onnxprune.passes.analysis import Analysis
from onnxprune.passes.constants import tie
from onnxprune.passes.footprint import footprint
from onnxprune.pruning.cost import COST_METRICS, KERNELS, Cost, CostModel, layer_costs

EXPECTED = {  # by hand: multiply-accumulates of one sample, parameters
    "chain": (64 * (8 * 3 * 9 + 6 * 8 * 9 + 4 * 6), 216 + 5 * 8 + 432 + 24),
    "residual": (64 * (8 * 3 + 6 * 8 * 9 + 8 * 6 * 9 + 4 * 8), 24 + 432 + 432 + 8 + 32),
    "depthwise": (64 * (8 * 3 + 8 * 9 + 4 * 8), 24 + 72 + 8 + 32),
    "shuffle": (16 * (12 * 4 + 12 * 4 * 9 + 12 * 6 + 4 * 12), 48 + 432 + 72 + 48),
    "concat_split": (16 * (3 * 3 + 9 * 3 + 4 * 8 + 4 * 4), 9 + 27 + 32 + 16),
    "gate": (64 * (8 * 3 * 9 + 4 * 8) + 2 * 8 + 8 * 2, 216 + 16 + 2 + 16 + 8 + 32),
    "depth_to_space": (16 * 12 * 3 + 64 * 4 * 3, 36 + 12 + 12),
    "flatten": (16 * 8 * 3 + 128 * 6 + 6 * 5, 24 + 768 + 6 + 30),
}


def costs_of(found: Analysis) -> CostModel:
    return CostModel(found.model, found.coupling, found.shapes.batch)


def by_hand(model: Model) -> tuple[int, int]:
    """Multiply-accumulates and parameters, from the shapes of an actual model."""
    found = analyze(model)
    shapes, macs = found.shapes.shapes, 0
    for node in found.model.graph.node:
        ins, out = [shapes[name] for name in node.input if name], shapes[node.output[0]]
        assert out is not None
        assert None not in ins
        if node.op_type == "Conv":
            macs += math.prod(out) * math.prod((ins[1] or ())[1:])
        elif node.op_type in {"MatMul", "Gemm"}:
            trans = any(a.name == "transA" and a.i for a in node.attribute)
            macs += math.prod(out) * (ins[0] or ())[0 if trans else -1]
    floats = sum(w.size for w in found.model.weights.values() if w.is_float)
    return macs // found.shapes.batch, floats


def test_kernels_compute_whole_blocks_and_write_what_they_compute() -> None:
    """64 positions: 3 to 8 channels and 8 to 6 under 3 x 3, 6 to 4 under 1 x 1; 8 and 6 can be pruned, and take one block."""
    found = analyze(parse(NETS["chain"]))
    kernels = costs_of(found).of(KERNELS)
    whole = 64 * (16 * 3 * 9 + 16 * 16 * 9 + 4 * 16) + 16 * 64 * (16 + 16 + 4)
    assert kernels.whole == kernels.total({}) == whole
    wide, *_ = found.coupling.groups
    assert kernels.total({wide.factor: 4}) == whole, "a part of a block saves nothing"
    assert kernels.change({}, wide.factor, 20) == 64 * (16 * 3 * 9 + 16 * 16 * 9) + 16 * 64 * 16, "and costs a whole one"


@pytest.mark.parametrize("name", EXPECTED)
def test_costs_of_a_whole_model(name: str) -> None:
    cost = costs_of(analyze(parse(NETS[name]))).cost({})
    assert (cost.macs, cost.params) == EXPECTED[name]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_costs_under_a_plan_are_those_of_the_pruned_model(name: str, seed: int) -> None:
    found = analyze(parse(NETS[name]))
    groups = found.coupling.groups[seed % 2 :: 2] if seed < 2 else found.coupling.groups
    keep = {group.id: some(group.size, seed) for group in groups}
    pruned, _ = both(found, keep)
    cost = costs_of(found).cost({group.factor: len(keep[group.id]) for group in groups})
    assert (cost.macs, cost.params) == by_hand(pruned)
    # The graph's own bytes are counted as they were; a few change with the sizes and attributes it spells.
    assert cost.size == pytest.approx(written_bytes(pruned), abs=16 * len(pruned.graph.node))
    again = analyze(pruned)
    fresh = costs_of(again).cost({})
    assert (fresh.macs, fresh.params) == (cost.macs, cost.params)


@given(st.sampled_from(sorted(NETS)), st.integers(0, 2**16))
def test_change_is_the_difference_of_totals(name: str, seed: int) -> None:
    found, rng = ANALYSES[name], np.random.default_rng(seed)
    costs = costs_of(found)
    counts = {g.factor: int(rng.integers(1, g.size + 1)) for g in found.coupling.groups if rng.random() < 0.7}
    group = found.coupling.groups[int(rng.integers(len(found.coupling.groups)))]
    wanted = int(rng.integers(1, group.size + 1))
    for metric in COST_METRICS:
        before = dict(counts)
        change = costs.change(metric, counts, group.factor, wanted)
        assert {f: counts[f] for f in before} == before
        difference = costs.total(metric, {**before, group.factor: wanted}) - costs.total(metric, before)
        assert change == pytest.approx(difference, abs=1e-6)


ANALYSES = {name: analyze(parse(NETS[name])) for name in NETS}


@pytest.mark.parametrize("name", NETS)
def test_layers_add_up_to_the_model(name: str) -> None:
    found = ANALYSES[name]
    layers = [layer_costs(found.model, node, found.shapes.batch, parameters(found.model)) for node in found.coupling.nodes]
    whole = costs_of(found).cost({})
    assert sum(macs for macs, _ in layers) == whole.macs
    assert sum(params for _, params in layers) == whole.params


COUPLED = """(float[N,8] x) => (float[N,3] y) <float[8,6] a, float[6,6] b, float[6,3] c, float[6] v> {
  h = MatMul(x, a) p = Add(h, v) r = Relu(p) k = MatMul(r, b) q = Add(k, v) s = Add(r, q) y = MatMul(s, c) }"""
APART = """(float[N,8] x) => (float[N,3] y) <float[8,6] a, float[6,6] b, float[6,3] c, float[6] v> {
  h = MatMul(x, a) p = Add(h, v) r = Relu(p) k = MatMul(r, b) q = Add(k, v) s = Relu(q) y = MatMul(s, c) }"""


@pytest.mark.parametrize(("text", "groups"), [(COUPLED, 1), (APART, 2)], ids=["cut alike", "cut apart"])
def test_a_vector_that_layers_share_counts_once_unless_they_are_cut_apart(text: str, groups: int) -> None:
    found = analyze(parse(text))
    assert len(found.coupling.groups) == groups
    assert (found.costs.original().params, footprint(tie(found.model)).params) == (108, 108)
    keep = {group.id: some(group.size, seed) for seed, group in enumerate(found.coupling.groups)}
    cost = found.costs.cost({group.factor: len(keep[group.id]) for group in found.coupling.groups})
    small = tie(both(found, keep)[0])
    assert (cost.params, len(small.weights)) == (footprint(small).params, 3 + groups)
    assert cost.size == pytest.approx(written_bytes(small), abs=80)


def test_what_bodies_compute_counts_once() -> None:
    """Whichever branch is taken and however often a loop runs: neither is known."""
    found = analyze(net("nested"))
    cost = costs_of(found).cost({})
    assert cost.params == 5 * 8 + 2 * 8 * 6 + 2 * 8 * 4 + 8 * 2
    assert cost.macs == cost.params  # one row: each weight once
    keep = {group.id: some(group.size) for group in found.coupling.groups}
    pruned, _ = both(found, keep)
    kept = costs_of(found).cost({group.factor: len(keep[group.id]) for group in found.coupling.groups})
    assert (kept.macs, kept.params) == (
        costs_of(analyze(pruned)).cost({}).macs,
        sum(w.size for w in pruned.weights.values() if w.is_float),
    )
    layers = [layer_costs(found.model, node, found.shapes.batch, parameters(found.model)) for node in found.coupling.nodes]
    assert sum(macs for macs, _ in layers) == cost.macs


def test_macs_are_those_of_one_sample_only_where_the_batch_is_dynamic() -> None:
    dynamic, static = (costs_of(analyze(parse(NETS["chain"].replace("[N,", f"[{n},")))).cost({}) for n in ("N", "4"))
    assert static.macs == 4 * dynamic.macs


@pytest.mark.parametrize(("kind", "width"), [("float", 4), ("float16", 2), ("double", 8)])
def test_bytes_follow_the_type(kind: str, width: int) -> None:
    found = analyze(parse(NETS["residual"].replace("float[", f"{kind}[")))
    cost = costs_of(found).cost({})
    assert cost.size == len(found.model.to_proto().SerializeToString())
    (group,) = found.coupling.groups[:1]
    less = costs_of(found).cost({group.factor: group.size - 2})
    assert cost.size - less.size == width * (cost.params - less.params)


def test_integers_are_bytes_and_no_parameters() -> None:
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    graph = helper.make_graph(
        [node],
        "integers",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["N", 3])],
        [helper.make_tensor("table", TensorProto.INT64, [5, 3], range(15))],
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    found = analyze(model)
    cost = costs_of(found).cost({})
    assert dataclasses.replace(cost, size=0) == Cost(0, 0, 0)
    assert cost.size == model.ByteSize()


@pytest.mark.parametrize("axis", ["", "float[8] s, int8[8] z", "float s, int8 z"])
def test_quantised_weights_are_parameters(axis: str) -> None:
    read, weight = ("wf", "float[8,3,1,1] wf") if not axis else ("w", f"int8[8,3,1,1] q, {axis}")
    decode = "w = DequantizeLinear<axis = 0>(q, s, z)" if axis else ""
    nodes = f"{{ {decode} a = Conv(x, {read}) y = Conv(a, v) }}"
    found = analyze(parse(f"(float[N,3,4,4] x) => (float[N,2,4,4] y) <{weight}, float[2,8,1,1] v> {nodes}"))
    scales = 8 if "[8]" in axis else 1 if axis else 0
    costs = CostModel(found.model, found.coupling, found.shapes.batch)
    assert costs.cost({}).params == 24 + 16 + scales
    (group,) = found.coupling.groups
    assert costs.cost({group.factor: 4}).params == 12 + 8 + (4 if scales == 8 else scales)
