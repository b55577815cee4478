"""Files with sparse kernels: what they have, and the proof of both of their lives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from onnxprune.driver.proof import held
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model, ModelSource, load_proto
from onnxprune.ir.plain import make_plain
from onnxprune.kernels.loading import instruction_set, library
from onnxprune.passes.bodies import replace_all
from onnxprune.passes.constants import gather_constants
from onnxprune.runtime.custom_operators import custom_operators
from onnxprune.sparse.encoding.recognize import Decoders
from onnxprune.sparse.kernel_nodes import DOMAIN, KernelLayer, kernel_layers
from onnxprune.verify.law import unchanged
from onnxprune.verify.verdicts import Check

__all__ = ["checked_with_kernels", "inlined", "layers_in", "proven_with_kernels"]


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
