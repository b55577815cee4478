"""Models to int8: constants quantised with their zeros, activations in ranges that samples show."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from onnxprune.data.samples import open_samples, optional_samples
from onnxprune.driver import ort_quantizer
from onnxprune.driver.progress import Stages
from onnxprune.driver.report import QuantReport
from onnxprune.driver.result import ModelResult
from onnxprune.errors import ModelError, OptionError, TargetError, VerificationError
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.node import QDQ, domain_of, every_node
from onnxprune.ir.precision import float_types
from onnxprune.ir.weights import FLOATS
from onnxprune.options.quantize import QuantRecipe
from onnxprune.passes import Decode, FoldMasks, Restore
from onnxprune.runtime import session
from onnxprune.verify.drift import measure_drift
from onnxprune.verify.metrics import Evaluation

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.data.samples import Samples
    from onnxprune.passes.base import Progress

__all__ = ["EXCLUDED", "QuantResult", "Quantized", "Quantizer", "quantize"]

EXCLUDED = "excluded"
"""Why a node stays in floating point that was named."""

_SIZES = frozenset({"Shape", "Size"})
"""Read floats, and compute nothing of them."""
_BLOCK = 4
"""Channels below which, and between multiples of which, int8 convolutions leave their fast kernels."""
_OVERFLOW = 0.05
"""Relative difference to exact arithmetic from which sums have overflown; rounding alone leaves a percent or two."""
_LOOKED_AT = 64
"""Samples that arithmetic is compared on."""


@dataclass(frozen=True)
class QuantResult(ModelResult):
    """A quantised model.

    Attributes:
        report: what happened.
    """

    report: QuantReport


def quantize(
    source: ModelSource,
    recipe: QuantRecipe | None = None,
    *,
    samples: str | Path | Mapping[str, Any] | Samples | None = None,
    agreement: bool = True,
    progress: Progress | None = None,
) -> QuantResult:
    """Make a model compute in int8 where ONNX Runtime can: QDQ format, symmetric weights, in which every zero stays zero.

    Batch normalisation is folded into the convolutions before it; masks in the graph are folded, and encoded weights decoded.

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
        VerificationError: a zero would not stay zero, or the result does not run.
    """
    recipe, stages, original = recipe or QuantRecipe(), Stages(progress), Model.of(source)
    opened = optional_samples(recipe.calib if samples is None else samples, original.inputs, recipe.preprocess)
    if opened is None:
        raise OptionError("int8 needs the ranges of activations, which samples show: add --calib DATA")
    evaluation = _evaluation(original, recipe, stages)
    with Quantizer(original, recipe, opened, stages) as quantizer:
        made = quantizer.form(recipe.exclude)
    drift, arithmetic = None, 0.0
    if agreement:
        with stages("agreement", "comparing outputs with the original's"):
            arithmetic = _arithmetic(made.model, opened)
            drift = measure_drift(made.model, original, opened)
    score = None
    if evaluation:
        with stages("evaluate", "taking the score"):
            score = evaluation.of(made.model)
    report = QuantReport(
        model=original.name,
        recipe=recipe.to_dict() | {"reduce_range": "yes" if recipe.reduced else "no"},
        nodes=dict(made.nodes),
        kept=made.kept,
        weights=len(made.weights),
        elements=sum(weight.elements for weight in made.weights),
        zeros=(sum(weight.before for weight in made.weights), sum(weight.after for weight in made.weights)),
        size=(original.nbytes, made.model.nbytes),
        drift=drift,
        arithmetic=arithmetic,
        score=score,
        seconds=dict(stages.seconds),
        notes=(*([opened.notice] if opened.notice else []), *_notes(made, recipe, arithmetic)),
    )
    return QuantResult(report, compiled=made.model)


def _evaluation(original: Model, recipe: QuantRecipe, stages: Stages) -> Evaluation | None:
    """What the original scores on evaluation samples; ``None`` if there are none."""
    if not recipe.eval:
        return None
    judged = open_samples(recipe.eval, original.inputs, option="--eval", preprocess=recipe.preprocess or None)
    with stages("evaluate", "taking the original's score"):
        return Evaluation(original, judged, recipe.metric)


@dataclass(frozen=True, slots=True)
class _Zeros:
    """A quantised weight: how many elements it has, and how many of them are zero before and after."""

    elements: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Quantized:
    """Attributes:
    model: the int8 model.
    nodes: how many nodes compute in int8, by operator.
    kept: nodes that compute in floating point: name, operator, and why.
    weights: those in int8.
    warnings: of the quantizer.
    """

    model: Model
    nodes: Mapping[str, int]
    kept: tuple[Mapping[str, str], ...]
    weights: tuple[_Zeros, ...]
    warnings: tuple[str, ...]


class Quantizer:
    """A model on its way to int8, in any number of forms: it is prepared, and ranges are measured, once; a context.

    Attributes:
        prepared: the model in floating point that is quantised; there as long as the context.
    """

    def __init__(self, original: Model, recipe: QuantRecipe, samples: Samples, stages: Stages) -> None:
        """Check the model; nothing runs yet.

        Raises:
            ModelError: it is in half precision or int8 already.
        """
        self._original, self._recipe, self._samples, self._stages = original, recipe, samples, stages
        self._model = Decode().run(FoldMasks().run(original))
        _check(self._model)
        _name(self._model)
        self._workshop = ort_quantizer.Workshop(self._model)

    def __enter__(self) -> Self:
        self._workshop.__enter__()
        try:
            with self._stages("prepare", "folding constants"):
                opset = ort_quantizer.PER_CHANNEL if self._recipe.per_channel else ort_quantizer.PER_TENSOR
                self.prepared = self._workshop.prepare(opset=opset)
        except BaseException:
            self._workshop.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._workshop.__exit__()

    def form(self, exclude: Sequence[str]) -> Quantized:
        """The model in int8, by ONNX Runtime's quantizer, and what has become of its nodes and weights.

        Args:
            exclude: globs over what stays in floating point.

        Raises:
            ModelError: the quantizer does not take the model.
            OptionError: a glob names nothing.
            TargetError: nothing can be quantised.
            VerificationError: a zero would not stay zero.
        """
        recipe, original, prepared = self._recipe, self._original, self.prepared
        excluded = _excluded(exclude, self._model, prepared)
        excluded |= {node.name for node in prepared.graph.node if not original.overridable.isdisjoint(node.input)}
        settings = ort_quantizer.Settings(
            recipe.method, recipe.percentile, recipe.per_channel, recipe.activations, recipe.reduced, sorted(excluded)
        )
        with self._stages("quantize", "measuring ranges and quantising"):
            result = self._workshop.quantize(settings, self._samples)
        weights = tuple(_zeros(prepared, result).values())
        kept = tuple(_kept(result, excluded))
        nodes = Counter(node.op_type for node in _computing(result)) - Counter(node["op"] for node in kept)
        _tidy(result, original)
        result = Restore().run(result, self._model)
        if not weights:
            raise TargetError(f"{self._model.name}: nothing in it can be quantised: {_why(kept)}")
        return Quantized(result, nodes, kept, weights, tuple(self._workshop.said))


def _check(model: Model) -> None:
    """Raises where the quantizer would write nonsense, or say something less clear."""
    linear = next((node for node in every_node(model.graph) if node.op_type in QDQ), None)
    if linear is not None:
        name = linear.name or linear.output[0]
        raise ModelError(f"{model.name}: computes in int8 already ({linear.op_type} {name!r}): quantise the model it came from")
    types = float_types(model)
    if types and "float32" not in types:
        raise ModelError(f"{model.name}: is in {min(types)}, which int8 kernels do not read: quantise the float32 model")


def _name(model: Model) -> None:
    """Give every node of the main graph a name of its own: the quantizer goes by names."""
    taken = Counter(node.name for node in model.graph.node)
    for number, node in enumerate(model.graph.node):
        if not node.name or taken[node.name] > 1:
            name = f"{node.name or node.op_type}_{number}"
            while name in taken:
                name += "_"
            node.name = name
            taken[name] += 1


def _excluded(globs: Sequence[str], model: Model, prepared: Model) -> set[str]:
    """Names of nodes of the prepared graph that stay in floating point, by globs over the graph as it came.

    Folding may rename a node; it is known by what it reads and outputs, too.
    """
    nodes: list[NodeProto] = []
    for glob in globs:
        found = [node for node in model.graph.node if any(fnmatchcase(name, glob) for name in _called(node, model))]
        if not found:
            known = sorted({name for node in model.graph.node for name in _called(node, model)})
            near = difflib.get_close_matches(glob, known, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise OptionError(f"--exclude {glob!r}: no node, weight or operator of {model.name} is called like that{hint}")
        nodes += found
    names = {node.name for node in nodes}
    made = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in node.input if name in model.weights}
    same = (n for n in prepared.graph.node if n.name in names or made.intersection(n.output) or read.intersection(n.input))
    return {node.name for node in same}


def _called(node: NodeProto, model: Model) -> Iterator[str]:
    yield from (node.name, node.op_type)
    yield from (name for name in node.input if name in model.weights)


def _types(model: Model) -> dict[str, int]:
    """The element type of each value, as far as the graph records it."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    return {v.name: v.type.tensor_type.elem_type for v in values} | {n: w.dtype for n, w in model.weights.items()}


