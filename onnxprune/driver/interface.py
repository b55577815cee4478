"""What a file is: its inputs and outputs, who made it, and the lines of Python that make samples for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from onnxprune.data.batching import InputSignature
from onnxprune.errors import OptionError
from onnxprune.ir.files import source_bytes
from onnxprune.ir.lookups import rows_looked_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ValueInfoProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape

__all__ = ["interface", "snippet"]

_SAMPLES, _OPEN = 256, 64
"""Samples that the snippet makes, about, and the size that an open axis has if none is known."""


def interface(model: Model, shapes: Mapping[str, Shape | None]) -> dict[str, Any]:
    """Inputs and outputs with types and shapes, the file's bytes, operator set, format version and producer, and a snippet.

    Args:
        model: the file.
        shapes: of its inputs, as it takes them.
    """
    proto = model.proto
    producer = " ".join(filter(None, (proto.producer_name, proto.producer_version)))
    return {
        "opset": model.opset,
        "ir_version": proto.ir_version,
        "producer": producer,
        "bytes": source_bytes(model),
        "inputs": [_told(value) for value in model.inputs],
        "outputs": [_told(value) for value in model.graph.output],
        "snippet": snippet(model, shapes),
    }


def _told(value: ValueInfoProto) -> dict[str, Any]:
    kind = value.type.WhichOneof("value") or "tensor_type"
    if kind != "tensor_type":
        return {"name": value.name, "type": kind.removesuffix("_type"), "shape": None}
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    return {"name": value.name, "type": TensorProto.DataType.Name(tensor.elem_type).lower(), "shape": shape}


def snippet(model: Model, shapes: Mapping[str, Shape | None]) -> list[str]:
    """Three lines of Python that write ``calib.npz`` with an array for each input, of noise to be replaced by samples; empty
    where an input is no tensor, or has no known number of axes.

    Ids are drawn over the rows of the table that they look up. Open axes have the sizes of ``shapes``, where these are known.
    """
    try:
        signature = InputSignature.of(model.inputs)
    except OptionError:
        return []
    batch, rows = signature.size or 1, rows_looked_up(model)
    count, arrays = _SAMPLES // batch * batch or batch, []
    for spec in signature.specs:
        if spec.sizes is None:
            return []
        known = shapes.get(spec.name) or (_OPEN,) * len(spec.sizes)
        sizes = [found if size is None else size for size, found in zip(spec.sizes, known, strict=True)]
        if spec.batched:
            sizes[0] = count
        noise = spec.dtype.kind == "f" and spec.name not in rows
        drawn = f"rng.random({sizes})" if noise else f"rng.integers(0, {rows.get(spec.name, 2)}, {sizes})"
        arrays.append(f"{spec.name!r}: {drawn}.astype({str(spec.dtype)!r})")
    return [
        "import numpy as np; rng = np.random.default_rng(0)",
        f"samples = {{{', '.join(arrays)}}}  # put your inputs here, as the model gets them, in place of noise",
        'np.savez("calib.npz", **samples)',
    ]
