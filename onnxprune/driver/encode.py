"""Sparse weights in few bytes: encode, decode, and what is in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxprune.driver.costs import before_and_after, cost_of
from onnxprune.driver.judgement import Judgement, Jury
from onnxprune.driver.kernels import inlined, layers_in, proven_with_kernels
from onnxprune.driver.proof import demand, stored
from onnxprune.driver.result import ModelResult
from onnxprune.ir.history import begin, made, recipe_text
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.parameters import zero_points
from onnxprune.ir.unchanged import watched
from onnxprune.kernels.loading import library
from onnxprune.latency.timer import OrtTimer
from onnxprune.options.gates import Gates
from onnxprune.passes import Decode, Encode, FoldMasks, UseKernels
from onnxprune.passes.base import Progress, silent
from onnxprune.passes.constants import gather_constants
from onnxprune.passes.encode import FOLDED, TYPES
from onnxprune.passes.use_kernels import WithKernels
from onnxprune.sparse.encoding.accounting import Encoded, totals
from onnxprune.sparse.encoding.flat import most_frequent
from onnxprune.sparse.encoding.recognize import Decoders
from onnxprune.sparse.kernel_nodes import KernelLayer
from onnxprune.verify.verdicts import Check

if TYPE_CHECKING:
    from onnxprune.pruning.cost import Cost

__all__ = ["Stored", "decode", "describe", "encode", "survey"]


@dataclass(frozen=True, repr=False)
class Stored(ModelResult):
    """A model whose weights are stored in another way.

    Attributes:
        weights: how each is stored now.
        rest: bytes of the graph without decoders, and of constants that are no weights.
        verification: the proof that the model computes what the file does.
        judgement: how good the model is beside the original, whose outputs it has.
        notes: what else the user should know.
        kernels: the layers that have sparse kernels.
        before: MACs, parameters and bytes of the file; ``None`` where it cannot be analysed.
        after: likewise of the result: only bytes differ.
    """

    weights: tuple[Encoded, ...]
    rest: int
    verification: Check
    judgement: Judgement
    notes: tuple[str, ...] = ()
    kernels: tuple[KernelLayer, ...] = ()
    before: Cost | None = None
    after: Cost | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data: the weights one by one and all together."""
        proof = asdict(self.verification)
        return {
            "model": self.compiled.name,
            **totals(self.weights),
            "rest_bytes": self.rest,
            "verification": proof,
            "judgement": self.judgement.to_dict(),
            "score": asdict(self.judgement.score) if self.judgement.score else None,
            "notes": list(self.notes),
            "kernels": [layer.to_dict() for layer in self.kernels],
            "before": self.before and asdict(self.before),
            "after": self.after and asdict(self.after),
            **made(self.compiled),
        }


@watched()
def encode(
    source: ModelSource,
    encoding: str = "auto",
    *,
    mode: str = "smallest",
    negative_zeros: bool = False,
    kernels: bool = False,
    require_proof: bool = False,
    shape: Sequence[str] = (),
    gates: Gates | None = None,
    progress: Progress | None = None,
) -> Stored:
    """Store sparse weights in few bytes, as nodes of standard operators that make them; runtimes compute those once, at load.

    Weights that a mask multiplies in the graph are folded first. Weights whose encoding would not pay stay as they are.

    Args:
        source: a path, a ``ModelProto``, bytes, or an ``onnx_graphsurgeon.Graph``; it is not changed.
        encoding: ``auto``, the smallest for each weight; ``bitmask``, ``delta``, ``nm``, ``coo`` or ``dense`` for all.
        mode: ``smallest``, or ``fast`` for encodings that are quick to decode.
        negative_zeros: keep negative zeros, which masks make of negative weights; otherwise they become zeros.
        kernels: give layers that sparse kernels compute faster the nodes for these; see `onnxprune.kernels`.
        require_proof: whether every output must be proven or tested.
        shape: sizes of inputs, as ``image=?x3x224x224`` or ``height=224``.
        gates: what the result must be as good as.
        progress: told what is being done.

    Raises:
        ModelError: the source is not a model that can be read, or its operator set is too old.
        OptionError: no such encoding or mode, sizes that do not fit, a gate without samples, or no compiler for kernels.
        QualityError: the result is not as good as a gate asks.
        VerificationError: the result computes something else than the file; or an output is not tested that must be.
    """
    tell = progress or silent
    options: dict[str, Any] = {"encoding": encoding, "mode": mode, "negative_zeros": negative_zeros, "kernels": kernels}
    original = begin(Model.of(source, shape), source, recipe_text("encode", **options))
    jury = Jury.of(gates or Gates(), original, None)
    folded = Decode().run(FoldMasks().run(original))
    if kernels:
        tell("building the sparse kernels")
        library()
    found = UseKernels(OrtTimer()).run(folded, tell) if kernels else WithKernels(folded, ())
    encoded = Encode(encoding, mode, negative_zeros).run(found.model, tell)
    tell("verifying: encoded == original")
    check = _proven(inlined(encoded.model), original, "encoded", require_proof=require_proof)
    if found.layers:
        tell("verifying: with kernels == without")
        check = proven_with_kernels(encoded.model, check)
    rows = encoded.weights
    rest = folded.nbytes - sum(row.dense for row in rows)
    notes = []
    large = [row.name for row in rows if row.dense > FOLDED and row.sparsity > 0]
    if large:
        names = ", ".join(large[:3]) + (f" and {len(large) - 3} more" if len(large) > 3 else "")
        notes.append(f"over 1 GiB, which ONNX Runtime does not fold but decode at every run: {names}")
    if kernels and not found.layers:
        notes.append("no layer has a sparse kernel: none would be faster, by its zeros and by measurement")
    judged = jury.judge(encoded.model, compare=False, exact=True)
    costs = before_and_after(cost_of(original), encoded.model)
    return Stored(rows, rest, check, judged, tuple(notes), found.layers, **costs, compiled=encoded.model)


