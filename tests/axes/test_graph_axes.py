"""The axes of a graph: two nodes and what unification makes of them; `test_coupling` has the groups of many graphs."""

from __future__ import annotations

from nets import parse
from onnxprune.axes.graph_axes import GraphAxes, ranks
from onnxprune.driver.prune import analyze
from onnxprune.ir.control_flow import walk


def test_values_that_meet_share_factors() -> None:
    found = analyze(
        parse("""(float[N,3] x) => (float[N,4] y) <float[3,6] w, float[6,4] v> {
  h = MatMul(x, w)
  y = MatMul(h, v)
}""")
    )
    graph = GraphAxes(found.model, found.shapes)
    for path, step in walk(found.model.graph, found.model.opset):
        graph.state(path, step)
    assert graph.axes["w"][1].root is graph.axes["h"][1].root is graph.axes["v"][0].root
    assert [node.view.op for node in graph.nodes] == ["MatMul", "MatMul"]
    assert graph.uses == {"w": ("MatMul", 1), "v": ("MatMul", 1)}
    graph.fix_interface()
    assert graph.axes["y"][1].root.fixed
    assert not graph.axes["h"][1].root.fixed


def test_ranks() -> None:
    assert ranks([(2, 3), None, ()]) == (2, None, 0)
