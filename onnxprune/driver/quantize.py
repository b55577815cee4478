"""Models to int8: constants quantised with their zeros, activations in ranges that samples show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from onnxprune.data.samples import optional_samples, sized
from onnxprune.driver import ort_quantizer
from onnxprune.driver.costs import before_and_after, cost_of
from onnxprune.driver.fault import unfit
from onnxprune.driver.int8_layers import left_alone, name_nodes, scaled_whole
from onnxprune.driver.int8_result import (
    WeightZeros,
    computing,
    idle_in_int8,
    kept_in_bodies,
    kept_in_float,
    most_frequent_reason,
    tidy,
    weight_zeros,
    with_quantizers,
)
from onnxprune.driver.int8_rounding import Rounded, Rounder
from onnxprune.driver.judgement import Jury
from onnxprune.driver.progress import Stages
from onnxprune.driver.proof import demand, stored
from onnxprune.driver.report import QuantReport
from onnxprune.driver.result import ModelResult
from onnxprune.errors import ModelError, OptionError, TargetError, VerificationError
from onnxprune.ir import files
from onnxprune.ir.history import begin, recipe_text
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.node import QDQ, every_node
from onnxprune.ir.precision import float_types
from onnxprune.ir.unchanged import watched
from onnxprune.options.globs import check_globs
from onnxprune.options.quantize import QuantRecipe
from onnxprune.passes import Compact, Decode, FoldMasks, Restore
from onnxprune.passes.constants import gather_constants
from onnxprune.runtime import session
from onnxprune.shapes.run_memory import batch_that_fits
from onnxprune.verify.metrics import Evaluation

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.data.samples import Samples, SamplesLike
    from onnxprune.passes.base import Progress
    from onnxprune.verify.verdicts import Check

__all__ = ["EXCLUDED", "QuantResult", "Quantized", "Quantizer", "quantize"]

EXCLUDED = "excluded"
"""Why a node stays in floating point that was named."""

_BLOCK = 4
"""Channels below which, and between multiples of which, int8 convolutions leave their fast kernels."""
_OVERFLOW = 0.05
"""Relative difference to exact arithmetic from which sums have overflown; rounding alone leaves a percent or two."""
_PREPARED = "prepared for int8"
_BATCH = 16
"""Samples of a batch of these, at most."""
_LOOKED_AT = 64
"""Samples that arithmetic is compared on."""


@dataclass(frozen=True, repr=False)
class QuantResult(ModelResult):
    """A quantised model.

    Attributes:
        report: what happened.
    """

    report: QuantReport


@watched()
def quantize(
    source: ModelSource,
    recipe: QuantRecipe | None = None,
    *,
    samples: SamplesLike | None = None,
    agreement: bool = True,
    progress: Progress | None = None,
) -> QuantResult:
    """Make a model compute in int8 where ONNX Runtime can: QDQ format, symmetric weights, in which every zero stays zero.

    Batch normalisation is folded into the convolutions before it; masks in the graph are folded, and encoded weights decoded.
    That is proven equal to the file. What int8 makes of it is an approximation, which ``drift`` measures.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``; it is not changed.
        recipe: how ranges are found, what stays in floating point, ...
        samples: calibration data, in any form of `open_samples`; the recipe's if there is none here.
        agreement: whether to compare outputs with the original's.
        progress: told what begins.

    Raises:
        ModelError: the source is not a model that can be read, is in half precision or int8 already, or its operator set is too
            old.
        OptionError: there are no samples, they do not fit, or a glob names nothing.
        TargetError: nothing in it can be quantised; says why.
        VerificationError: prepared, the model computes something else than the file; an output is not tested that must be; a zero
            would not stay zero; or the result does not run.
    """
    recipe, stages = recipe or QuantRecipe(), Stages(progress)
    original = begin(Model.of(source, recipe.shape), source, recipe_text("quantize", recipe))
    opened = _opened(recipe.calib if samples is None else samples, original, recipe)
    jury = Jury.of(recipe.gates, sized(original, opened), opened, recipe.preprocess).sized()
    original = jury.original
    evaluation = _evaluation(jury, original, stages) if recipe.scored else None
    with Quantizer(original, recipe, jury.learnt or opened, stages) as quantizer:
        made = quantizer.written(recipe.exclude)
    if recipe.require_proof:
        demand(made.check, original.name)
    with stages("agreement", "comparing outputs with the original's") if agreement or jury.gates.asked else nullcontext():
        arithmetic = _arithmetic(made.model, opened) if agreement else 0.0
        judged = jury.judge(made.model, compare=agreement, evaluation=evaluation)
    size = files.source_bytes(original), files.written_bytes(made.model)
    report = QuantReport(
        model=original.name,
        recipe=recipe.to_dict() | {"reduce_range": "yes" if recipe.reduced else "no"},
        **made.told(),
        size=size,
        **before_and_after(cost_of(original), made.model),
        verification=made.check,
        drift=judged.drift,
        arithmetic=arithmetic,
        score=judged.score,
        judgement=judged,
        seconds=dict(stages.seconds),
        notes=(*filter(None, [opened.notice, judged.note]), *_notes(made, recipe, arithmetic, size[1] - size[0])),
    )
    return QuantResult(report, compiled=made.model)


def _opened(samples: SamplesLike, original: Model, recipe: QuantRecipe) -> Samples:
    opened = optional_samples(samples, original.inputs, recipe.preprocess)
    if opened is None:
        raise OptionError("int8 needs the ranges of activations, which samples show: add --calib DATA")
    return opened


def _evaluation(jury: Jury, original: Model, stages: Stages) -> Evaluation:
    """The original's score, which samples must give before anything is computed."""
    assert jury.judges is not None  # noqa: S101 - there are samples
    with stages("evaluate", "taking the original's score"):
        return Evaluation(original, jury.judges, jury.gates.metric)


