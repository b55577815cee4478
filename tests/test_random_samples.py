"""The law on graphs composed of the conformance samples: every operator behind and before others, every free axis cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from axes.rules.compositions import COMPOSED, Composer, compose, deals, pool
from axes.rules.conformance import letters_of
from nets import both
from onnxprune.axes.factors import leaves
from onnxprune.driver.prune import analyze
from onnxprune.passes.analysis import Analysis
from onnxprune.verify import law
from test_random_graphs import plan_for

OPSETS = sorted({sample.opset for sample in COMPOSED})
ROUNDS = 4
"""How often each sample is dealt: every operator turns up with a group along one of its axes."""


@st.composite
def graphs(draw: st.DrawFn) -> ModelProto:
    """A few samples of one operator set; the choices of the composer are drawn, too."""
    first = draw(st.sampled_from(COMPOSED))
    others = draw(st.lists(st.sampled_from(pool(first.opset)), max_size=4))
    return compose(Composer(draw), [first, *others])


def check(model: ModelProto, seed: int, share: float = 1.0) -> Analysis:
    """Prune random subsets of a share of the groups: the pruned model is the masked one."""
    found = analyze(model)
    keep = plan_for(found, np.random.default_rng(seed), share)
    outcome = law.compare(*both(found, keep))
    assert outcome.ok, f"{keep}: {outcome.text}\n{onnx.printer.to_text(model)[-6000:]}"
    assert outcome.runs == 1
    return found


def pruned_letters(found: Analysis) -> Iterable[tuple[str, str]]:
    """For each sample in a graph the letters of its rule that a group runs along."""
    free = {group.factor for group in found.coupling.groups}
    for node in found.coupling.nodes:
        number, _, sample = node.view.name.partition(" ")
        if number.isdigit():
            yield from ((sample, letter) for letter, factor in node.letters.items() if free & set(leaves(factor)))


@settings(max_examples=60)
@given(graphs(), st.integers(0, 2**16), st.sampled_from([0.3, 1.0]))
def test_pruned_is_masked(model: ModelProto, seed: int, share: float) -> None:
    check(model, seed, share)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_operator_is_pruned_along_an_axis_of_its_own(opset: int) -> None:
    """... in company: counted over the operators of the samples that have an axis that may be pruned."""
    pruned: dict[str, set[str]] = defaultdict(set)
    for seed in range(ROUNDS):
        for composer, samples in deals(opset, seed):
            for sample, letter in pruned_letters(check(compose(composer, samples), seed)):
                pruned[sample].add(letter)
    counted = {sample.id: pruned[sample.id] & set(letters_of(sample).free) for sample in pool(opset)}
    missing = {(s.domain, s.op) for s in pool(opset)} - {(s.domain, s.op) for s in pool(opset) if counted[s.id]}
    assert not missing
