"""Samples to run a model on."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from onnxprune.errors import OptionError
from onnxprune.weights import Array

if TYPE_CHECKING:
    from onnx import ValueInfoProto

__all__ = ["Samples", "fit", "load"]


class Samples(dict[str, Array]):
    """Arrays by input name, the first axis the sample, and where they came from."""

    source = "samples"


def load(path: str | Path) -> Samples:
    """The arrays of an .npz.

    Raises:
        OptionError: it is no such file.
    """
    if not Path(path).is_file():
        raise OptionError(f"--calib {path}: no such file")
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as data:
            samples = Samples({name: data[name] for name in data.files})
            samples.source = f"--calib {path}"
            return samples
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise OptionError(f"--calib {path}: not an .npz with one array per model input: write it with numpy.savez") from error


def fit(samples: Mapping[str, Array], inputs: Sequence[ValueInfoProto]) -> dict[str, Array]:
    """The samples as the inputs of a model take them: one array each, of its type.

    Raises:
        OptionError: an array is missing, or its shape, type or number of samples does not fit.
    """
    source = samples.source if isinstance(samples, Samples) else Samples.source
    missing = [value.name for value in inputs if value.name not in samples]
    if missing:
        raise OptionError(f"{source}: has no array for input {missing[0]!r}; it has {', '.join(samples) or 'none'}")
    return {value.name: _fit_one(samples[value.name], value, source) for value in inputs}


def _fit_one(array: Array, value: ValueInfoProto, source: str) -> Array:
    tensor = value.type.tensor_type
    sizes = [dim.dim_value for dim in tensor.shape.dim] if tensor.HasField("shape") else [0] * max(array.ndim, 1)
    if array.ndim != len(sizes) or any(size not in {0, have} for size, have in zip(sizes[1:], array.shape[1:], strict=True)):
        wanted = ", ".join(["samples", *(str(size or "any") for size in sizes[1:])])
        raise OptionError(f"{source}: array {value.name!r} has shape {list(array.shape)}, the input takes [{wanted}]")
    least = max(sizes[0], 1)
    if len(array) < least:
        raise OptionError(f"{source}: array {value.name!r} has {len(array)} samples, the model takes {least} at a time")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise OptionError(f"{source}: array {value.name!r} is of type {array.dtype}, the input takes {dtype}")
    return array.astype(dtype, copy=False)
