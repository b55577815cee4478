"""Segments cover the graph once, run alone at any widths, and together are the graph that pruning makes."""

from __future__ import annotations

import math
import sys
from collections import Counter
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from nets import NETS, parse
from onnxprune.axes.factors import Factor
from onnxprune.axes.plan import Plan
from onnxprune.driver.prune import analyze
from onnxprune.latency.segments import Segment, SegmentedGraph, constant_bytes
from onnxprune.latency.timer import OrtTimer
from onnxprune.passes import PruneChannels
from onnxprune.passes.analysis import Analysis

ANALYSES = {name: analyze(parse(NETS[name])) for name in NETS}


def cut_of(found: Analysis, batch: int = 2) -> SegmentedGraph:
    """The segments, for inputs as the probe has them but for the batch."""
    shapes = {value.name: found.shapes.shapes[value.name] or () for value in found.model.inputs}
    inputs = {name: (batch, *shape[1:]) for name, shape in shapes.items()}
    return SegmentedGraph(found.model, found.coupling, found.shapes, inputs)


def widths(found: Analysis, seed: int) -> dict[Factor, int]:
    """Seeded widths of all groups; all of them with the seed 0."""
    rng = np.random.default_rng(seed)
    return {g.factor: int(rng.integers(1, g.size + 1)) if seed else g.size for g in found.coupling.groups}


def pruned(found: Analysis, counts: dict[Factor, int]) -> ModelProto:
    keep = {group.id: np.arange(counts[group.factor]) for group in found.coupling.groups}
    plan = Plan(
        {name: kept for name, kept in keep.items() if len(kept) < next(g.size for g in found.coupling.groups if g.id == name)}
    )
    return PruneChannels().run(found, plan).to_proto()


def ops(found: Analysis, segment: Segment) -> list[str]:
    return [found.model.graph.node[place].op_type for place in segment.nodes]


def spelled(model: ModelProto) -> list[tuple[Any, ...]]:
    """Each node: operator, attributes, and the shape of each constant it reads, with the values of integers."""
    constants: dict[str, Any] = {}
    for tensor in model.graph.initializer:
        whole = tensor.data_type == TensorProto.INT64
        constants[tensor.name] = numpy_helper.to_array(tensor).tolist() if whole else tuple(tensor.dims)
    return [
        (node.op_type, sorted(str(a) for a in node.attribute), [constants.get(name) for name in node.input])
        for node in model.graph.node
    ]


@pytest.mark.parametrize("name", NETS)
def test_every_node_is_in_one_segment(name: str) -> None:
    found = ANALYSES[name]
    places = Counter(place for segment in cut_of(found).segments for place in segment.nodes)
    assert places == Counter(range(len(found.model.graph.node)))


@pytest.mark.parametrize("name", NETS)
def test_segments_exchange_what_they_say(name: str) -> None:
    found = ANALYSES[name]
    made = {value.name for value in found.model.inputs}
    for segment in cut_of(found).segments:
        assert made.issuperset(segment.inputs)
        own = {name for place in segment.nodes for name in found.model.graph.node[place].output}
        read = {name for place in segment.nodes for name in found.model.graph.node[place].input}
        assert own.issuperset(segment.outputs)
        assert (read - own - found.model.weights.keys()) == set(segment.inputs)
        made.update(segment.outputs)
    assert made.issuperset(value.name for value in found.model.graph.output)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_the_whole_is_what_pruning_makes(name: str, seed: int) -> None:
    found = ANALYSES[name]
    counts = widths(found, seed)
    whole, expected = cut_of(found).whole(counts), pruned(found, counts)
    assert whole is not None
    assert spelled(whole) == spelled(expected)
    assert constant_bytes(whole) == sum(len(t.raw_data) or numpy_helper.to_array(t).nbytes for t in expected.graph.initializer)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_every_segment_runs_at_any_widths(name: str, seed: int) -> None:
    found = ANALYSES[name]
    cut, counts = cut_of(found), widths(found, seed)
    models: list[ModelProto] = []
    for segment in cut.segments:
        pair = cut.timed(segment, counts)
        assert pair is not None
        models += pair
    whole = cut.whole(counts)
    assert whole is not None
    assert None not in OrtTimer()([*models, whole])


