"""Constants of a graph, read or computed when they are needed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.unchanged import note

if TYPE_CHECKING:
    from onnxprune.ir.types import Shape

__all__ = ["FLOATS", "Array", "Flags", "Floats", "Weight", "constant_of", "densify", "external_path", "field_bytes"]

Array = np.ndarray[Any, np.dtype[Any]]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
PACKED = {
    getattr(TensorProto, name): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2))
    if hasattr(TensorProto, name)
}
"""Bits of an element of the types that share bytes."""


class Weight:
    """One constant tensor of the graph, read or computed on demand, so that a large model passes through tensor by tensor.

    Attributes:
        name: its name in the graph.
        origin: its name before passes renamed it.
        shape: its dimensions.
        dtype: its ``TensorProto.DataType``.
    """

    __slots__ = ("_array", "_compute", "_file", "_proto", "dtype", "name", "origin", "shape")

    def __init__(self, name: str, proto: TensorProto | None, array: Array | None = None, file: Path | None = None) -> None:
        self.name = self.origin = name
        self._proto, self._array, self._file = proto, array, file
        self._compute: Callable[[], Array] | None = None
        if proto is not None:
            self.shape: Shape = tuple(proto.dims)
            self.dtype: int = proto.data_type
        elif array is not None:
            self.shape = array.shape
            self.dtype = helper.np_dtype_to_tensor_dtype(array.dtype)

    @classmethod
    def computed(cls, name: str, shape: Shape, dtype: int, compute: Callable[[], Array]) -> Weight:
        """A constant that is computed whenever it is needed."""
        result = cls(name, None)
        result.shape, result.dtype, result._compute = shape, dtype, compute
        return result

    def derived(self, shape: Shape, compute: Callable[[Array], Array], dtype: int | None = None) -> Weight:
        """A constant of the same name that is computed from this one whenever it is needed; of the same type unless told."""
        dtype = self.dtype if dtype is None else dtype
        result = Weight.computed(self.name, shape, dtype, lambda: compute(self.array()))
        result.origin = self.origin
        return result

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def is_matrix(self) -> bool:
        """Whether it has more than one axis; what has one or none is a vector, or a number."""
        return sum(size != 1 for size in self.shape) > 1

    @property
    def nbytes(self) -> int:
        """Bytes of its data in the file."""
        if self.dtype in PACKED:
            return (self.size * PACKED[self.dtype] + 7) // 8
        if self.dtype == TensorProto.STRING:
            return 0
        return self.size * int(helper.tensor_dtype_to_np_dtype(self.dtype).itemsize)

    @property
    def message_bytes(self) -> int:
        """Bytes of its tensor as `append_to` appends it: its data, its name, its dimensions."""
        head, proto = TensorProto(name=self.name, data_type=self.dtype, dims=self.shape), self._proto
        if proto is None or proto.data_location == TensorProto.EXTERNAL:
            if self.dtype == TensorProto.STRING:
                return int(numpy_helper.from_array(self.array(), self.name).ByteSize())
            return int(head.ByteSize()) + field_bytes(self.nbytes)
        if not proto.HasField("raw_data"):
            return int(proto.ByteSize()) - field_bytes(len(proto.name.encode())) + field_bytes(len(self.name.encode()))
        if proto.HasField("doc_string"):
            head.doc_string = proto.doc_string
        head.metadata_props.extend(proto.metadata_props)
        return int(head.ByteSize()) + field_bytes(self.nbytes)  # the data is not touched: a large model would be copied

    def array(self) -> Array:
        """Its values; treat them as read-only. External data is mapped, not loaded.

        Raises:
            ModelError: its external data is missing, too short, or outside the model's folder.
        """
        if self._array is not None:
            return self._array
        if self._compute is not None:
            return self._compute()
        proto = self._proto
        assert proto is not None  # noqa: S101 - one of the two is given
        if proto.data_location == TensorProto.EXTERNAL:
            return _map_external(proto, self._file)
        try:
            return numpy_helper.to_array(proto)
        except (ValueError, TypeError) as error:
            raise ModelError(f"initializer {self.name!r} cannot be read: {error}; export the model again") from error

    def write(self, file: IO[bytes]) -> None:
        """Write its data, as a protobuf's ``raw_data`` spells it."""
        array = np.ascontiguousarray(self.array())
        packed = array.nbytes != self.nbytes
        file.write(numpy_helper.from_array(array).raw_data if packed else array.view(np.uint8).reshape(-1).data)

    def equals(self, other: Weight) -> bool:
        """Tell whether shape, type and every bit are those of another weight."""
        if (self.shape, self.dtype) != (other.shape, other.dtype):
            return False
        return self is other or np.ascontiguousarray(self.array()).tobytes() == np.ascontiguousarray(other.array()).tobytes()

    def renamed(self, name: str) -> Weight:
        """The same values under another name."""
        result = Weight(name, self._proto, self._array, self._file)
        result.origin, result.shape, result.dtype, result._compute = self.origin, self.shape, self.dtype, self._compute
        return result

    def append_to(self, tensors: Any) -> None:
        """Append the tensor, with its data inside, to a repeated protobuf field; data is copied as seldom as protobuf allows."""
        proto = self._proto
        if proto is not None and proto.data_location != TensorProto.EXTERNAL:
            tensors.append(proto)
            tensors[-1].name = self.name
            return
        array = self.array()
        if array.dtype.kind not in "fiub" or array.dtype.byteorder == ">" or self.nbytes != array.nbytes:
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), self.name))
            return
        tensors.add(name=self.name, data_type=self.dtype, dims=self.shape).raw_data = array.tobytes()