def _proven(result: Model, original: Model, how: str, *, require_proof: bool) -> Check:
    """The proof that a model computes what the file does."""
    check = stored(result, original, how, exact=True)
    if require_proof:
        demand(check, original.name)
    return check


@watched()
def decode(source: ModelSource, *, require_proof: bool = False, shape: Sequence[str] = (), gates: Gates | None = None) -> Stored:
    """Weights as constants again, bit for bit; what other tools left of our decoders is enough.

    Raises:
        ModelError: the source is not a model that can be read.
        OptionError: a gate needs samples, and there are none.
        QualityError: the result is not as good as a gate asks.
        VerificationError: the result computes something else than the file; or, with ``require_proof``, an output is not tested.
    """
    original = begin(Model.of(source, shape), source, recipe_text("decode"))
    jury = Jury.of(gates or Gates(), original, None)
    model = Decode().run(original)
    check = _proven(model, original, "decoded", require_proof=require_proof)
    rows = survey(model)
    judged = jury.judge(model, compare=False, exact=True)
    rest, costs = model.nbytes - sum(row.dense for row in rows), before_and_after(cost_of(original), model)
    return Stored(rows, rest, check, judged, **costs, compiled=model)


def describe(source: ModelSource) -> dict[str, Any]:
    """Sparsity, pattern and storage of the weights, and what has sparse kernels, as data: what `inspect` shows.

    Raises:
        ModelError: the source is not a model that can be read.
    """
    return {**totals(survey(source)), "kernels": [layer.to_dict() for layer in layers_in(source)]}


def survey(source: ModelSource) -> tuple[Encoded, ...]:
    """Every weight of a model: its sparsity, the N:M pattern it satisfies, how it is stored.

    Raises:
        ModelError: the source is not a model that can be read.
    """
    model = Model.of(source)
    coo = model.sparse
    gather_constants(model)
    made = Decoders(model)
    rows = []
    points = zero_points(model)
    for name, weight in (model.weights | made.weights).items():
        # Zero points are zeros, and no weights; nor is one number.
        if weight.dtype in TYPES and weight.size > 1 and name not in made.stored and name not in points:
            array = weight.array()
            row = Encoded.of(name, array, most_frequent(array))
            rows.append(replace(row, encoding=made.families.get(name, "coo" if name in coo else row.encoding)))
    taken = _taken(rows, made, model)
    return tuple(replace(row, stored=taken.get(row.name, row.stored)) for row in rows)


def _taken(rows: Sequence[Encoded], made: Decoders, model: Model) -> dict[str, int]:
    """The bytes of the constants that encoded weights are made of, by the name of the weight.

    One decoder may make many weights. Values, and gaps between them, are then divided by how many values each weight has, and
    masks by how many elements.
    """
    known = {row.name: row for row in rows if row.name in made.families}
    found = dict.fromkeys(known, 0.0)
    for source in made.stored:
        constant, readers = model.weights[source], [row for name, row in known.items() if source in made.sources[name]]
        by_values = {row.name: row.elements * (1 - row.sparsity) for row in readers}
        same = constant.is_float or any(row.encoding == "delta" for row in readers)
        parts = by_values if same and any(by_values.values()) else {row.name: float(row.elements) for row in readers}
        for name, part in parts.items():
            found[name] += constant.nbytes * part / sum(parts.values())
    return {name: round(taken) for name, taken in found.items()}