@pytest.mark.parametrize("name", NETS)
def test_segments_have_the_constants_of_the_whole(name: str) -> None:
    found = ANALYSES[name]
    cut, counts = cut_of(found), widths(found, 5)
    shapes: Counter[tuple[int, ...]] = Counter()
    for segment in cut.segments:
        model, _ = cut.timed(segment, counts) or pytest.fail("a shape is not known")
        shapes.update(tuple(tensor.dims) for tensor in model.graph.initializer)
    whole = cut.whole(counts)
    assert whole is not None
    expected = Counter(tuple(tensor.dims) for tensor in whole.graph.initializer)
    assert not expected - shapes
    assert all(math.prod(shape) == max(shape) for shape in shapes - expected), "only what primes and drains is added"


def test_what_runs_on_a_result_is_in_its_segment() -> None:
    expected = {
        "chain": [["Conv", "BatchNormalization", "Relu"], ["Conv", "Sigmoid"], ["Conv"]],
        "residual": [["Conv"], ["Conv", "Relu"], ["Conv", "Add"], ["Conv"]],
    }
    for name, kinds in expected.items():
        assert [ops(ANALYSES[name], segment) for segment in cut_of(ANALYSES[name]).segments] == kinds


def test_coordinates_are_as_coarse_as_they_can_be() -> None:
    found = ANALYSES["concat_split"]  # 3 + (5 + 4) channels join and part again as (3 + 5) + 4
    sizes = [sorted(factor.size for factor in segment.coordinates) for segment in cut_of(found).segments]
    kinds = [ops(found, segment) for segment in cut_of(found).segments]
    assert list(zip(kinds, sizes, strict=True)) == [
        (["Conv"], [3]),
        (["Conv", "Concat"], [3, 9]),
        (["Split"], [4, 8]),
        (["Conv"], [8]),
        (["Conv", "Add"], [4]),
    ]


def deep(layers: int, width: int = 8) -> ModelProto:
    """Equal convolutions, one after the other."""
    names = ", ".join(f"float[{width},{width},3,3] w{n}" for n in range(layers))
    body = "\n".join(f"x{n + 1} = Conv<pads = [1,1,1,1]>(x{n}, w{n})\n y{n + 1} = Relu(x{n + 1})" for n in range(layers))
    for n in range(layers):
        body = body.replace(f"(x{n}, w{n})", f"(y{n}, w{n})")
    return parse(f"""(float[N,3,8,8] x) => (float[N,4,8,8] y)
    <float[{width},3,3,3] first, {names}, float[4,{width},1,1] last> {{
      y0 = Conv<pads = [1,1,1,1]>(x, first)
      {body}
      y = Conv(y{layers}, last)
    }}""")


def test_equal_layers_make_equal_models() -> None:
    found = analyze(deep(6))
    cut = cut_of(found)
    counts = {group.factor: 4 for group in found.coupling.groups}
    models = [cut.timed(segment, counts) or pytest.fail("a shape is not known") for segment in cut.segments]
    assert len(models) == 8
    assert len({model.SerializeToString(deterministic=True) for model, _ in models}) == 3


def test_dynamic_sizes_stay_dynamic_and_their_sizes_are_told() -> None:
    found = ANALYSES["attention"]
    cut = SegmentedGraph(found.model, found.coupling, found.shapes, {"x": (3, 5, 8)})
    for segment in cut.segments:
        model, _ = cut.timed(segment, {}) or pytest.fail("a shape is not known")
        sizes = {prop.key: int(prop.value) for prop in model.metadata_props}
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            assert sizes[dims[0].dim_param] == 3
            assert all(dim.dim_param in sizes or dim.dim_value for dim in dims)
    whole = cut.whole({})
    assert whole is not None
    (x,) = whole.graph.input
    assert [dim.dim_param or dim.dim_value for dim in x.type.tensor_type.shape.dim] == ["d0", "d1", 8]
    assert {prop.key: prop.value for prop in whole.metadata_props} == {"d0": "3", "d1": "5"}


