"""Sums that become one of their terms."""

from __future__ import annotations

import numpy as np
from onnx import helper

from onnxprune.driver.prune import analyze
from onnxprune.linear.layers import linear_readers
from onnxprune.passes import Bypass
from onnxprune.pruning.branches import find_branches
from onnxprune.runtime.session import Session
from residual_nets import X, residual


def test_nodes_keep_their_places_and_the_branch_is_not_read() -> None:
    analysis = analyze(residual())
    layers = {reader.node.index for reader in linear_readers(analysis.model, analysis.coupling)}
    branches = find_branches(analysis.model, analysis.shapes, layers)
    bypassed = Bypass().run(analysis.model, branches[1:2])
    before, after = ([node.op_type for node in model.graph.node] for model in (analysis.model, bypassed))
    place = branches[1].place
    assert (before[place], after[place]) == ("Add", "Identity")
    assert before[:place] + before[place + 1 :] == after[:place] + after[place + 1 :]
    little, r, first = Session(bypassed, ["little", "r", "first"]).run({"x": X[:2]})
    np.testing.assert_array_equal(little, r)
    np.testing.assert_array_equal(r, np.maximum(first, 0))


def test_sums_of_old_operator_sets_leave_no_attribute_behind() -> None:
    analysis = analyze(residual())
    layers = {reader.node.index for reader in linear_readers(analysis.model, analysis.coupling)}
    branches = find_branches(analysis.model, analysis.shapes, layers)[:1]
    model = analysis.model.copy()
    model.graph.node[branches[0].place].attribute.append(helper.make_attribute("broadcast", 1))
    assert not Bypass().run(model, branches).graph.node[branches[0].place].attribute
