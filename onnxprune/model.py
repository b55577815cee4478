"""An ONNX model as the compiler sees it: a graph without weights, and weights that are read when they are needed.

`Model` keeps the protobuf as the truth, so what a pass does not touch is written back as it was read. Weights live beside
the graph as `Weight` handles: analyses look at shapes and types without loading a byte of them.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    external_data_helper,
    helper,
    numpy_helper,
)

from onnxprune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnxprune.equation import Shape

__all__ = ["Array", "Model", "NodeView", "Source", "Weight", "captured", "densify", "domain_of", "load_proto"]

Array = np.ndarray[Any, np.dtype[Any]]
Source = Any
"""A path, a ``ModelProto``, its bytes, or an ``onnx_graphsurgeon.Graph``."""

PACKED = frozenset({TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1})
"""Two elements a byte."""
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def domain_of(node: NodeProto) -> str:
    """The operator set of a node; the standard one is ``""``."""
    return "" if node.domain in STANDARD_DOMAINS else node.domain


class Weight:
    """One constant tensor of the graph, read or computed on demand, so that a large model passes through tensor by tensor.

    Attributes:
        name: its name in the graph.
        shape: its dimensions.
        dtype: its ``TensorProto.DataType``.
    """

    __slots__ = ("_array", "_base", "_compute", "_proto", "dtype", "name", "shape")

    def __init__(self, name: str, proto: TensorProto | None, array: Array | None = None, base: Path | None = None) -> None:
        self.name = name
        self._proto, self._array, self._base = proto, array, base
        self._compute: Callable[[], Array] | None = None
        if proto is not None:
            self.shape: Shape = tuple(proto.dims)
            self.dtype: int = proto.data_type
        elif array is not None:
            self.shape = array.shape
            self.dtype = helper.np_dtype_to_tensor_dtype(array.dtype)

    def derived(self, shape: Shape, compute: Callable[[Array], Array]) -> Weight:
        """A constant of the same name and type that is computed from this one whenever it is needed."""
        result = Weight(self.name, None)
        result.shape, result.dtype = shape, self.dtype
        result._compute = lambda: compute(self.array())
        return result

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def nbytes(self) -> int:
        """Bytes of its data in the file."""
        if self.dtype in PACKED:
            return (self.size + 1) // 2
        if self.dtype == TensorProto.STRING:
            return 0
        return self.size * int(helper.tensor_dtype_to_np_dtype(self.dtype).itemsize)

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
            return _map_external(proto, self._base)
        try:
            return numpy_helper.to_array(proto)
        except (ValueError, TypeError) as error:
            raise ModelError(f"initializer {self.name!r} cannot be read: {error}; export the model again") from error

    def write(self, file: IO[bytes]) -> None:
        """Write its data, as a protobuf's ``raw_data`` spells it."""
        array = np.ascontiguousarray(self.array())
        packed = array.nbytes != self.nbytes
        file.write(numpy_helper.from_array(array).raw_data if packed else array.view(np.uint8).reshape(-1).data)

    def renamed(self, name: str) -> Weight:
        """The same values under another name."""
        result = Weight(name, self._proto, self._array, self._base)
        result.shape, result.dtype, result._compute = self.shape, self.dtype, self._compute
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


def _map_external(proto: TensorProto, base: Path | None) -> Array:
    info = external_data_helper.ExternalDataInfo(proto)
    path = external_path(info.location, base, proto.name)
    dtype = helper.tensor_dtype_to_np_dtype(proto.data_type)
    shape, offset = tuple(proto.dims), int(getattr(info, "offset", None) or 0)
    packed = proto.data_type in PACKED
    nbytes = (math.prod(shape) + 1) // 2 if packed else math.prod(shape) * dtype.itemsize
    if path.stat().st_size < offset + nbytes:
        raise ModelError(f"external data {path} ends before tensor {proto.name!r} does; the file is truncated: copy it again")
    if not nbytes:
        return np.zeros(shape, dtype)
    raw = np.memmap(path, np.uint8, "r", offset, (nbytes,))
    if packed:
        filled = TensorProto(data_type=proto.data_type, dims=proto.dims, raw_data=raw.tobytes())
        return numpy_helper.to_array(filled)
    return raw.view(dtype).reshape(shape)


def external_path(location: str, base: Path | None, tensor: str) -> Path:
    """Where external data lies; only files inside the model's folder are read.

    Raises:
        ModelError: the path leaves the folder, or there is no file.
    """
    if base is None:
        raise ModelError(f"tensor {tensor!r} has external data but the model came without a path: pass the path of the file")
    root = base.resolve()
    path = (root / location).resolve()
    if Path(location).is_absolute() or not path.is_relative_to(root):
        raise ModelError(f"tensor {tensor!r} points outside the model's folder ({location}): move the data beside the model")
    if not path.is_file():
        raise ModelError(f"external data {path} of tensor {tensor!r} is missing: copy it beside the model")
    return path


