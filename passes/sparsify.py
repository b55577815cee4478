"""Make layers sparse: choose which weights stay, and let them output what the original did, on calibration samples.

Each layer in topological order, as repair does it: its inputs are those of the network that is sparse up to it, its targets are
the original's outputs, residual sums and rectifiers taken into account.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import PassError
from onnxprune.ir.precision import differing_weights, with_fitted_weights
from onnxprune.ir.weights import Weight
from onnxprune.linear.layers import install, linear_readers, matrix_of
from onnxprune.linear.reconstruction import NetworkPair, Repaired, tasks_of
from onnxprune.passes.base import Fitted, Pass, Progress, silent
from onnxprune.runtime.stages import StagedRun
from onnxprune.sparse.patterns import parse_pattern
from onnxprune.sparse.solve import FITTED, SPARSE_RIDGES, Sparser

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxprune.data.calibration import CalibrationFeeds
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.linear.regression import Regression
    from onnxprune.passes.analysis import Analysis
    from onnxprune.sparse.layers import Layer
    from onnxprune.sparse.patterns import Mask

__all__ = ["Sparsify"]


@dataclass(frozen=True)
class Sparsify(Pass):
    """Write zeros into layers, and refit what reads them."""

    pattern: str = "unstructured"
    """What may be kept; see `onnxprune.sparse.patterns.parse_pattern`."""
    method: str = "magnitude"
    """How masks are chosen, see `onnxprune.sparse.solve.Sparser`."""
    repair: bool = True
    """Whether weights that stay make up for those that go; needs samples."""
    seed: int = 0
    """Of everything drawn."""
    values: str = "float32"
    """The type whose numbers weights of float32 are rounded to in the end: itself, or ``float16``."""

    def run(
        self,
        analysis: Analysis,
        layers: Sequence[tuple[Layer, int]],
        feeds: CalibrationFeeds | None = None,
        importance: Mapping[str, Array] = MappingProxyType({}),
        tell: Progress = silent,
    ) -> Fitted:
        """The sparse model.

        Args:
            analysis: the model, and its groups.
            layers: those that may change, with how many weights of each stay.
            feeds: what is fitted on; without any, masks follow from the weights alone and nothing is refit.
            importance: of each weight by gradients, by the name of the weight.
            tell: is told which layer is solved.

        Raises:
            PassError: a layer has more weights than it should, or does not obey the pattern.
        """
        pattern = parse_pattern(self.pattern)
        sparser = Sparser(pattern, self.method, self.repair, importance)
        if feeds is None or (self.method not in FITTED and not self.repair):
            result = Fitted(self._blind(analysis.model, layers, sparser))
        else:
            original = analysis.float32
            fitted = self._fitted(original, layers, sparser, feeds, tell)
            changed = differing_weights(fitted.model, original.model)
            result = Fitted(with_fitted_weights(analysis.model, fitted.model, changed), fitted.repairs)
        if self.values == "float16":
            _round_to_half(result.model, [layer.name for layer, _ in layers])
        for layer, keep in layers:
            if keep < layer.size and (layer.size - layer.zeros(result.model) > keep or not layer.obeys(result.model, pattern)):
                raise PassError(f"{layer.name}: has not become {pattern} with {keep} weights")
        return result

    def _blind(self, model: Model, layers: Sequence[tuple[Layer, int]], sparser: Sparser) -> Model:
        """Masks by weights alone."""
        result = model.copy()
        for layer, keep in layers:
            if keep >= layer.size:
                continue
            matrix = layer.reader.matrix(model.weights[layer.name].array().astype(np.float32))
            _cut(result, layer, sparser.mask(layer, matrix, keep, self._draw(layer)))
        return result

    def _fitted(
        self, analysis: Analysis, layers: Sequence[tuple[Layer, int]], sparser: Sparser, feeds: CalibrationFeeds, tell: Progress
    ) -> Fitted:
        """Masks and weights by what the layers read."""
        original, by_size = analysis.model, dataclasses.replace(sparser, method="magnitude")
        result = self._blind(original, [(layer, keep) for layer, keep in layers if not layer.seen], by_size)
        chosen = {layer.name: (layer, keep) for layer, keep in layers if layer.seen}
        readers = linear_readers(original, analysis.coupling)
        shrunk = {name for name, (layer, keep) in chosen.items() if keep < layer.size}
        touched = chosen.keys() if self.repair else shrunk
        tasks = [task for task in tasks_of(original, readers, analysis.shapes, shrunk) if task.reader.weight in touched]
        done = []
        with StagedRun(original, feeds, keep={task.target for task in tasks}) as large, StagedRun(result, feeds) as small:
            pair = NetworkPair(large, small, tasks)
            for count, task in enumerate(tasks):
                tell(f"making layers sparse ({count + 1} of {len(tasks)})")
                reader = task.reader
                layer, keep = chosen[reader.weight]
                rng = self._draw(layer)
                rows, fit, judge = pair.rows(task, reader, rng)
                start = matrix_of(reader, original)
                damping = sparser.damping(layer, fit, judge, start, keep) if self.repair else SPARSE_RIDGES[1]
                found = sparser.fit(layer, rows, start, damping, keep, rng)
                if self.repair or self.method in {"admm", "obs"}:
                    install(result, reader, found + 0.0)  # no negative zeros
                else:
                    _cut(result, layer, found[:, : reader.features] != 0)
                done.append(_judged(reader.name, judge, start, found))
        return Fitted(result, tuple(done))

    def _draw(self, layer: Layer) -> np.random.Generator:
        return np.random.default_rng([self.seed, layer.reader.node.index])


def _cut(model: Model, layer: Layer, mask: Mask) -> None:
    """Zeros outside of a mask [groups, features, outputs]; the rest stays to the bit."""
    like = model.weights[layer.name].array()
    kept = layer.reader.weight_of(mask * layer.reader.scale[0], np.zeros(like.shape, np.float32)) != 0
    model.weights[layer.name] = Weight(layer.name, None, np.where(kept, like, np.zeros((), like.dtype)))


def _round_to_half(model: Model, names: Sequence[str]) -> None:
    """The nearest float16 of each weight of float32; a weight with a number above 65,504, which float16 has not, stays."""
    for name in names:
        array = model.weights[name].array()
        if array.dtype == np.float32 and np.abs(array).max(initial=0) <= np.finfo(np.float16).max:
            model.weights[name] = Weight(name, None, array.astype(np.float16).astype(np.float32))


def _judged(name: str, judge: Regression, start: Array, found: Array) -> Repaired:
    """The errors of a layer whose weights were only cut, and of its new weights."""
    if not judge.y.size:
        return Repaired(name, 0.0, 0.0)
    cut = start * (found != 0)
    if judge.affine:
        cut[:, -1] = start[:, -1]
    scale = max(float(judge.y.var()), 1e-30)
    return Repaired(name, judge.error(cut) / scale, judge.error(found) / scale)
