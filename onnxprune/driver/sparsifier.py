"""The passes of `sparsify` in their order, and the search for sizes that only show when a model is written."""

from __future__ import annotations

import copy
import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.driver.exponents import best_exponent, small_enough
from onnxprune.driver.kernels import inlined, proven_with_kernels
from onnxprune.driver.progress import Stages
from onnxprune.driver.proof import Judge, demand
from onnxprune.errors import OptionError, TargetError
from onnxprune.ir import files
from onnxprune.ir.model import Model
from onnxprune.latency.timer import OrtTimer
from onnxprune.linear.moments import collect
from onnxprune.options.globs import check_globs
from onnxprune.options.registries import ALLOCATIONS, METHODS
from onnxprune.options.registry import TORCH
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.options.targets import Goal
from onnxprune.passes import Couple, Decode, Encode, FillSource, Normalize, Restore, Sparsify, UseKernels
from onnxprune.passes.base import Fitted, Progress, silent
from onnxprune.passes.generated import generated_weights
from onnxprune.passes.use_kernels import WithKernels
from onnxprune.pruning.cost import layer_costs
from onnxprune.sparse import layers as sparse_layers
from onnxprune.sparse import permute
from onnxprune.sparse.allocation import WeightCounts, counts_by_curves, important, threshold
from onnxprune.sparse.curves import KEPT_SHARES, measure_curves
from onnxprune.sparse.patterns import NofM
from onnxprune.sparse.solve import Sparser
from onnxprune.verify import law

if TYPE_CHECKING:
    from onnxprune.axes.factors import Positions
    from onnxprune.data.calibration import Calibration, CalibrationFeeds
    from onnxprune.data.samples import Samples
    from onnxprune.ir.weights import Array
    from onnxprune.linear.reconstruction import Repaired
    from onnxprune.passes.analysis import Analysis
    from onnxprune.passes.mask_source import MaskedSource
    from onnxprune.sparse.kernel_nodes import KernelLayer
    from onnxprune.sparse.layers import Layer
    from onnxprune.verify.verdicts import Check

__all__ = ["LAYER_EXPONENTS", "Sparsified", "Sparsifier", "gzipped"]

LAYER_EXPONENTS = (1.0, 0.5)
"""Of what layers are measured to cost, before it is added; the first one where the model is too large to try."""
_MEASURED = 2e13
"""Multiply-accumulates, about, up to which more samples measure what layers cost."""
_STEPS = 12
"""Sparsities that are tried for a size, at most."""
_NEAR = 0.01
"""What a size may be below the one asked for, as a share of it."""
_CHUNK = 1 << 24
_MANY = 0.9
"""Zeros with which a kernel makes a layer faster, or it never gets one."""


@dataclass(frozen=True, slots=True)
class Sparsified:
    """Attributes:
    original: the normalised model.
    model: the sparse one, with dense initializers.
    file: the file as it was given, with the new weights in its own constants, where it has such.
    stored: what is written: the file, or ``model`` where it lacks some; with its weights encoded, if that was asked for.
    layers: those that may be sparse, with how many weights of each stay.
    repairs: the layers that were refit, with their errors.
    kernels: the layers that have sparse kernels.
    """

    original: Model
    model: Model
    file: MaskedSource
    stored: Model
    layers: tuple[tuple[Layer, int], ...]
    repairs: tuple[Repaired, ...]
    kernels: tuple[KernelLayer, ...] = ()