@dataclass(frozen=True, slots=True)
class Quantized:
    """Attributes:
    model: the int8 model.
    nodes: how many nodes compute in int8, by operator.
    kept: nodes that compute in floating point: name, operator, and why.
    weights: those in int8.
    rounded: those of them whose integers were chosen on samples, for what their layers output.
    whole: those that have one scale, although each channel was to have its own.
    warnings: of the quantizer.
    notes: what else the user should know.
    check: the proof of what was prepared, before anything was rounded to int8.
    """

    model: Model
    nodes: Mapping[str, int]
    kept: tuple[Mapping[str, str], ...]
    weights: tuple[WeightZeros, ...]
    rounded: int
    whole: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    check: Check

    def told(self) -> dict[str, Any]:
        """What has become of nodes and weights, as the report has it."""
        zeros = (sum(weight.before for weight in self.weights), sum(weight.after for weight in self.weights))
        elements = sum(weight.elements for weight in self.weights)
        nodes = {"nodes": dict(self.nodes), "kept": self.kept}
        return {**nodes, "weights": len(self.weights), "rounded": self.rounded, "elements": elements, "zeros": zeros}


class Quantizer:
    """A model on its way to int8, in any number of forms: it is prepared, and ranges are measured, once; a context.

    Attributes:
        prepared: the model in floating point that is quantised; there as long as the context.
        check: the proof of it.
    """

    def __init__(self, original: Model, recipe: QuantRecipe, samples: Samples, stages: Stages) -> None:
        """Check the model; nothing runs yet.

        Raises:
            ModelError: it is in half precision or int8 already.
        """
        self._unmeasured: dict[str, str] | None = None
        self._original, self._recipe, self._samples, self._stages = original, recipe, samples, stages
        self._model = Decode().run(FoldMasks().run(original))
        _check(self._model)
        name_nodes(self._model)
        self._workshop = ort_quantizer.Workshop(self._model)

    def __enter__(self) -> Self:
        """Prepare the model.

        Raises:
            ModelError: its operator set is too old and cannot be converted.
            VerificationError: prepared, it computes something else.
        """
        self._workshop.__enter__()
        try:
            with self._stages("prepare", "folding constants"):
                opset = ort_quantizer.PER_CHANNEL if self._recipe.per_channel else ort_quantizer.PER_TENSOR
                prepared = self._workshop.prepare(opset=opset)
            with self._stages("verification", "verifying: prepared == original"):
                self.prepared, self.check = _proven(self._workshop, prepared, self._original)
            self._rounder = Rounder(self.prepared, self._samples, reduced=self._recipe.reduced)
        except BaseException:
            self._workshop.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._workshop.__exit__()

    def written(self, exclude: Sequence[str], *, refit: bool = True) -> Quantized:
        """`form`, as it is written: in fewer bytes, with the names of the file."""
        made = self.form(exclude, refit=refit)
        return replace(made, model=Compact().run(made.model, self._original))

    def form(self, exclude: Sequence[str], *, refit: bool = True) -> Quantized:
        """The model in int8, by ONNX Runtime's quantizer, and what has become of its nodes and weights.

        Args:
            exclude: globs over what stays in floating point.
            refit: whether weights are rounded on samples where the recipe says so; else to the nearest.

        Raises:
            ModelError: the quantizer does not take the model.
            OptionError: a glob names nothing.
            TargetError: nothing can be quantised.
            VerificationError: a zero would not stay zero.
        """
        recipe, original, prepared = self._recipe, self._original, self.prepared
        excluded = left_alone(prepared, original.overridable, self._workshop.generated)
        excluded |= dict.fromkeys(_excluded(exclude, self._model, prepared), EXCLUDED)
        whole = scaled_whole(prepared)
        settings = ort_quantizer.Settings(
            recipe.method, recipe.percentile, recipe.per_channel, recipe.activations, recipe.reduced, whole=whole
        )
        with self._stages("quantize", "measuring ranges and quantising"):
            if self._unmeasured is None:
                try:
                    self._unmeasured = self._workshop.measure(settings, self._samples)
                except ModelError as error:
                    if found := unfit(self._model, self._samples):
                        raise found from error
                    raise
            result, excluded = self._quantized(settings, self._unmeasured | excluded)
        rounded = Rounded(result)
        if refit and recipe.rounding == "refit":
            with self._stages("rounding", "rounding weights towards what the original outputs"):
                rounded = self._rounder.run(result, self._stages.tell)
            result = rounded.model
        weights = tuple(weight_zeros(prepared, result).values())
        kept = tuple(kept_in_float(result, excluded))
        nodes = Counter(node.op_type for node in computing(result)) - Counter(node["op"] for node in kept)
        kept = (*kept, *kept_in_bodies(result))
        tidy(result, original)
        gather_constants(result)
        result = Restore().run(result, with_quantizers(self._workshop.source, result))
        if not weights:
            why = most_frequent_reason(result, kept)
            remedy = ": name less with --exclude" if why == EXCLUDED else ""
            raise TargetError(f"{self._model.name}: nothing in it can be quantised: {why}{remedy}")
        single = tuple(whole) if recipe.per_channel else ()
        said = tuple(self._workshop.said)
        return Quantized(result, nodes, kept, weights, len(rounded.layers), single, said, rounded.notes, self.check)

    def _quantized(self, settings: ort_quantizer.Settings, excluded: dict[str, str]) -> tuple[Model, dict[str, str]]:
        """The model in int8, but for the nodes excluded, those that fail, and those that no layer in int8 is near; with these."""
        while True:
            result, failing = self._workshop.quantize_most(replace(settings, exclude=sorted(excluded)), self._samples)
            excluded |= failing
            idle = idle_in_int8(result, excluded)
            if not idle:
                return result, excluded
            excluded |= idle


