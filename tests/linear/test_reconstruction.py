"""What readers of a changed network shall put out."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.ir.weights import Weight
from onnxprune.linear.layers import linear_readers, matrix_of
from onnxprune.linear.reconstruction import NetworkPair, tasks_of
from onnxprune.runtime.stages import StagedRun
from sparse_nets import ready

RESIDUAL = """(float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,1,1] a, float[4,4,1,1] b, float[4,4,1,1] c> {
  p = Conv(x, a)
  q = Conv(p, b)
  s = Add(q, p)
  r = Relu(s)
  y = Conv(r, c)
}"""


def test_tasks_follow_what_changes() -> None:
    found, _ = ready(RESIDUAL)
    model, shapes = found.model, found.shapes
    readers = linear_readers(model, found.coupling)
    first, second, last = tasks_of(model, readers, shapes, ["a"])
    assert [task.reader.weight for task in (first, second, last)] == ["a", "b", "c"]
    assert (second.target, second.others, second.bounds) == ("s", ("p",), (0.0, np.inf))
    assert (last.target, last.others, last.bounds) == ("y", (), (-np.inf, np.inf))
    assert [task.reader.weight for task in tasks_of(model, readers, shapes, ["b"])] == ["b", "c"]
    assert not tasks_of(model, readers, shapes, [])


def test_targets_are_the_originals_and_inputs_those_of_the_changed_network() -> None:
    found, calibration = ready(RESIDUAL)
    model, feeds = found.model, calibration.every
    tasks = tasks_of(model, linear_readers(model, found.coupling), found.shapes, ["a"])
    changed = model.copy()
    changed.weights["a"] = Weight("a", None, model.weights["a"].array() * np.float32(2))
    with StagedRun(model, feeds, keep={task.target for task in tasks}) as large, StagedRun(changed, feeds) as small:
        pair = NetworkPair(large, small, tasks, lambda _: ())
        assert pair.changed is changed
        for task in tasks[:2]:
            rows, fit, judge = pair.rows(task, task.reader, np.random.default_rng(0))
            assert len(fit.x[0]) + len(judge.x[0]) == len(rows.x[0])
    x, half = rows.x[0, :, :-1], rows.x[0, :, :-1] / 2
    b = matrix_of(tasks[1].reader, model)[0]
    assert rows.offset is not None
    assert rows.offset[0] == pytest.approx(x, abs=1e-5)
    assert rows.y[0] == pytest.approx(half @ b[:-1] + b[-1] + half, abs=1e-4)


BLOCKS = """(float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,1,1] a, float[4,4,1,1] b, float[4,4,1,1] c> {
  NODES
}"""


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("r = Conv(x, a) q = Conv(r, b) s = Add(q, r) y = Conv(s, c)", ("s", (-np.inf, np.inf))),
        ("r = Conv(x, a) q = Conv(r, b) s = Add(q, r) t = Relu(s) y = Conv(t, c)", ("s", (0.0, np.inf))),
        ("p = Conv(x, a) r = Relu(p) q = Conv(r, b) s = Add(q, r) t = Relu(s) y = Conv(t, c)", ("s", (0.0, np.inf))),
        ("p = Conv(x, a) r = Relu(p) q = Conv(r, b) s = Add(q, r) t = Sigmoid(s) y = Conv(t, c)", ("s", (0.0, np.inf))),
        ("p = Conv(x, a) r = Sigmoid(p) q = Conv(r, b) s = Add(q, r) t = Relu(s) y = Conv(t, c)", None),
        ("p = Conv(x, a) r = Relu(p) q = Conv(r, b) s = Add(q, r) t = Mul(s, r) y = Conv(t, c)", None),
    ],
)
def test_what_enters_a_bypass_is_matched_to_what_came_out_of_it(nodes: str, expected: object) -> None:
    found, _ = ready(BLOCKS.replace("NODES", nodes))
    model, changed = found.model, found.model.copy()
    (place,) = (place for place, node in enumerate(model.graph.node) if node.op_type == "Add")
    changed.graph.node[place].op_type = "Identity"
    changed.graph.node[place].input[:] = ["r"]
    tasks = tasks_of(model, linear_readers(model, found.coupling), found.shapes, [], changed)
    assert [task.reader.weight for task in tasks] == (["a", "c"] if expected else ["c"])  # nothing reads what b computes
    if expected:
        assert (tasks[0].target, tasks[0].bounds) == expected
    assert [task.moved for task in tasks] == [True, False][-len(tasks) :]
    assert all(task.fed for task in tasks)
