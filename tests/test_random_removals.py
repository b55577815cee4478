"""Random graphs: what is planted there to go without loss is found, and without what goes a model computes the same."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from onnxprune.axes.coupling import CouplingGroup
from onnxprune.axes.factors import leaves
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning.lossless.columns import places
from onnxprune.pruning.lossless.search import REMOVAL_KINDS
from onnxprune.runtime import session
from onnxprune.shapes import candidates
from onnxprune.verify import law
from pruning.lossless.test_search import without_loss
from pruning.lossless.test_value_numbering import degraded
from test_random_graphs import models


def members(found: Analysis, group: CouplingGroup) -> dict[bool, list[tuple[str, int]]]:
    """The axes of constants that a group runs along: those that are summed over there, and the others."""
    result: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
    for node in found.coupling.nodes:
        for letter, carried in node.equation.carriers.items():
            for position, axis in carried:
                name = node.view.inputs[position] if node.view.has(position) else ""
                if name in found.model.weights and group.factor in leaves(node.letters[letter]):
                    result[letter in node.equation.contracted].append((name, axis))
    return result


def planted(found: Analysis, group: CouplingGroup, kind: str, one: int, other: int) -> Model | None:
    """The model with one position dead or a duplicate of another; ``None`` where constants alone do not decide that."""
    axes = members(found, group)
    summed = {name for name, _ in axes[True]}
    if not summed or summed & {name for name, _ in axes[False]}:
        return None
    model = found.model.copy()
    for name, axis in axes[kind == "dead"]:
        array = model.weights[name].array().copy()
        at = places(found.coupling.axes[name][axis], group.factor)
        rows = np.moveaxis(array, axis, 0)
        rows[at[one]] = 0 if kind == "dead" else rows[at[other]]
        model.weights[name] = Weight(name, None, array)
    return model


def sums_are_affine(found: Analysis, group: CouplingGroup) -> bool:
    """Whether convolutions and products with constants alone sum over a group, and nothing else shapes it."""
    plain = {"Conv", "ConvTranspose", "MatMul", "Gemm", "Relu", "Sigmoid", "BatchNormalization", "Identity", "Tanh", "Neg"}
    return all(
        node.view.op in plain
        for node in found.coupling.nodes
        if any(group.factor in leaves(factor) for factor in node.letters.values())
    )


@settings(max_examples=80)
@given(models(), st.integers(0, 2**16), st.sampled_from(["dead", "duplicated"]))
def test_what_is_planted_goes(model: ModelProto, seed: int, kind: str) -> None:
    found = analyze(model)
    groups = [group for group in found.coupling.groups if sums_are_affine(found, group)]
    assume(groups)
    rng = np.random.default_rng(seed)
    group = groups[rng.integers(len(groups))]
    one, other = rng.choice(group.size, 2, replace=False).tolist()
    changed = planted(found, group, kind, one, other)
    assume(changed is not None)
    assert changed is not None
    pruned, removal = without_loss(changed)
    gone = removal.gone.get(group.id, np.zeros(0, int))
    assert one in gone or (kind == "duplicated" and other in gone)
    assert law.compare(pruned, changed).ok


@settings(max_examples=80)
@given(models(), st.integers(0, 2**16))
def test_whatever_goes_the_model_stays_what_it_is(model: ModelProto, seed: int) -> None:
    original = Model.of(degraded(model, seed))
    pruned, removal = without_loss(original)
    feeds = session.random_feeds(original.inputs, candidates.bindings(original.inputs)[0], 0)
    assume(np.abs(session.Session(original).run(feeds)[0]).max() > 1e-3)  # else outputs are rounding errors
    outcome = law.compare(pruned, original)
    assert outcome.ok, f"{outcome.text}\n{onnx.printer.to_text(model)[:6000]}"
    assert removal.counts.keys() == set(REMOVAL_KINDS)
