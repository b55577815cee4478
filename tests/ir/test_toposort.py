"""Nodes in an order in which each can run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from nets import NETS, parse
from onnxprune import ModelError, Recipe, prune
from onnxprune.ir.toposort import in_order
from onnxprune.runtime.session import inference_session


def shuffled(model: ModelProto, order: list[int]) -> ModelProto:
    nodes = list(model.graph.node)
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes[at] for at in order)
    return result


SIZE = len(parse(NETS["attention"]).graph.node)


@given(st.permutations(range(SIZE)))
def test_any_order_becomes_one_that_runs(order: list[int]) -> None:
    nodes = in_order(shuffled(parse(NETS["attention"]), order).graph.node)
    assert len(nodes) == SIZE
    computed = {"x", *(tensor.name for tensor in parse(NETS["attention"]).graph.initializer)}
    for node in nodes:
        assert computed.issuperset(node.input)
        computed.update(node.output)


@pytest.mark.parametrize("name", NETS)
def test_an_order_that_runs_is_kept(name: str) -> None:
    nodes = list(parse(NETS[name]).graph.node)
    assert in_order(nodes) == nodes


def test_what_a_body_reads_comes_first() -> None:
    model = parse("""(float[2] x, bool b) => (float[2] y) {
      t = Neg(x)
      y = If (b) <then_branch = one () => (float[2] u) { u = Abs(t) }, else_branch = two () => (float[2] v) { v = Neg(t) }>
    }""")
    nodes = list(model.graph.node)
    assert in_order(nodes[::-1]) == nodes


def test_a_circle_is_an_error() -> None:
    model = parse("(float[2] x) => (float[2] y) { a = Neg(x) b = Add(a, a) y = Abs(b) }")
    model.graph.node[1].input[1] = "y"
    with pytest.raises(ModelError, match="here: Add node 'b' waits for its own output"):
        in_order(model.graph.node, "here")


def test_a_model_whose_nodes_are_out_of_order_is_pruned() -> None:
    model = parse(NETS["residual"])
    result = prune(shuffled(model, list(range(len(model.graph.node)))[::-1]), Recipe(target="channels=0.5", align="1"))
    straight = prune(model, Recipe(target="channels=0.5", align="1"))
    assert {name: kept.tolist() for name, kept in result.plan.keep.items()} == {
        name: kept.tolist() for name, kept in straight.plan.keep.items()
    }
    x = {"x": np.ones((1, 3, 8, 8), np.float32)}
    (got,), (expected,) = (inference_session(one.model).run(None, x) for one in (result, straight))
    np.testing.assert_array_equal(got, expected)