class Sparsifier:
    """What does not depend on how much stays is done once."""

    def __init__(
        self,
        original: Model,
        recipe: SparseRecipe,
        samples: Samples | None,
        stages: Stages,
        use_kernels: UseKernels | None = None,
    ) -> None:
        """Find the layers.

        Args:
            original: the model.
            recipe: how sparse it becomes, and where.
            samples: what is fitted on; without any, weights go by magnitude.
            stages: announces and times what is done.
            use_kernels: gives layers kernels, and knows how fast these are; one that times them here if there is none.

        Raises:
            ModelError: weights of a layer are not finite.
            OptionError: no layer may be sparse, or the recipe needs data that is not there.
        """
        self.recipe = recipe.settled(data=samples is not None)
        self._original, self.stages = original, stages
        self._use_kernels = use_kernels or UseKernels(OrtTimer())
        with stages("analysis", "finding layers"):
            analysis = Couple(allow_inexact=True).run(Normalize().run(original))  # orders may change there
            self.every, self.left = sparse_layers.find_layers(
                analysis.model, analysis.coupling, recipe.protect, recipe.parsed, generated_weights(Decode().run(original))
            )
            self.calibration = None if samples is None else analysis.calibration(samples)
        names = (name for layer in self.every for name in (layer.reader.name, layer.name))
        check_globs((glob for glob, _ in recipe.own), names, "--layer", f"layer of {analysis.model.name} that may be sparse")
        self._own = {layer.name: share for layer in self.every if (share := self._asked(layer)) is not None}
        self.layers = [layer for layer in self.every if recipe.ends or not layer.end or layer.name in self._own]
        if not self.layers:
            ends = "only first and last layers are left: pass --ends to make them sparse, too"
            raise OptionError(f"{analysis.model.name}: {ends}{sparse_layers.few_left(self.left)}")
        sparse_layers.check_finite(analysis.model, self.layers)
        self._sharing = self.layers  # which the sparsity is shared out among
        self._costs: Mapping[str, float] = {}  # of a weight of each, where not all cost the same
        self.permuted: dict[str, Positions] = {}
        pattern = recipe.parsed
        if isinstance(pattern, NofM) and recipe.permute:
            with stages("permutation", "looking for an order of channels"):
                self.permuted, analysis = self._permuted(analysis, pattern)
        self.analysis = analysis
        self.importance: Mapping[str, Array] = {}
        if TORCH in METHODS[self.recipe.method].needs:
            with stages("scores", f"scoring by {self.recipe.method}"):
                self.importance = self._important(analysis.float32.model)
        self._exponent: float | None = None

    def run(self) -> Sparsified:
        """The sparse model that meets the recipe's target.

        Raises:
            TargetError: the size cannot be reached; says what is reachable.
        """
        goal = self.recipe.goal
        if goal is None:
            pattern = self.recipe.parsed
            counts = {layer.name: pattern.most(layer.array(self.analysis.model).shape) for layer in self.layers}
            return self.with_counts(counts)
        if goal.metric == "threshold":
            return self.with_counts(threshold(self.layers, self.analysis.model, goal.value) | self._fixed())
        if goal.metric == "sparsity":
            return self.with_counts(self.shares(goal.value))
        return self._sized(goal)

    def proof(self, made: Sparsified) -> Check:
        """The proof that what is written is the file with these weights, with sparse kernels and without.

        Raises:
            VerificationError: it computes something else; or an output is not tested that must be.
        """
        with self.stages("verification", "verifying: sparse == original with these weights"):
            check = Judge(self._original, made.original, self.recipe.seed).filled(made.model, made.file, inlined(made.stored))
            check = proven_with_kernels(made.stored, check, self.recipe.seed) if made.kernels else check
        if self.recipe.require_proof:
            demand(check, self._original.name)
        return check

    def among_faster(self) -> Sparsifier:
        """The same, in which layers alone share the sparsity that a kernel makes faster if most of their weights are zero.

        The others stay dense, and what they would cost is not measured. By curves, the sparsity is that of multiply-accumulates:
        a kernel takes its time to multiply, and a weight of an early layer is multiplied at more positions.

        Raises:
            TargetError: there is no such layer.
        """
        faster = self.paying({layer.name: round(layer.size * (1 - _MANY)) for layer in self.layers})
        found = copy.copy(self)
        found._sharing = [layer for layer in self.layers if layer.name in faster]
        model, batch = self.analysis.model, max(self.analysis.shapes.batch, 1)
        found._costs = {
            layer.name: layer_costs(model, layer.reader.node, batch, {})[0] / layer.size for layer in found._sharing if layer.seen
        }
        return found

    def draft(self, counts: WeightCounts) -> WithKernels:
        """A model as fast as the one with these counts: it has kernels, and its zeros lie by magnitude; nothing is refit."""
        with self.stages("measuring", "timing layers with sparse kernels"):
            layers = [(layer, counts.get(layer.name, layer.size)) for layer in self.every]
            step = Sparsify(self.recipe.pattern, "magnitude", repair=False, seed=self.recipe.seed, values=self.recipe.values)
            return self._use_kernels.run(step.run(self.analysis, layers).model, self.stages.tell)

    def paying(self, counts: WeightCounts) -> dict[str, int]:
        """The counts of the layers that a kernel makes faster with so many zeros, as a draft of them is timed; others stay dense.

        Raises:
            TargetError: there is no such layer.
        """
        faster = {layer.weight for layer in self.draft(counts).layers}
        found = {name: count for name, count in counts.items() if name in faster}
        if not found:
            share = 1 - sum(counts.get(layer.name, 0) for layer in self._sharing) / sum(layer.size for layer in self._sharing)
            raise TargetError(
                f"{self.analysis.model.name}: with {share:.0%} zeros no layer is faster by a sparse kernel, as timed here"
            )
        return found | self._fixed()

    def shares(self, sparsity: float) -> dict[str, int]:
        """How many weights of each layer stay at a sparsity of those that the recipe gives none of their own."""
        recipe = self.recipe
        rest = [layer for layer in self._sharing if layer.name not in self._own]
        counts = self._fixed()
        if not rest:
            return counts
        total = round(sum(layer.size for layer in rest) * (1 - sparsity))
        if recipe.allocation == "global" and self.importance:
            return counts | important(rest, self.importance, total)
        if recipe.allocation != "sensitivity":
            shares: WeightCounts = ALLOCATIONS[recipe.allocation].value(rest, self.analysis.model, total)
            return counts | shares
        counts |= {layer.name: round(layer.size * (1 - sparsity)) for layer in rest if not layer.seen}
        seen = [layer for layer in rest if layer.seen]
        if not seen:
            return counts
        cost = sum(layer.size * self._costs.get(layer.name, 1.0) for layer in seen) * (1 - sparsity)
        return counts | counts_by_curves(seen, self._curves, cost, self._exponent_for(seen, counts, cost), self._costs)

    def _important(self, model: Model) -> dict[str, Array]:
        """The importance of each weight by gradients; by magnitude where a layer has none.

        Raises:
            OptionError: PyTorch is not installed, or there are no labels and the method needs them.
        """
        from onnxprune.torch.importance import weight_importance

        found = weight_importance(model, self.recipe.method, self._data.fit, self.recipe.seed)
        arrays = {layer.name: model.weights[layer.name].array() for layer in self.every if layer.name not in found}
        return found | {name: np.abs(array) for name, array in arrays.items()}

    def _fixed(self) -> dict[str, int]:
        """How many weights stay of layers that have a sparsity of their own."""
        return {layer.name: round(layer.size * (1 - self._own[layer.name])) for layer in self.layers if layer.name in self._own}

    def _permuted(self, analysis: Analysis, pattern: NofM) -> tuple[dict[str, Positions], Analysis]:
        """An order of channels under which the pattern keeps more, by group, and the model in it.

        Groups whose new order is not proven keep the old one.
        """
        model, coupling = analysis.model, analysis.coupling
        found = permute.orders(model, coupling, [layer for layer in self.layers if layer.seen], pattern, self.recipe.seed)

        def holds(names: Sequence[str]) -> bool:
            changed = permute.permuted(model, coupling, {name: found[name] for name in names})
            return law.compare(changed, model, seed=self.recipe.seed, against="original").ok

        wrong = law.isolate(list(found), holds) if found else []
        proven = {name: order for name, order in found.items() if name not in wrong}
        return proven, dataclasses.replace(analysis, model=permute.permuted(model, coupling, proven))

    def _asked(self, layer: Layer) -> float | None:
        return next((share for glob, share in self.recipe.own if layer.called(glob)), None)

    @property
    def _data(self) -> Calibration:
        """The samples, where the recipe is settled to need them."""
        assert self.calibration is not None  # noqa: S101 - a settled recipe asks for nothing that its data lacks
        return self.calibration

    @cached_property
    def _curves(self) -> dict[str, dict[int, float]]:
        """What each layer costs, of those without a sparsity of their own."""
        original, recipe, calibration = self.analysis.float32, self.recipe, self._data
        layers = [layer for layer in self._sharing if layer.name not in self._own and layer.seen]
        with self.stages("sensitivity", "measuring what each layer costs"):
            statistics = collect(original.model, original.coupling, calibration.fit, seed=recipe.seed)
            sparser = Sparser(recipe.parsed, recipe.method, recipe.repair, self.importance)
            runs = original.costs.cost({}).macs * calibration.size * len(layers) * len(KEPT_SHARES)
            held = list(islice(calibration.held, max(1, int(_MEASURED / max(runs, 1)))))
            return measure_curves(original.model, layers, statistics, held, sparser, self.stages.tell, recipe.seed)

    def _exponent_for(self, layers: list[Layer], counts: WeightCounts, total: float) -> float:
        """The exponent whose sparse model is nearest to the original on samples that it was not fitted on.

        It is tried once, at the first sparsity; where the model is too large to try, the first one is taken.
        """
        if self._exponent is None:
            original, calibration, curves = self.analysis.float32, self._data, self._curves

            def build(exponent: float) -> Model:
                shares = {**counts, **counts_by_curves(layers, curves, total, exponent, self._costs)}
                return self._sparse(original, shares, calibration.fit).model

            self._exponent = LAYER_EXPONENTS[0]
            if small_enough(self.analysis, calibration):
                exponents, held = LAYER_EXPONENTS, calibration.held
                with self.stages("allocation", "trying ways to share the sparsity out"):
                    self._exponent = best_exponent(exponents, build, original.model, held, self.stages.tell, "sparsity")
        return self._exponent

    def _sparse(
        self, analysis: Analysis, counts: WeightCounts, feeds: CalibrationFeeds | None, tell: Progress = silent
    ) -> Fitted:
        recipe = self.recipe
        layers = [(layer, counts.get(layer.name, layer.size)) for layer in self.every]
        step = Sparsify(recipe.pattern, recipe.method, recipe.repair, recipe.seed, recipe.values)
        return step.run(analysis, layers, feeds, self.importance, tell)

    def with_counts(self, counts: WeightCounts) -> Sparsified:
        """The sparse model in which so many weights of each layer stay; other layers keep all."""
        with self.stages("sparsify", "making layers sparse"):
            feeds = None if self.calibration is None else self.calibration.every
            result = self._sparse(self.analysis, counts, feeds, self.stages.tell)
        with self.stages("encode", "encoding"):
            file = self._filled(result.model)
            stored, kernels = self._encode(result.model, file)
        chosen = tuple((layer, counts.get(layer.name, layer.size)) for layer in self.layers)
        return Sparsified(self.analysis.model, result.model, file, stored, chosen, result.repairs, kernels)

    def _filled(self, model: Model) -> MaskedSource:
        """The file with the weights of a model: no constant is stored for each of its readers, and no size is spelled out."""
        return FillSource().run(self._original, self.analysis.model, model)

    def _encode(self, model: Model, file: MaskedSource) -> tuple[Model, tuple[KernelLayer, ...]]:
        """What is written of a model with zeros, and its layers with kernels."""
        found = WithKernels(Restore().run(model, Decode().run(self._original)) if file.missing else file.model, ())
        if self.recipe.kernels:
            found = self._use_kernels.run(found.model, self.stages.tell)
        if self.recipe.encoding == "dense":
            return found.model, found.layers
        return Encode(self.recipe.encoding).run(found.model, self.stages.tell).model, found.layers

    def _sized(self, goal: Goal) -> Sparsified:
        """The least sparse model whose size is not above the one asked for, found by false position."""
        bytes_of, file = (gzipped, gzipped) if goal.metric == "gzip" else (files.written_bytes, files.source_bytes)
        wanted = goal.value * file(self._original) if goal.value < 1 else goal.value
        dense = self.analysis.model
        low, high = (0.0, float(bytes_of(self._encode(dense, self._filled(dense))[0]))), (1.0, 0.0)
        best, share = None, min(max(1 - wanted / low[1], 0.0), 0.99)
        for _ in range(_STEPS):
            made = self.with_counts(self.shares(share))
            size = bytes_of(made.stored)
            if size <= wanted:
                best, high = (made, size) if best is None or size > best[1] else best, (share, float(size))
            else:
                low = share, float(size)
            if wanted * (1 - _NEAR) <= size <= wanted or high[0] - low[0] < 1e-3:
                break
            slope = (wanted * (1 - _NEAR / 2) - low[1]) / min(high[1] - low[1], -1e-9)
            share = low[0] + min(max(slope, 0.02), 0.98) * (high[0] - low[0])
        if best is None:
            raise TargetError(
                f"target {goal} cannot be reached: at a sparsity of {low[0]:.2f} the model takes {low[1]:.0f} bytes"
            )
        return best[0]


def gzipped(model: Model) -> int:
    """Bytes of a model after gzip, about: the graph and the weights one after the other."""
    packer = zlib.compressobj(6)
    total = len(packer.compress(model.proto.SerializeToString()))
    for weight in model.weights.values():
        data = np.ascontiguousarray(weight.array()).reshape(-1).view(np.uint8)
        for start in range(0, data.size, _CHUNK):
            total += len(packer.compress(data[start : start + _CHUNK].tobytes()))
    return total + len(packer.flush())