def load_proto(path: Path) -> ModelProto:
    """Read a model file, leaving external data where it is.

    Raises:
        ModelError: there is no such file, or it is not a whole ONNX model.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file" if not path.exists() else f"{path}: is a folder, not an .onnx file")
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # the parser raises another type with every protobuf backend
        raise ModelError(f"{path}: not an ONNX model, or truncated: export or copy it again") from error
    if not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{path}: not an ONNX model (no graph in it)")
    return proto


def _without(message: Any, *fields: str) -> Any:
    """A copy of a protobuf message that leaves out some fields, without ever copying those."""
    copy = type(message)()
    for descriptor, value in message.ListFields():
        if descriptor.name in fields:
            continue
        if descriptor.message_type and not hasattr(value, "append"):
            getattr(copy, descriptor.name).CopyFrom(value)
        elif hasattr(value, "append"):
            getattr(copy, descriptor.name).extend(value)
        else:
            setattr(copy, descriptor.name, value)
    return copy


class Model:
    """A graph and its weights.

    Attributes:
        proto: the model without initializers; passes edit it.
        weights: every initializer, by name.
        name: what messages call it: its path, or ``<model>``.
    """

    def __init__(self, proto: ModelProto, weights: dict[str, Weight], name: str) -> None:
        self.proto, self.weights, self.name = proto, weights, name

    @classmethod
    def of(cls, source: Source) -> Model:
        """The model in a path, a ``ModelProto``, bytes or an ``onnx_graphsurgeon.Graph``; the source is never changed.

        Raises:
            ModelError: it is not a model that can be read.
        """
        if isinstance(source, Model):
            return source.copy()
        if isinstance(source, str | Path):
            path = Path(source)
            return cls._from_proto(load_proto(path), str(source), path.parent)
        if isinstance(source, bytes):
            try:
                source = ModelProto.FromString(source)
            except Exception as error:
                raise ModelError("<bytes>: not an ONNX model, or truncated") from error
        elif not isinstance(source, ModelProto):
            source = _from_graphsurgeon(source)
        return cls._from_proto(source, "<model>", None)

    @classmethod
    def _from_proto(cls, proto: ModelProto, name: str, base: Path | None) -> Model:
        newest = onnx.defs.onnx_opset_version()
        for opset in proto.opset_import:
            if opset.domain in STANDARD_DOMAINS and opset.version > newest:
                raise ModelError(
                    f"{name}: operator set {opset.version} is newer than the installed onnx knows ({newest}): "
                    "run pip install -U onnx onnxruntime"
                )
        skeleton = _without(proto, "graph")
        skeleton.graph.CopyFrom(_without(proto.graph, "initializer", "sparse_initializer"))
        weights = {t.name: Weight(t.name, t, base=base) for t in proto.graph.initializer}
        for sparse in proto.graph.sparse_initializer:
            weights[sparse.values.name] = Weight(sparse.values.name, None, densify(sparse))
        for tensor in proto.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                external_path(external_data_helper.ExternalDataInfo(tensor).location, base, tensor.name)
        return cls(skeleton, weights, name)

    def copy(self) -> Model:
        """A model whose graph and set of weights can be changed without changing this one; the weights are shared."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        return Model(proto, dict(self.weights), self.name)

    @property
    def graph(self) -> GraphProto:
        return self.proto.graph

    @property
    def opset(self) -> int:
        """The version of the standard operator set."""
        return self.opset_of("")

    def opset_of(self, domain: str) -> int:
        domains = STANDARD_DOMAINS if domain in STANDARD_DOMAINS else {domain}
        return next((opset.version for opset in self.proto.opset_import if opset.domain in domains), 1)

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """What a caller must feed: graph inputs that no initializer provides."""
        return [value for value in self.graph.input if value.name not in self.weights]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of the graph, about what the file takes."""
        return int(self.proto.ByteSize()) + sum(weight.nbytes for weight in self.weights.values())

    def consumers(self) -> dict[str, list[tuple[NodeProto, int]]]:
        """For each value the nodes that read it, with the input position; -1 for a subgraph of theirs that captures it."""
        found: dict[str, list[tuple[NodeProto, int]]] = {}
        for node in self.graph.node:
            for position, value in enumerate(node.input):
                if value:
                    found.setdefault(value, []).append((node, position))
            for value in captured(node):
                found.setdefault(value, []).append((node, -1))
        return found

    def fresh_name(self, stem: str) -> str:
        """A name that no value of the graph has."""
        taken = self._names
        name, count = stem, 0
        while name in taken:
            count += 1
            name = f"{stem}__{count}"
        taken.add(name)
        return name

    @cached_property
    def _names(self) -> set[str]:
        names = set(self.weights) | {v.name for v in self.graph.input}
        for node in self.graph.node:
            names.update(node.input, node.output)
        return names

    def to_proto(self) -> ModelProto:
        """The whole model, weights inside."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        for weight in self.weights.values():
            weight.append_to(proto.graph.initializer)
        return proto

    def skeleton(self, *, keep_below: int = 1024) -> ModelProto:
        """The graph with small weights inside and larger ones declared as inputs: what shape inference needs, no more."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        graph = proto.graph
        declared = {value.name for value in graph.input}
        for weight in self.weights.values():
            if weight.size <= keep_below:
                weight.append_to(graph.initializer)
            elif weight.name not in declared:
                graph.input.append(helper.make_tensor_value_info(weight.name, weight.dtype, weight.shape))
        return proto


def densify(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse initializer (COO: linear or per-axis int64 indices) as a dense array [sparse.dims]."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(math.prod(sparse.dims), values.dtype)
    if indices.ndim > 1:
        indices = np.ravel_multi_index(tuple(indices.T), tuple(sparse.dims)) if len(indices) else np.zeros(0, np.int64)
    dense[indices] = values
    return dense.reshape(tuple(sparse.dims))


def _from_graphsurgeon(graph: object) -> ModelProto:
    import onnx_graphsurgeon as gs

    if not isinstance(graph, gs.Graph):
        raise ModelError(f"a model is a path, a ModelProto, bytes or an onnx_graphsurgeon.Graph, not {type(graph).__name__}")
    exported: ModelProto = gs.export_onnx(graph)
    return exported


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of a control-flow node."""
    if not node.domain and node.op_type not in CONTROL_FLOW:
        return  # looking at attributes is slow, and nearly every node is one of these
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def captured(node: NodeProto) -> set[str]:
    """Outer values that the bodies of a node read without naming them as inputs."""
    names: set[str] = set()
    for graph in subgraphs(node):
        own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
        own |= {t.values.name for t in graph.sparse_initializer}
        used = {v.name for v in graph.output}
        for inner in graph.node:
            used |= set(inner.input) | captured(inner)
            own |= set(inner.output)
        names |= used - own - {""}
    return names


