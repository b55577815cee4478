"""The sparse tensors of the standard: values and their positions as 64-bit integers."""

from __future__ import annotations

import numpy as np
from onnx import SparseTensorProto, numpy_helper

from onnxprune.ir.weights import Array
from onnxprune.sparse.encoding.flat import bits_of

__all__ = ["coo", "coo_bytes"]


def coo(name: str, array: Array) -> SparseTensorProto:
    """A ``sparse_initializer`` as the specification wants it: int64, one position per element, ascending."""
    row = np.ascontiguousarray(array).reshape(-1)
    positions = np.flatnonzero(bits_of(row))
    sparse = SparseTensorProto(dims=array.shape)
    sparse.values.CopyFrom(numpy_helper.from_array(row[positions], name))
    sparse.indices.CopyFrom(numpy_helper.from_array(positions.astype(np.int64), f"{name}_indices"))
    return sparse


def coo_bytes(array: Array) -> int:
    """Bytes of such a tensor."""
    return int(np.count_nonzero(bits_of(array))) * (8 + array.itemsize)