def _computing(model: Model) -> Iterator[NodeProto]:
    """Nodes of the main graph that compute on floats, other than those that quantise."""
    types = _types(model)
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in model.graph.node:
        floats = any(name in made or types.get(name) in FLOATS for name in node.input)
        if floats and node.op_type not in QDQ | _SIZES:
            yield node


def _kept(model: Model, excluded: set[str]) -> Iterator[dict[str, str]]:
    """Nodes that compute in floating point: name, operator, and why."""
    dequantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    types = _types(model)
    known = ort_quantizer.operators()
    for node in _computing(model):
        floats = [name for name in node.input if name and (name in dequantized or types.get(name, 1) in FLOATS)]
        if not model.overridable.isdisjoint(node.input):
            why = "it reads an input that callers may override"
        elif node.name in excluded:
            why = EXCLUDED
        elif node.op_type not in known or domain_of(node):
            why = "ONNX Runtime has no int8 form of it"
        elif all(name in dequantized for name in floats):
            continue
        else:
            why = "what it reads is not in int8"
        yield {"node": node.name, "op": node.op_type, "why": why}


def _why(kept: Sequence[Mapping[str, str]]) -> str:
    """The most frequent reason."""
    reasons = Counter(node["why"] for node in kept).most_common(1)
    return reasons[0][0] if reasons else "it computes on no floats"