def field_bytes(length: int) -> int:
    """Bytes of a field of a protobuf message that holds so many: a tag, the length in seven bits per byte, and what it holds."""
    return 1 + max((length.bit_length() + 6) // 7, 1) + length


def _map_external(proto: TensorProto, file: Path | None) -> Array:
    info = external_data_helper.ExternalDataInfo(proto)
    path = external_path(info.location, file, proto.name)
    note(path)
    dtype = helper.tensor_dtype_to_np_dtype(proto.data_type)
    shape, offset = tuple(proto.dims), int(getattr(info, "offset", None) or 0)
    packed = proto.data_type in PACKED
    nbytes = (math.prod(shape) * PACKED.get(proto.data_type, 8 * dtype.itemsize) + 7) // 8
    if path.stat().st_size < offset + nbytes:
        raise ModelError(f"external data {path} ends before tensor {proto.name!r} does; the file is truncated: copy it again")
    if not nbytes:
        return np.zeros(shape, dtype)
    raw = np.memmap(path, np.uint8, "r", offset, (nbytes,))
    if packed:
        filled = TensorProto(data_type=proto.data_type, dims=proto.dims, raw_data=raw.tobytes())
        return numpy_helper.to_array(filled)
    return raw.view(dtype).reshape(shape)


def external_path(location: str, file: Path | None, tensor: str) -> Path:
    """The path of external data of a model file; only files inside the model's folder are read, as ONNX Runtime does.

    Where the model file is a link, the folder that it leads to counts, too: a download cache keeps all files of a model in one
    folder, and links to them.

    Raises:
        ModelError: the path leaves the folder, or there is no file.
    """
    if file is None:
        raise ModelError(f"tensor {tensor!r} has external data but the model came without a path: pass the path of the file")
    path = file.parent / location
    try:
        leads, is_file = Path(os.path.realpath(path)), path.is_file()  # unlike resolve, realpath ends in a loop of links
    except (OSError, ValueError) as error:  # a name that is too long, or one with a null byte
        raise ModelError(f"external data {location[:80]!r} of tensor {tensor!r} names no file: {error}") from error
    inside = os.pardir not in Path(os.path.normpath(location)).parts and not Path(location).is_absolute()
    folders = {Path(os.path.realpath(file.parent)), Path(os.path.realpath(file)).parent}
    if not inside or not any(leads.is_relative_to(folder) for folder in folders):
        raise ModelError(f"tensor {tensor!r} points outside the model's folder ({location}): move the data beside the model")
    if not is_file:
        trouble = "is a link that leads nowhere" if path.is_symlink() else "is missing"
        raise ModelError(f"external data {path} of tensor {tensor!r} {trouble}: copy it beside the model")
    return leads


def densify(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse initializer (COO: linear or per-axis int64 indices) as a dense array [sparse.dims]."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(math.prod(sparse.dims), values.dtype)
    if indices.ndim > 1:
        indices = np.ravel_multi_index(tuple(indices.T), tuple(sparse.dims)) if len(indices) else np.zeros(0, np.int64)
    dense[indices] = values
    return dense.reshape(tuple(sparse.dims))


def constant_of(node: onnx.NodeProto) -> Weight | None:
    """The tensor that a ``Constant`` node spells, in whichever of its attributes; ``None`` for text."""
    name, attribute = node.output[0], node.attribute[0]
    if attribute.name == "value":
        return Weight(name, attribute.t)
    if attribute.name == "sparse_value":
        return Weight(name, None, densify(attribute.sparse_tensor))
    dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name not in dtypes:
        return None
    return Weight(name, None, np.array(helper.get_attribute_value(attribute), dtypes[attribute.name]))
