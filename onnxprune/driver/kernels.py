"""Files with sparse kernels: what they have, and the proof of both of their lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto

from onnxprune.driver.proof import held
from onnxprune.errors import OptionError, VerificationError
from onnxprune.ir.model import Model, ModelSource, load_proto
from onnxprune.ir.node import domain_of
from onnxprune.ir.plain import make_plain
from onnxprune.kernels.loading import instruction_set, library
from onnxprune.passes import Decode, Encode, UseKernels
from onnxprune.passes.bodies import replace_all
from onnxprune.passes.constants import gather_constants
from onnxprune.runtime.custom_operators import custom_operators
from onnxprune.runtime.session import Session
from onnxprune.sparse.encoding.recognize import Decoders
from onnxprune.sparse.kernel_nodes import DOMAIN, FUSIONS, KernelLayer, kernel_layers
from onnxprune.verify.law import unchanged
from onnxprune.verify.verdicts import Check

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples

__all__ = ["Apart", "apart", "checked_with_kernels", "gap_in_int8", "inlined", "layers_in", "proven_with_kernels"]

_BATCH, _LOOKED_AT = 8, 64
"""Samples that int8 models are compared on, at a time and in all."""


@dataclass(frozen=True, slots=True)
class Apart:
    """Attributes:
    model: without kernels; every node that one stood for has a name.
    chains: the names of these nodes, by that of the first.
    """

    model: Model
    chains: Mapping[str, tuple[str, ...]]

    def fused(self, changed: Model) -> Model:
        """What was made of the model, with kernels where it had some and the nodes are still there; weights are encoded again."""
        if not self.chains:
            return changed
        return Encode().run(UseKernels(names=self.chains.keys()).run(changed).model).model


def apart(model: Model) -> Apart:
    """A model with kernels as one without, for steps that must leave alone what kernels compute."""
    fused = [node for node in model.graph.node if domain_of(node) == DOMAIN]
    if not fused:
        return Apart(model, {})
    plain = Decode().run(inlined(model))
    made = {node.output[0]: node for node in plain.graph.node}
    chains = {}
    for kernel in fused:
        fusion, nodes = FUSIONS[kernel.op_type], [made[kernel.output[0]]]
        for _ in range(fusion.adds + bool(fusion.bound)):
            nodes.append(made[nodes[-1].input[0]])  # as functions are written
        first = kernel.name or kernel.output[0]
        for node in nodes:
            node.name = first if node is nodes[-1] else f"{first}_{node.op_type}"
        chains[first] = tuple(node.name for node in nodes)
    return Apart(plain, chains)


def inlined(model: Model) -> Model:
    """The model as runtimes have it without the library of kernels: functions are inlined."""
    plain = model.copy()
    make_plain(plain.proto, plain.name)
    return plain


def proven_with_kernels(model: Model, check: Check, seed: int = 0) -> Check:
    """The proof of a model with kernels, after that of the model without them: with the library it computes the same.

    Args:
        model: with nodes that have kernels.
        check: the proof of the same model, inlined.
        seed: of the inputs.

    Raises:
        OptionError: the library cannot be built here.
        VerificationError: with kernels the model computes something else.
    """
    plain = inlined(model)
    with custom_operators(library()):
        found = held(unchanged(model, plain, seed=seed, against="same without kernels"), model, "run by sparse kernels")
    note = f"with sparse kernels ({instruction_set()}): the same, largest difference {found.error:.1e}"
    return replace(check, notes=(*check.notes, note))


def gap_in_int8(model: Model, before: Model, samples: Samples) -> float:
    """How far outputs of an int8 model with kernels are from those without, relative to these; nothing proves them equal.

    Kernels add in another order. What differs by less than a digit in front of a rounding to int8 may differ by one behind it.
    Both are run as the file says: otherwise ONNX Runtime, from 1.20 on, puts layers between roundings into int8 itself, weights
    and all, where it sees what kernels stand for.

    Args:
        model: with nodes that have kernels.
        before: the same in floating point, without kernels.
        samples: what both are run on.

    Raises:
        OptionError: the library cannot be built here.
        VerificationError: kernels change outputs by more than int8 does.
    """
    with custom_operators(library()):
        gap, rounding = (_distance(model, other, samples) for other in (inlined(model), before))
    if gap > rounding:
        raise VerificationError(
            f"{model.name}: sparse kernels change its outputs in int8 by {gap:.1e}, and int8 itself by {rounding:.1e}: they "
            "compute something else; leave --kernels out"
        )
    return gap


def _distance(one: Model, other: Model, samples: Samples) -> float:
    """The root of summed squared differences of outputs over the root of the squares of the second; nothing is optimised."""
    sessions = [Session(model, optimize=False, threads=0) for model in (one, other)]
    taken, gaps, squares = 0, 0.0, 0.0
    for batch in samples.batches(_BATCH):
        for a, b in zip(*(session.run(batch.feeds) for session in sessions), strict=True):
            if isinstance(b, np.ndarray) and np.issubdtype(b.dtype, np.floating):
                gaps += float(np.square(a.astype(np.float64) - b).sum())
                squares += float(np.square(b, dtype=np.float64).sum())
        taken += batch.size
        if taken >= _LOOKED_AT:
            break
    return float(np.sqrt(gaps / squares)) if squares else 0.0


def checked_with_kernels(source: ModelSource, check: Check, seed: int = 0) -> Check:
    """The proof of a file that was read, and that sparse kernels compute the same where the file has nodes for them.

    Where the library cannot be built, a note says so.

    Raises:
        VerificationError: with kernels the file computes something else.
    """
    model = _as_written(source)
    if model is None or not check.ok:
        return check
    try:
        return proven_with_kernels(model, check, seed)
    except OptionError as error:
        return replace(check, notes=(*check.notes, f"not run by its sparse kernels: {error}"))


def _as_written(source: ModelSource) -> Model | None:
    """The model with the nodes and functions of its file; ``None`` where it has none with kernels."""
    proto = _with_functions(source)
    if proto is None:
        return None
    model = Model.of(source)
    replace_all(model.graph.node, proto.graph.node)
    replace_all(model.proto.functions, proto.functions)
    replace_all(model.proto.opset_import, proto.opset_import)
    return model


def _with_functions(source: ModelSource) -> ModelProto | None:
    """The file as it is, if it has functions for kernels."""
    proto = load_proto(Path(source)) if isinstance(source, str | Path) else source
    has = isinstance(proto, ModelProto) and any(function.domain == DOMAIN for function in proto.functions)
    return proto if has else None


def layers_in(source: ModelSource) -> list[KernelLayer]:
    """The layers of a model that have a sparse kernel; none in a model that was read, since reading inlines functions.

    Raises:
        ModelError: the source is not a model that can be read.
    """
    proto = _with_functions(source)
    if proto is None:
        return []
    model = Model.of(source)
    gather_constants(model)
    return kernel_layers(proto.graph.node, model.weights | Decoders(model).weights)