def _zeros(prepared: Model, result: Model) -> dict[str, _Zeros]:
    """The zeros of each quantised weight, by its name.

    Raises:
        VerificationError: a zero would not stay one.
    """
    found = {}
    for node in result.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in result.weights:
            continue
        weight = result.weights[node.input[0]]
        name = weight.name.removesuffix("_quantized")
        if weight.dtype not in ort_quantizer.BYTES or name not in prepared.weights:
            continue
        point, along = result.weights[node.input[2]].array(), [1] * len(weight.shape)
        if point.size > 1:
            along[_axis(node)] = -1
        zero = weight.array() == (point.reshape(along) if along else point)
        was = prepared.weights[name].array() == 0
        if np.any(was & ~zero):
            raise VerificationError(f"{name}: a zero of it is not zero in int8: leave it out with --exclude {name!r}")
        found[name] = _Zeros(weight.size, int(was.sum()), int(zero.sum()))
    return found


def _axis(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 1)


def _tidy(model: Model, original: Model) -> None:
    """The name, interface and description of the original; nothing that only the quantizer's own steps read."""
    proto, first = model.proto, original.proto
    model.name = original.name
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(proto, field, getattr(first, field))
    for field, old in (("metadata_props", first.metadata_props), ("functions", first.functions)):
        current = getattr(proto, field)
        del current[:]
        current.extend(old)
    recorded = {value.name for value in first.graph.value_info}
    kept = [value for value in proto.graph.value_info if value.name in recorded]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    for side in ("input", "output"):
        current = getattr(proto.graph, side)
        del current[:]
        current.extend(getattr(original.graph, side))
    proto.graph.name = first.graph.name
    used = {domain_of(node) for node in every_node(model.graph)}
    opsets = [one for one in proto.opset_import if one.domain in {"", "ai.onnx"} or one.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(opsets)


def _arithmetic(model: Model, samples: Samples) -> float:
    """How far int8 kernels are from exact arithmetic, here: the relative difference of outputs.

    Raises:
        VerificationError: the model does not run.
    """
    try:
        kernels, exact = (session.Session(model, fuse=fuse, threads=0) for fuse in (True, False))
        taken, squares, gaps = 0, 0.0, 0.0
        for batch in samples.batches():
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


def _notes(made: Quantized, recipe: QuantRecipe, arithmetic: float) -> Iterator[str]:
    model = made.model
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
    yield "int8 is not faster on every CPU and for every model, and can be slower: measure it with `onnxprune benchmark`"
    yield from (f"ONNX Runtime: {text}" for text in made.warnings)
