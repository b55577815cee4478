"""The error that each layer costs: the divergence of the model's outputs when it alone is sparse, at a few numbers of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.linear.layers import install, matrix_of
from onnxprune.runtime.stages import StagedRun
from onnxprune.sparse.fit import QuadraticProblem, masked
from onnxprune.verify.suffix import SuffixDivergence

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.linear.moments import FeatureMoments, Statistics
    from onnxprune.sparse.layers import Layer
    from onnxprune.sparse.solve import Sparser

__all__ = ["KEPT_SHARES", "measure_curves"]

KEPT_SHARES = (0.6, 0.4, 0.25, 0.15, 0.08)
"""Shares of a layer's weights at which the divergence is measured."""
_DAMPING = 1e-2
"""Relative to the mean diagonal, as SparseGPT has it: curves compare layers, so that all have the same."""


def measure_curves(
    model: Model,
    layers: Sequence[Layer],
    statistics: Statistics,
    held: Iterable[Mapping[str, Array]],
    sparser: Sparser,
    tell: Callable[[str], None],
    seed: int = 0,
) -> dict[str, dict[int, float]]:
    """The divergence by the number of weights that stay, for each layer by the name of its weight.

    Args:
        model: the original, in float32.
        layers: in the order of its graph.
        statistics: of the original.
        held: samples that the statistics have not seen.
        sparser: how weights are chosen and fitted.
        tell: called with what is being done.
        seed: for the method ``random``.
    """
    found: dict[str, dict[int, float]] = {}
    with StagedRun(model, held) as stages:
        meter = SuffixDivergence(model, held, stages)
        for count, layer in enumerate(layers):
            tell(f"measuring what each layer costs ({count + 1} of {len(layers)})")
            start, reader = matrix_of(layer.reader, model), layer.reader
            rng = np.random.default_rng([seed, reader.node.index])
            problem, energy = _problem(start, statistics.moments[reader.weight], affine=reader.affine)
            known = {}
            for keep in sorted({max(1, round(level * layer.size)) for level in KEPT_SHARES}, reverse=True):
                changed = model.copy()
                install(changed, reader, _sparse(layer, sparser, problem, start, energy, keep, rng))
                known[keep] = meter.measure(changed, reader.node.index)
            found[layer.name] = known
    return found


def _problem(start: Array, moments: FeatureMoments, *, affine: bool) -> tuple[QuadraticProblem | None, Array]:
    """The problem of a layer whose target is its own output, ``None`` where features are too many; and their mean squares."""
    weights = start[:, :-1] if affine else start
    if not moments.full:
        return None, moments.squares[:, : weights.shape[1]]
    gram = moments.array
    mean = gram[:, -1, :-1].astype(np.float64) if affine else np.zeros(gram.shape[:2])
    inner = gram[:, :-1, :-1] if affine else gram
    problem = QuadraticProblem.centred(inner, mean, _DAMPING)
    target = np.einsum("gf,gfo->go", mean, weights) + (start[:, -1] if affine else 0)
    return problem.towards(problem.hessian @ weights, target), np.einsum("gff->gf", inner)


def _sparse(
    layer: Layer,
    sparser: Sparser,
    problem: QuadraticProblem | None,
    start: Array,
    energy: Array,
    keep: int,
    rng: np.random.Generator,
) -> Array:
    affine = layer.reader.affine
    weights = start[:, :-1] if affine else start
    if problem is None:
        mask = sparser.mask(layer, weights * np.sqrt(energy)[:, :, None], keep, rng)
        return np.concatenate([weights * mask, start[:, -1:]], 1) if affine else weights * mask
    found, mask = sparser.choose(layer, problem, weights, energy, keep, rng)
    if sparser.refit:
        found = masked(problem, mask, found)
    if not affine:
        return found
    return problem.whole(found) if sparser.refit else np.concatenate([found, start[:, -1:]], 1)