def test_images_arrive_in_blocks_and_leave_as_a_pixel() -> None:
    found = analyze(deep(1, width=32))
    cut = cut_of(found, batch=1)
    _, segment, _ = cut.segments
    (factor,) = {f for f in segment.coordinates if f.size == 32 and f is segment.coordinates[0]}
    for count, primed in ((32, True), (20, True), (12, False), (30, False)):
        model, baseline = cut.timed(segment, {factor: count}) or pytest.fail("a shape is not known")
        assert [node.op_type for node in model.graph.node] == ["Conv"] * primed + ["Conv", "Relu", "Conv"]
        assert [node.op_type for node in baseline.graph.node] == ["Conv"] * primed + ["Conv"]
        channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        assert channels == (1 if primed else count)
        assert list(model.graph.node[-1].attribute[0].ints) == [8, 8]


def test_small_constants_keep_their_values_and_others_none() -> None:
    found = analyze(
        parse("""(float[N,3,8,8] x) => (float[N,4,16,16] y)
        <float[16,3,1,1] w, float[16] b, float low = {0}, float high = {6}, float[4] scales = {1,1,2,2}, float[4,16,1,1] v> {
          a = Conv(x, w, b)
          c = Clip(a, low, high)
          r = Resize<mode = "nearest">(c, , scales)
          y = Conv(r, v)
        }""")
    )
    model, _ = cut_of(found).timed(cut_of(found).segments[0], {}) or pytest.fail("a shape is not known")
    kept = [numpy_helper.to_array(t).tolist() for t in model.graph.initializer if t.HasField("raw_data")]
    assert 6.0 in kept
    assert [1.0, 1.0, 2.0, 2.0] in kept
    assert [list(t.dims) for t in model.graph.initializer if not t.HasField("raw_data")] == [[16, 3, 1, 1], [16], [1, 16, 1, 1]]


def test_a_value_of_unknown_shape_leaves_its_segments_out() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Mystery", ["a"], ["b"], domain="elsewhere"),
            helper.make_node("MatMul", ["b", "v"], ["y"]),
        ],
        "mystery",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.ones((4, 4), np.float32), name) for name in "wv"],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)]
    found = analyze(helper.make_model(graph, opset_imports=imports, ir_version=10))
    cut = cut_of(found)
    assert [cut.timed(segment, {}) is None for segment in cut.segments] == [False, False, True]


def test_bodies_know_their_outer_names() -> None:
    found = analyze(
        parse("""(float[N,4] x, bool flag) => (float[N,4] y) <float[6,4] w, float[4,6] v, float[4] shift> {
          h = MatMul(x, v)
          a = MatMul(h, w)
          y = If(flag) <then_branch = then () => (float[N,4] t) { t = Add(a, shift) },
                        else_branch = other () => (float[N,4] e) { e = Identity(a) }>
        }""")
    )
    cut = SegmentedGraph(found.model, found.coupling, found.shapes, {"x": (2, 4), "flag": ()})
    whole = cut.whole({})
    pairs = [cut.timed(segment, {}) or pytest.fail("a shape is not known") for segment in cut.segments]
    assert whole is not None
    assert None not in OrtTimer()([whole, *(model for model, _ in pairs)])


def test_work_is_multiply_accumulates_or_width() -> None:
    found = ANALYSES["chain"]
    cut = cut_of(found, batch=1)
    first, second = found.coupling.groups
    _, segment, _ = cut.segments
    whole = cut.work(segment, {})
    assert whole == 2 * 8 * 6 * 9 * 64  # of the probe, whose batch is 2
    assert cut.work(segment, {first.factor: 4, second.factor: 3}) == whole / 4


def test_cutting_takes_time_in_proportion_to_nodes() -> None:
    few, many = (calls(partial(cut_of, analyze(deep(layers)))) for layers in (20, 80))
    assert many < 5 * few


def calls(function: Any) -> int:
    """How many Python functions are called."""
    count = 0

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count
