"""Models made sparse as a recipe says: the passes in their order, and the search for sizes that only show when written."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.data import samples as calibrate
from onnxprune.data.calibration import Calibration
from onnxprune.driver.compiler import Progress, Stages, drifted
from onnxprune.driver.report import SparseLayer, SparseReport
from onnxprune.driver.result import Written
from onnxprune.errors import OptionError, TargetError
from onnxprune.ir import files
from onnxprune.ir.model import Model, Source
from onnxprune.ir.precision import as_float32, float_types
from onnxprune.linear.moments import collect
from onnxprune.options.prune import GRADIENT
from onnxprune.options.sparsify import Goal, SparseRecipe
from onnxprune.passes import Couple, Encode, Facts, Normalize, Pipeline, Sparsify
from onnxprune.passes.base import need
from onnxprune.pruning.cost import CostModel
from onnxprune.sparse import layers as sparse_layers
from onnxprune.sparse import permute
from onnxprune.sparse.allocation import ALLOCATIONS, by_curves, important, threshold
from onnxprune.sparse.curves import LEVELS, measure
from onnxprune.sparse.patterns import NofM
from onnxprune.sparse.solve import Sparser
from onnxprune.verify import law

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.factors import Positions
    from onnxprune.data.samples import Samples
    from onnxprune.ir.weights import Array
    from onnxprune.sparse.layers import Layer

__all__ = ["SparseResult", "Sparsified", "Sparsifier", "gzipped", "sparsify"]

Counts = Mapping[str, int]
EXPONENTS = (1.0, 0.5)
"""Of measured errors, before they are added."""
_MEASURED = 2e13
"""Multiply-accumulates, about, up to which more samples measure what layers cost."""
_TRIED = 5e11
"""Multiply-accumulates of the calibration set up to which several ways to share a sparsity out are tried."""
_STEPS = 12
"""Sparsities that are tried for a size, at most."""
_NEAR = 0.01
"""What a size may be below the one asked for, as a share of it."""
_CHUNK = 1 << 24


@dataclass(frozen=True, slots=True)
class Sparsified:
    """Attributes:
    original: the normalised model.
    model: the sparse one, with dense initializers.
    written: the same with its weights encoded, if that was asked for.
    layers: those that may be sparse, with how many weights of each stay.
    facts: what repair did among them.
    """

    original: Model
    model: Model
    written: Model
    layers: tuple[tuple[Layer, int], ...]
    facts: Facts


class Sparsifier:
    """What does not depend on how much stays is done once."""

    def __init__(
        self,
        original: Model,
        recipe: SparseRecipe,
        samples: Samples | None,
        stage: Stages,
    ) -> None:
        """Find the layers.

        Raises:
            OptionError: no layer may be sparse, or the recipe needs data that is not there.
        """
        self.recipe = recipe.settled(data=samples is not None)
        self._original, self._stage = original, stage
        with stage("analysis", "finding layers"):
            facts = Facts(tell=stage.tell)
            self.model, _ = Pipeline([Normalize(), Couple(allow_inexact=True)]).run(original, facts)  # orders may change there
            coupling = need(facts.coupling, "coupling")
            self.every = sparse_layers.find(self.model, coupling, recipe.protect)
            wide = not float_types(self.model) <= {"float32"}
            if samples is not None:
                facts.calibration = Calibration.of(samples, need(facts.shapes, "shapes"), float32=wide)
            self.facts = facts
        self._own = {layer.name: share for layer in self.every if (share := self._asked(layer)) is not None}
        self.layers = [layer for layer in self.every if recipe.ends or not layer.end or layer.name in self._own]
        if not self.layers:
            raise OptionError(f"{self.model.name}: only first and last layers are left: pass --ends to make them sparse, too")
        self.permuted: dict[str, Positions] = {}
        pattern = recipe.shape
        if isinstance(pattern, NofM) and recipe.permute:
            with stage("permutation", "looking for an order of channels"):
                self._permute(pattern, coupling)
        facts.original = as_float32(self.model) if wide else self.model
        if self.recipe.method in GRADIENT:
            with stage("scores", f"scoring by {self.recipe.method}"):
                facts.importance = self._important(facts.original)
        self._curves: dict[str, dict[int, float]] | None = None
        self._exponent: float | None = None

    def run(self) -> Sparsified:
        """The sparse model that meets the recipe's target.

        Raises:
            TargetError: the size cannot be reached; says what is reachable.
        """
        goal = self.recipe.goal
        if goal is None:
            pattern = self.recipe.shape
            counts = {layer.name: pattern.most(layer.array(self.model).shape) for layer in self.layers}
            return self._made(counts)
        if goal.metric == "threshold":
            return self._made(threshold(self.layers, self.model, goal.value) | self._fixed())
        if goal.metric == "sparsity":
            return self._made(self.shares(goal.value))
        return self._sized(goal)

    def shares(self, sparsity: float) -> dict[str, int]:
        """How many weights of each layer stay at a sparsity of those that the recipe gives none of their own."""
        recipe = self.recipe
        rest = [layer for layer in self.layers if layer.name not in self._own]
        counts = self._fixed()
        if not rest:
            return counts
        total = round(sum(layer.size for layer in rest) * (1 - sparsity))
        if recipe.allocation == "global" and self.facts.importance is not None:
            return counts | important(rest, self.facts.importance, total)
        if recipe.allocation != "sensitivity":
            return counts | ALLOCATIONS[recipe.allocation](rest, self.model, total)
        if self._curves is None:
            self._curves = self._measured(rest)
        if self._exponent is None:
            self._exponent = self._tried(rest, counts, total)
        return counts | by_curves(rest, self._curves, total, self._exponent)

    def _important(self, model: Model) -> dict[str, Array]:
        """The importance of each weight by gradients; by magnitude where a layer has none.

        Raises:
            OptionError: PyTorch is not installed, or there are no labels and the method needs them.
        """
        from onnxprune.torch.importance import of_weights

        found = of_weights(model, self.recipe.method, need(self.facts.calibration, "calibration").fit, self.recipe.seed)
        arrays = {layer.name: model.weights[layer.name].array() for layer in self.every if layer.name not in found}
        return found | {name: np.abs(array) for name, array in arrays.items()}

    def _fixed(self) -> dict[str, int]:
        """How many weights stay of layers that have a sparsity of their own."""
        return {layer.name: round(layer.size * (1 - self._own[layer.name])) for layer in self.layers if layer.name in self._own}

    def _permute(self, pattern: NofM, coupling: Coupling) -> None:
        """Take an order of channels under which the pattern keeps more; groups whose new order is not proven keep the old one."""
        found = permute.orders(self.model, coupling, self.layers, pattern, self.recipe.seed)

        def holds(names: Sequence[str]) -> bool:
            changed = permute.permuted(self.model, coupling, {name: found[name] for name in names})
            return law.compare(changed, self.model, seed=self.recipe.seed, against="original").ok

        if found:
            wrong = law.isolate(list(found), holds)
            self.permuted = {name: order for name, order in found.items() if name not in wrong}
            self.model = permute.permuted(self.model, coupling, self.permuted)

    def _asked(self, layer: Layer) -> float | None:
        return next((share for glob, share in self.recipe.own if layer.called(glob)), None)

    def _measured(self, layers: list[Layer]) -> dict[str, dict[int, float]]:
        """What each layer costs."""
        facts, recipe = self.facts, self.recipe
        original, calibration = need(facts.original, "original"), need(facts.calibration, "calibration")
        with self._stage("sensitivity", "measuring what each layer costs"):
            statistics = collect(original, need(facts.coupling, "coupling"), calibration.fit, seed=recipe.seed)
            sparser = Sparser(recipe.shape, recipe.method, recipe.repair, facts.importance or {})
            runs = self._macs * calibration.size * len(layers) * len(LEVELS)
            held = list(islice(calibration.held, max(1, int(_MEASURED / max(runs, 1)))))
            return measure(original, layers, statistics, held, sparser, self._stage.tell, recipe.seed)

    @property
    def _macs(self) -> int:
        """Of one sample."""
        coupling, shapes = need(self.facts.coupling, "coupling"), need(self.facts.shapes, "shapes")
        return CostModel(self.model, coupling, shapes.batch).cost({}).macs

    def _tried(self, layers: list[Layer], counts: Counts, total: int) -> float:
        """The exponent whose sparse model is nearest to the original on samples that it was not fitted on; the first one where
        the model is too large to try.
        """
        calibration = need(self.facts.calibration, "calibration")
        if self._macs * calibration.size * len(calibration.every) > _TRIED:
            return EXPONENTS[0]
        errors = {}
        for number, exponent in enumerate(EXPONENTS, 1):
            shares = {**counts, **by_curves(layers, self._curves or {}, total, exponent)}
            with self._stage("allocation", f"trying ways to share the sparsity out ({number} of {len(EXPONENTS)})"):
                facts = dataclasses.replace(self.facts, calibration=dataclasses.replace(calibration, every=calibration.fit))
                facts.tell = lambda _: None
                original = need(facts.original, "original")
                errors[exponent] = drifted(self._sparse(original, shares, facts), original, calibration.held)
        return min(errors, key=lambda exponent: errors[exponent])

    def _sparse(self, model: Model, counts: Counts, facts: Facts) -> Model:
        recipe = self.recipe
        facts.sparse = [(layer, counts.get(layer.name, layer.size)) for layer in self.every]
        return Sparsify(recipe.pattern, recipe.method, recipe.repair, recipe.seed).run(model, facts)

    def _made(self, counts: Counts) -> Sparsified:
        with self._stage("sparsify", "making layers sparse"):
            facts = dataclasses.replace(self.facts)
            result = self._sparse(self.model, counts, facts)
        with self._stage("encode", "encoding"):
            written = self._encode(result)
        chosen = tuple((layer, counts[layer.name]) for layer in self.layers)
        return Sparsified(self.model, result, written, chosen, facts)

    def _encode(self, model: Model) -> Model:
        """What is written of a model with zeros."""
        if self.recipe.encoding == "dense":
            return model
        return Encode(self.recipe.encoding)(model, Facts(tell=self._stage.tell))

    def _sized(self, goal: Goal) -> Sparsified:
        """The least sparse model whose size is not above the one asked for, found by false position."""
        bytes_of = gzipped if goal.metric == "gzip" else _bytes
        wanted = goal.value * bytes_of(self._original) if goal.value < 1 else goal.value
        low, high = (0.0, float(bytes_of(self._encode(self.model)))), (1.0, 0.0)
        best, share = None, min(max(1 - wanted / low[1], 0.0), 0.99)
        for _ in range(_STEPS):
            made = self._made(self.shares(share))
            size = bytes_of(made.written)
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


def _bytes(model: Model) -> int:
    """Of the file."""
    return model.nbytes if model.nbytes > files.LIMIT else int(model.to_proto().ByteSize())


def gzipped(model: Model) -> int:
    """Bytes of a model after gzip, about: the graph and the weights one after the other."""
    packer = zlib.compressobj(6)
    total = len(packer.compress(model.proto.SerializeToString()))
    for weight in model.weights.values():
        data = np.ascontiguousarray(weight.array()).reshape(-1).view(np.uint8)
        for start in range(0, data.size, _CHUNK):
            total += len(packer.compress(data[start : start + _CHUNK].tobytes()))
    return total + len(packer.flush())


@dataclass(frozen=True)
class SparseResult(Written):
    """A sparse model.

    Attributes:
        report: what happened.
    """

    report: SparseReport


def sparsify(
    source: Source,
    recipe: SparseRecipe | None = None,
    *,
    samples: str | Path | Mapping[str, Any] | Samples | None = None,
    agreement: bool = True,
    progress: Progress | None = None,
) -> SparseResult:
    """Write zeros into a model's weights, as many and where the recipe says, and let the others make up for them.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``; it is not changed.
        recipe: target, pattern, method, allocation, ...
        samples: calibration data, in any form of `open_samples`; the recipe's if there is none here. Without any, weights are
            chosen by magnitude and nothing is refit.
        agreement: whether to compare outputs with the original's.
        progress: told what begins.

    Raises:
        ModelError: the source is not a model that can be read.
        OptionError: no layer may be sparse, or the recipe needs data that is not there.
        TargetError: the size that is asked for cannot be reached; says what is reachable.
    """
    recipe, stage, original = recipe or SparseRecipe(), Stages(progress), Model.of(source)
    given = calibrate.given(recipe.calib if samples is None else samples, original.inputs, recipe.preprocess)
    worker = Sparsifier(original, recipe, given, stage)
    made = worker.run()
    drift = None
    if agreement:
        with stage("agreement", "comparing outputs with the original's"):
            drift = law.drift(made.written, original, given, seed=recipe.seed)
    report = SparseReport(
        model=original.name,
        requested=str(recipe.goal or recipe.shape),
        pattern=str(recipe.shape),
        method=worker.recipe.method,
        allocation="" if worker.recipe.allocation == "auto" else worker.recipe.allocation,
        layers=tuple(_described(layer, made) for layer, _ in made.layers),
        dense=tuple(layer.name for layer in worker.every if layer not in worker.layers),
        parameters=sum(weight.size for weight in made.original.weights.values() if weight.is_float),
        zeros=sum(layer.zeros(made.model) for layer, _ in made.layers),
        size=(_bytes(original), _bytes(made.written)),
        gzip=(gzipped(original), gzipped(made.written)),
        permuted=tuple(worker.permuted),
        repairs=tuple(made.facts.repairs or ()),
        drift=drift,
        seconds=dict(stage.seconds),
        notes=tuple(_notes(worker, made)),
    )
    return SparseResult(report, compiled=made.written)


def _notes(worker: Sparsifier, made: Sparsified) -> Iterator[str]:
    if worker.facts.calibration is None:
        yield "without samples weights go by size and none makes up for them: with --calib far less is lost"
    if made.written is made.model and worker.recipe.goal:
        yield "zeros take as much room as other weights: `onnxprune encode`, or --encoding auto, writes them in fewer bytes"


def _described(layer: Layer, made: Sparsified) -> SparseLayer:
    before, after = (model.weights[layer.name].array() for model in (made.original, made.model))
    squares = np.square(before.astype(np.float64))
    energy = float(squares[after != 0].sum() / max(squares.sum(), 1e-300))
    kept = int(np.count_nonzero(after))
    return SparseLayer(layer.reader.name, layer.name, tuple(before.shape), layer.size, kept, energy)
