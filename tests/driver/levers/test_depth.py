"""Depth as a lever."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.data.samples import open_samples
from onnxprune.driver.levers.base import Ground, Made, Mixture
from onnxprune.driver.levers.depth import Depth
from onnxprune.driver.progress import Stages
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.latency.node_times import NodeTime
from onnxprune.options.optimize import OptimizeRecipe
from onnxprune.runtime.session import Session
from optimizable import ground
from residual_nets import X, residual


def times(model: Model) -> list[NodeTime]:
    """Each convolution takes a tenth of the time, but those of the last block take two."""
    slow = {"d_node", "e_node"}
    return [NodeTime(n.name, n.op_type, 0.2 if n.name in slow else 0.1, 4) for n in model.graph.node if n.op_type == "Conv"]


def lever(recipe: OptimizeRecipe | None = None) -> Depth:
    model = Model.of(residual())
    samples = open_samples({"x": X[:64]}, model.inputs)
    return Depth(Ground(model, recipe or OptimizeRecipe(), samples, Stages(), times))


def start(one: Depth) -> Made:
    return Made(Mixture(), one.ground.original)


def test_a_share_is_a_number_of_branches_that_leave_as_much() -> None:
    one = lever()
    assert one.choices() == ("1 of 3 branches out",)
    # Of 0.8: 0.1 for the linear branch, 0.2 for the next one, 0.4 for the last.
    shares = {1.0: 1, 0.95: 1, 0.8: 1, 0.6: 2, 0.5: 2, 0.1: 3}
    assert {share: int(one.at(share, Mixture())[0]) for share in shares} == shares


def test_size_counts_bytes() -> None:
    one = lever(OptimizeRecipe(target="size=0.5"))
    sizes = [branch.total for branch, _ in one._shortener(start(one)).ladder]
    assert sorted(sizes) == ["first", "little", "much"]
    whole = one.ground.original.nbytes
    for count in (1, 2, 3):
        share = one._shortener(start(one)).ladder[count - 1][1]
        made = one.carry_out(start(one), f"{count} of 3 branches out")
        assert made.model.nbytes / whole == pytest.approx(share, abs=0.02)


def test_a_choice_is_cut_proven_and_repaired() -> None:
    one = lever()
    made = one.carry_out(start(one), "2 of 3 branches out")
    (step,) = made.steps
    assert list(step.models) == ["cut", "repaired"]
    assert step.check is not None
    assert step.check.ok
    cut, repaired, original = (Session(model).run({"x": X[64:]})[0] for model in (*step.models.values(), one.ground.original))
    assert np.square(repaired - original).mean() < 0.5 * np.square(cut - original).mean()


def test_a_draft_has_the_nodes_of_what_is_carried_out() -> None:
    one = lever()
    draft, made = (way(start(one), "1 of 3 branches out") for way in (one.draft, one.carry_out))
    assert draft.mixture == made.mixture
    assert [node.op_type for node in draft.model.graph.node] == [node.op_type for node in made.model.graph.node]


def test_more_branches_than_there_are() -> None:
    one = lever()
    with pytest.raises(TargetError, match="has no 4 branches"):
        one.carry_out(start(one), "4 of 4 branches out")


def test_a_chain_of_layers_has_no_choice() -> None:
    assert not Depth(ground()).choices()