def _proven(workshop: ort_quantizer.Workshop, prepared: Model, original: Model) -> tuple[Model, Check]:
    """What is quantised, with the proof that it computes what the file does: unfolded, if folding changes more than rounding.

    Raises:
        VerificationError: it computes something else even so.
    """
    try:
        return prepared, stored(prepared, original, _PREPARED)
    except VerificationError as error:
        plain = workshop.plain()
        try:
            check = stored(plain, original, _PREPARED)
        except VerificationError as wrong:
            raise VerificationError(f"{wrong}; {workshop.remedy}" if workshop.remedy else str(wrong)) from wrong
        return plain, replace(check, notes=(*check.notes, f"nothing was folded before: {error}"))


def _check(model: Model) -> None:
    """Raises where the quantizer would write nonsense, or say something less clear."""
    linear = next((node for node in every_node(model.graph) if node.op_type in QDQ), None)
    if linear is not None:
        name = linear.name or linear.output[0]
        raise ModelError(f"{model.name}: computes in int8 already ({linear.op_type} {name!r}): quantise the model it came from")
    types = float_types(model)
    if types and "float32" not in types:
        raise ModelError(f"{model.name}: is in {min(types)}, which int8 kernels do not read: quantise the float32 model")


def _excluded(globs: Sequence[str], model: Model, prepared: Model) -> set[str]:
    """Names of nodes of the prepared graph that stay in floating point, by globs over the graph as it came.

    Folding may rename a node; it is known by what it reads and outputs, too.
    """
    known = sorted({name for node in model.graph.node for name in _called(node, model)})
    check_globs(globs, known, "--exclude", f"node, weight or operator of {model.name}")
    nodes: list[NodeProto] = []
    for glob in globs:
        nodes += [node for node in model.graph.node if any(fnmatchcase(name, glob) for name in _called(node, model))]
    names = {node.name for node in nodes}
    made = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in node.input if name in model.weights}
    same = (n for n in prepared.graph.node if n.name in names or made.intersection(n.output) or read.intersection(n.input))
    return {node.name for node in same}


