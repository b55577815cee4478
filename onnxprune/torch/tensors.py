"""Tensors of PyTorch and arrays of ONNX: types, and values bit by bit."""

from __future__ import annotations

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.ir.weights import Array, Weight

__all__ = ["FLOAT8", "dtype_of", "from_array", "narrowed", "to_array", "to_tensor"]

_TORCH = {
    "FLOAT": torch.float32, "DOUBLE": torch.float64, "FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16,
    "INT8": torch.int8, "INT16": torch.int16, "INT32": torch.int32, "INT64": torch.int64, "BOOL": torch.bool,
    "UINT8": torch.uint8, "UINT16": torch.uint16, "UINT32": torch.uint32, "UINT64": torch.uint64,
    "COMPLEX64": torch.complex64, "COMPLEX128": torch.complex128,
    "FLOAT8E4M3FN": torch.float8_e4m3fn, "FLOAT8E4M3FNUZ": torch.float8_e4m3fnuz, "FLOAT8E5M2": torch.float8_e5m2,
    "FLOAT8E5M2FNUZ": torch.float8_e5m2fnuz, "INT4": torch.int8, "UINT4": torch.uint8, "INT2": torch.int8, "UINT2": torch.uint8,
}  # fmt: skip
"""Types of fewer than eight bits live in whole bytes."""
_BY_NUMBER = {getattr(TensorProto, name): dtype for name, dtype in _TORCH.items() if hasattr(TensorProto, name)}
FLOAT8 = frozenset(dtype for name, dtype in _TORCH.items() if name.startswith("FLOAT8"))
"""Floating-point types of eight bits, in which PyTorch stores numbers and does not compute."""
_NARROW = {torch.bfloat16: torch.int16} | dict.fromkeys(FLOAT8, torch.uint8)
"""Types that NumPy takes from another package, and integers with as many bits."""


def dtype_of(elem_type: int) -> torch.dtype:
    """The type of PyTorch for a ``TensorProto.DataType``.

    Raises:
        ModelError: PyTorch has none (text, four-bit floats).
    """
    if elem_type not in _BY_NUMBER:
        name = TensorProto.DataType.Name(elem_type) if elem_type in TensorProto.DataType.values() else str(elem_type)
        raise ModelError(f"PyTorch has no tensors of the type {name}: convert them in the model")
    return _BY_NUMBER[elem_type]


def to_tensor(weight: Weight) -> Tensor:
    """A copy of a constant, in memory of its own.

    Raises:
        ModelError: PyTorch has no such type, or the constant cannot be read.
    """
    try:
        dtype = dtype_of(weight.dtype)
    except ModelError as error:
        raise ModelError(f"constant {weight.name!r}: {error}") from error
    return from_array(np.array(weight.array(), order="C"), dtype)  # a copy that keeps its rank where that is 0


def from_array(array: Array, dtype: torch.dtype | None = None) -> Tensor:
    """An array as a tensor, in memory shared with it if that can be written; of any type that ONNX and PyTorch have."""
    array = array if array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative else _native_copy(array)
    dtype = dtype_of(helper.np_dtype_to_tensor_dtype(array.dtype)) if dtype is None else dtype
    if dtype in _NARROW:
        bits = np.int16 if _NARROW[dtype] == torch.int16 else np.uint8
        return torch.from_numpy(array.reshape(-1).view(bits)).view(dtype).reshape(array.shape)
    if array.dtype.kind not in "fiubc":  # less than eight bits
        array = array.astype(np.int8 if dtype == torch.int8 else np.uint8)
    return torch.from_numpy(array)


def _native_copy(array: Array) -> Array:
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def narrowed(x: Tensor, dtype: torch.dtype, *, saturate: bool) -> Tensor:
    """Numbers in a floating-point type of eight bits; what is too large becomes the largest number where that is asked for."""
    limit = torch.finfo(dtype).max
    return x.clamp(-limit, limit).to(dtype) if saturate else x.to(dtype)


def to_array(tensor: Tensor, elem_type: int) -> Array:
    """The values of a tensor as an array of an ONNX type; bit by bit where the types agree."""
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    tensor = tensor.detach().to("cpu", dtype_of(elem_type)).contiguous()
    if tensor.dtype in _NARROW:
        bits: Array = tensor.reshape(-1).view(_NARROW[tensor.dtype]).numpy()
        return bits.view(dtype).reshape(tuple(tensor.shape))
    array: Array = tensor.numpy()
    return array if array.dtype == dtype else array.astype(dtype)
