"""Make a model sparse as a recipe says, and report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.data.samples import optional_samples, sized
from onnxprune.driver.costs import before_and_after
from onnxprune.driver.judgement import Jury
from onnxprune.driver.named import check_protected
from onnxprune.driver.progress import Stages
from onnxprune.driver.report import SparseLayer, SparseReport
from onnxprune.driver.result import ModelResult
from onnxprune.driver.sparse_latency import at_latency
from onnxprune.driver.sparsifier import Sparsified, Sparsifier, gzipped
from onnxprune.ir import files
from onnxprune.ir.history import begin, recipe_text
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.unchanged import watched
from onnxprune.kernels.loading import library
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.passes.base import Progress
from onnxprune.passes.footprint import footprint_of_file

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples, SamplesLike
    from onnxprune.sparse.layers import Layer
    from onnxprune.verify.verdicts import Check

__all__ = ["SparseResult", "sparsify"]


@dataclass(frozen=True, repr=False)
class SparseResult(ModelResult):
    """A sparse model.

    Attributes:
        report: what happened.
    """

    report: SparseReport


@watched()
def sparsify(
    source: ModelSource,
    recipe: SparseRecipe | str | None = None,
    *,
    samples: SamplesLike | None = None,
    agreement: bool = True,
    progress: Progress | None = None,
) -> SparseResult:
    """Write zeros into a model's weights, as many and where the recipe says, and let the others make up for them.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``; it is not changed.
        recipe: target, pattern, method, allocation, ...; a text is the target.
        samples: calibration data, as `open_samples` takes it; the recipe's if there is none. Without, weights go by magnitude.
        agreement: whether to compare outputs with the original's.
        progress: told what begins.

    Raises:
        ModelError: the source is not a model that can be read.
        OptionError: no layer may be sparse, or the recipe needs data that is not there.
        TargetError: the size that is asked for cannot be reached; says what is reachable.
        VerificationError: the result is not the file with the same weights; or an output is not tested that must be.
    """
    recipe, stages = SparseRecipe.of(recipe), Stages(progress)
    if recipe.kernels:
        library()  # says at once where it cannot be built
    original = begin(Model.of(source, recipe.shape), source, recipe_text("sparsify", recipe))
    check_protected(recipe.protect, original)
    opened = optional_samples(recipe.calib if samples is None else samples, original.inputs, recipe.preprocess)
    jury = Jury.of(recipe.gates, sized(original, opened), opened, recipe.preprocess).sized()
    original = jury.original
    worker = Sparsifier(original, recipe, jury.learnt, stages)
    made, check, timing = _made(worker, original)
    with stages("agreement", "comparing outputs with the original's") if agreement or jury.gates.asked else nullcontext():
        judged = jury.judge(made.stored, compare=agreement, seed=recipe.seed)
    report = SparseReport(
        model=original.name,
        requested=str(recipe.goal or recipe.parsed),
        pattern=str(recipe.parsed),
        method=worker.recipe.method,
        allocation="" if worker.recipe.allocation == "auto" else worker.recipe.allocation,
        layers=tuple(_described(layer, made) for layer, _ in made.layers),
        dense=tuple(layer.name for layer in worker.every if layer not in worker.layers),
        left=worker.left,
        parameters=footprint_of_file(original).params,
        zeros=sum(layer.zeros(made.model) for layer, _ in made.layers),
        **_costs(worker, original, made),
        permuted=tuple(worker.permuted),
        verification=check,
        repairs=made.repairs,
        drift=judged.drift,
        score=judged.score,
        judgement=judged,
        seconds=dict(stages.seconds),
        kernels=made.kernels,
        **timing,
        notes=(*_notes(worker, made, opened), *filter(None, [judged.note])),
    )
    return SparseResult(report, compiled=made.stored)


def _costs(worker: Sparsifier, original: Model, made: Sparsified) -> dict[str, Any]:
    """What the original and the result take, as the report has it."""
    size = (files.source_bytes(original), files.written_bytes(made.stored))
    gzip = (gzipped(original), gzipped(made.stored))
    return {"size": size, "gzip": gzip, **before_and_after(worker.analysis.costs.original(), made.stored)}


def _made(worker: Sparsifier, original: Model) -> tuple[Sparsified, Check, dict[str, Any]]:
    """The sparse model, with its proof, and with what it takes where that was asked for."""
    goal = worker.recipe.goal
    if goal is None or goal.metric != "latency":
        made = worker.run()
        return made, worker.proof(made), {}
    made, taken = at_latency(worker, original, goal)
    return made, worker.proof(made), {"latency": taken.median, "spread": (taken.q1, taken.q3)}


def _notes(worker: Sparsifier, made: Sparsified, samples: Samples | None) -> Iterator[str]:
    if samples and samples.notice:
        yield samples.notice
    if worker.calibration is None:
        yield "without samples weights go by size and none makes up for them: with --calib far less is lost"
    by_size = [layer.name for layer in worker.layers if not layer.seen]
    if by_size and worker.calibration is not None:
        few = ", ".join(by_size[:3]) + (f" and {len(by_size) - 3} more" if len(by_size) > 3 else "")
        yield f"in bodies, or shared by layers: samples do not show what reads {few}, whose weights went by size"
    if worker.recipe.kernels and not made.kernels:
        yield "no layer has a sparse kernel: none would be faster, by its zeros and by measurement"
    if worker.recipe.encoding == "dense" and worker.recipe.goal:
        yield "zeros take as much room as other weights: `onnxprune encode`, or --encoding auto, writes them in fewer bytes"


def _described(layer: Layer, made: Sparsified) -> SparseLayer:
    before, after = (model.weights[layer.name].array() for model in (made.original, made.model))
    squares = np.square(before.astype(np.float64))
    energy = float(squares[after != 0].sum() / max(squares.sum(), 1e-300))
    kept = int(np.count_nonzero(after))
    return SparseLayer(layer.reader.name, layer.name, tuple(before.shape), layer.size, kept, energy)