def _called(node: NodeProto, model: Model) -> Iterator[str]:
    yield from (node.name, node.op_type)
    yield from (name for name in node.input if name in model.weights)


def _arithmetic(model: Model, samples: Samples) -> float:
    """How far int8 kernels are from exact arithmetic, here: the relative difference of outputs.

    Raises:
        VerificationError: the model does not run.
    """
    try:
        kernels, exact = (session.Session(model, fuse=fuse, threads=0) for fuse in (True, False))
        taken, squares, gaps = 0, 0.0, 0.0
        for batch in samples.batches(batch_that_fits(model, _BATCH)):
            for a, b in zip(kernels.run(batch.feeds), exact.run(batch.feeds), strict=True):
                if isinstance(b, np.ndarray) and np.issubdtype(b.dtype, np.floating):
                    squares += float(np.square(b, dtype=np.float64).sum())
                    gaps += float(np.square(a.astype(np.float64) - b).sum())
            taken += batch.size
            if taken >= _LOOKED_AT:
                break
    except Exception as error:  # onnxruntime derives its exceptions from Exception alone
        raise VerificationError(f"{model.name}: does not run in int8: {session.first_line(error)}") from error
    return float(np.sqrt(gaps / squares)) if squares else 0.0


def _notes(made: Quantized, recipe: QuantRecipe, arithmetic: float, grown: int) -> Iterator[str]:
    model = made.model
    if grown > 0:
        yield f"the file is {grown} bytes larger: scales and conversions take more than its weights save, which are small or few"
    if arithmetic > _OVERFLOW:
        yield (
            f"int8 kernels of this CPU are {arithmetic:.1%} off exact arithmetic: sums of 16 bits overflow"
            + ("" if recipe.reduced else "; --reduce-range yes prevents that, at one bit of each weight")
        )
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convs = [sources.get(node.input[1], "") for node in model.graph.node if node.op_type == "Conv"]
    narrow = sum(name in model.weights and model.weights[name].shape[0] % _BLOCK != 0 for name in convs)
    if narrow:
        yield f"convolutions whose width is no multiple of {_BLOCK}, at which int8 is slow: {narrow}; prune with --align 16"
    if made.whole:
        yield f"weights with one scale, because ONNX Runtime takes none for each of their channels: {', '.join(made.whole)}"
    yield from made.notes
    yield "int8 is not faster on every CPU and for every model, and can be slower: measure it with `onnxprune benchmark`"
    yield from (f"ONNX Runtime: {text}" for text in made.warnings)