class NodeView:
    """A node as a rule sees it: operator, attributes, concrete shapes and small constant inputs.

    Shapes are those of one probe of the model, in which every dynamic size has some definite value.
    """

    __slots__ = (
        "_attributes",
        "_constants",
        "_dynamic",
        "_shapes",
        "domain",
        "inputs",
        "name",
        "op",
        "opset",
        "outputs",
    )

    def __init__(
        self,
        node: NodeProto,
        shapes: Mapping[str, Shape | None],
        constants: Mapping[str, Array],
        dynamic: Mapping[str, tuple[bool, ...]],
        opset: int,
    ) -> None:
        self.op, self.domain, self.opset = node.op_type, domain_of(node), opset
        self.inputs: Sequence[str] = tuple(node.input)
        self.outputs: Sequence[str] = tuple(node.output)
        self.name = node.name or f"{node.op_type}({', '.join(node.output)})"
        self._shapes, self._constants, self._dynamic = shapes, constants, dynamic
        self._attributes = node.attribute

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute; text is decoded."""
        for attribute in self._attributes:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def has(self, position: int) -> bool:
        """Whether an input is present."""
        return position < len(self.inputs) and bool(self.inputs[position])

    def shape(self, position: int = 0) -> Shape:
        """The shape of an input that is present."""
        shape = self._shapes[self.inputs[position]]
        assert shape is not None  # noqa: S101 - coupling asks no rule about a node with an unknown shape
        return shape

    def out(self, position: int = 0) -> Shape:
        """The shape of an output."""
        shape = self._shapes[self.outputs[position]]
        assert shape is not None  # noqa: S101 - as above
        return shape

    def is_dynamic(self, axis: int, position: int = 0) -> bool:
        """Whether the size of an axis of an input changes from call to call."""
        flags = self._dynamic.get(self.inputs[position])
        return flags is not None and flags[axis]

    def const(self, position: int) -> Array | None:
        """The value of an input that is a small constant (or is known from the probe), else ``None``."""
        return self._constants.get(self.inputs[position]) if self.has(position) else None

    def axis(self, default: int = 0, name: str = "axis") -> int:
        """An axis attribute, counted from the front of the first input."""
        return int(self.attr(name, default)) % max(len(self.shape()), 1)

    def ints(self, name: str, position: int) -> list[int] | None:
        """Integers given by an attribute (older operator sets) or by a constant input (newer ones)."""
        value = self.attr(name)
        if value is None:
            value = self.const(position)
        return None if value is None else [int(v) for v in np.asarray(value).reshape(-1)]
