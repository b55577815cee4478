"""Checks what a model file says of itself, before anything believes it.

One walk over graphs, nodes and tensors, which reads no weight. It refuses what no reading makes sense of: sizes that no data
stands behind, values that nobody makes, operators without what they need. What ONNX Runtime takes although the standard does
not (nodes out of order, constants with one name twice, attributes that nobody reads) passes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.node import STANDARD_DOMAINS, subgraphs
from onnxprune.ir.trips import demand_ends
from onnxprune.ir.weights import PACKED, external_path

__all__ = ["at_most", "validate"]

_ALWAYS = 1 << 28
"""Bytes that may always be made of a file, 256 MiB."""
_RATIO = 1024
"""How many times the bytes that something is made of it may have beyond that."""
_LARGEST_INPUT = 1 << 32
"""Bytes of one sample of an input, 4 GiB."""
_LAST_OPSET = (1 << 31) - 1
_BODIES = {"If": ("then_branch", "else_branch"), "Loop": ("body",), "Scan": ("body",)}
_TENSOR_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_SINGLE = onnx.defs.OpSchema.FormalParameterOption.Single


def at_most(nbytes: int) -> int:
    """The bytes that may be made of so many bytes of a file; a few numbers in it can ask for any amount."""
    return max(_ALWAYS, _RATIO * nbytes)


def validate(proto: ModelProto, file: Path | None) -> None:
    """Check a model as it was read.

    Args:
        proto: the model; external data is where it is.
        file: the model's; external data lies beside it.

    Raises:
        ModelError: it contradicts itself; the message names node or tensor.
    """
    _Validation(proto, file).check()
    demand_ends(proto.graph, file)


@dataclass(frozen=True)
class _Scope:
    """The values that nodes of a graph may read."""

    names: frozenset[str]
    outer: _Scope | None = None

    def has(self, name: str) -> bool:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return True
            scope = scope.outer
        return False


class _Validation:
    """One walk over a model."""

    def __init__(self, proto: ModelProto, file: Path | None) -> None:
        self.proto, self.file = proto, file
        self.opsets = {_domain(opset.domain): opset.version for opset in proto.opset_import}
        self.functions = {(_domain(one.domain), one.name) for one in proto.functions}

    def check(self) -> None:
        self._opsets(self.opsets)
        for value in self.proto.graph.input:
            self._input(value)
        self._graph(self.proto.graph, None)
        seen: set[tuple[str, str, str]] = set()
        for function in self.proto.functions:
            key = _domain(function.domain), function.name, function.overload
            if key in seen:
                raise ModelError(f"there are two functions {function.name!r} of domain {function.domain!r}")
            seen.add(key)
            opsets = {**self.opsets, **{_domain(opset.domain): opset.version for opset in function.opset_import}}
            self._opsets(opsets)
            made = [name for node in function.node for name in node.output if name]
            _once([*function.input, *made], f"function {function.name!r}")
            self._nodes(function.node, _Scope(frozenset([*function.input, *made])), opsets, inside=True)
            for name in function.output:
                if name not in {*made, *function.input}:
                    raise ModelError(f"no node makes output {name!r} of function {function.name!r}")
        self._no_circle()

    def _opsets(self, opsets: Mapping[str, int]) -> None:
        """Versions of operator sets are numbers from 1 that ONNX can look up."""
        for domain, version in opsets.items():
            if not 1 <= version <= _LAST_OPSET:
                raise ModelError(f"operator set {version} of domain {domain or 'ai.onnx'!r} does not exist")

    def _no_circle(self) -> None:
        """No function may call itself."""
        calls = {
            (_domain(one.domain), one.name): {(_domain(node.domain), node.op_type) for node in _all_nodes(one.node)}
            for one in self.proto.functions
        }
        done: set[tuple[str, str]] = set()
        while calls.keys() - done:
            ready = {key for key, called in calls.items() if key not in done and called & self.functions <= done}
            if not ready:
                raise ModelError(f"function {min(calls.keys() - done)[1]!r} calls itself, in a circle")
            done |= ready

    def _input(self, value: onnx.ValueInfoProto) -> None:
        kind = value.type.WhichOneof("value")
        if not value.name or kind is None:
            raise ModelError(f"graph input {value.name!r} has no {'type' if value.name else 'name'}")
        if kind != "tensor_type":
            return
        tensor = value.type.tensor_type
        if tensor.elem_type not in _TENSOR_TYPES:
            raise ModelError(f"graph input {value.name!r} has no element type that exists ({tensor.elem_type})")
        sizes = [dim.dim_value for dim in tensor.shape.dim if dim.dim_value > 0]
        if _nbytes(tensor.elem_type, math.prod(sizes)) > _LARGEST_INPUT:
            raise ModelError(f"graph input {value.name!r} has {'x'.join(map(str, sizes))} elements: more than any machine runs")

    def _graph(self, graph: GraphProto, outer: _Scope | None) -> None:
        where = "the graph" if outer is None else f"body {graph.name!r}"
        inputs = [value.name for value in graph.input]
        outputs = [value.name for value in graph.output]
        values = [name for value in (*graph.input, *graph.output, *graph.value_info) for name in (value.name, *_dim_names(value))]
        _texts(values, f"a value of {where}")
        for tensor in graph.initializer:
            _texts([tensor.name], "an initializer")
            if not tensor.name:
                raise ModelError(f"an initializer of {where} has no name")
            self._tensor(tensor, f"initializer {tensor.name!r}")
        for sparse in graph.sparse_initializer:
            self._sparse(sparse, f"sparse initializer {sparse.values.name!r}")
        constants = {one.name for one in graph.initializer} | {one.values.name for one in graph.sparse_initializer}
        made = [name for node in graph.node for name in node.output if name]
        _once([*inputs, *made], where)
        both = constants.intersection(made)
        if both:
            raise ModelError(f"{min(both)!r} is a constant of {where}, and a node makes it again")
        scope = _Scope(frozenset([*inputs, *made, *constants]), outer)
        self._nodes(graph.node, scope, self.opsets, inside=False)
        for name in outputs:
            if not scope.has(name):
                raise ModelError(f"nothing makes output {name!r} of {where}")

    def _nodes(self, nodes: Iterable[NodeProto], scope: _Scope, opsets: dict[str, int], *, inside: bool) -> None:
        for node in nodes:
            where = _title(node)
            _texts((node.name, node.op_type, node.domain, *node.input, *node.output), where)
            for name in node.input:
                if name and not scope.has(name):
                    raise ModelError(f"{where} reads {name!r}, which nothing makes")
            self._node(node, opsets, where, inside=inside)
            for body in subgraphs(node):
                self._graph(body, scope)

    def _node(self, node: NodeProto, opsets: dict[str, int], where: str, *, inside: bool) -> None:
        domain = _domain(node.domain)
        if not node.op_type:
            raise ModelError(f"{where} has no operator")
        if not any(node.output):
            raise ModelError(f"{where} has no output")
        if domain not in opsets:
            raise ModelError(f"{where} is of domain {domain or 'ai.onnx'!r}, which the model does not import")
        seen: set[str] = set()
        for attribute in node.attribute:
            self._attribute(attribute, seen, where, inside=inside)
        if (domain, node.op_type) in self.functions:
            self._call(node, where)
        elif domain in STANDARD_DOMAINS:
            _check_operator(node, seen, opsets[domain], where)

    def _call(self, node: NodeProto, where: str) -> None:
        """A call of a function passes at most what that takes, and has no more outputs than that."""
        key = _domain(node.domain), node.op_type, node.overload
        for function in (one for one in self.proto.functions if (_domain(one.domain), one.name, one.overload) == key):
            if len(node.input) > len(function.input):
                raise ModelError(f"{where} has {len(node.input)} inputs; its function takes {len(function.input)}")
            if len(node.output) > len(function.output):
                raise ModelError(f"{where} has {len(node.output)} outputs; its function makes {len(function.output)}")

    def _attribute(self, attribute: AttributeProto, seen: set[str], where: str, *, inside: bool) -> None:
        name = attribute.name
        _texts([name], f"an attribute of {where}")
        if not name or name in seen:
            raise ModelError(f"{where} has an attribute {'twice: ' + repr(name) if name else 'without a name'}")
        seen.add(name)
        if attribute.ref_attr_name and not inside:
            raise ModelError(f"attribute {name!r} of {where} refers to a function's attribute, outside of any function")
        title = f"attribute {name!r} of {where}"
        if attribute.type == AttributeProto.TENSOR and not attribute.ref_attr_name:
            self._tensor(attribute.t, title)
        elif attribute.type == AttributeProto.SPARSE_TENSOR:
            self._sparse(attribute.sparse_tensor, title)
        elif attribute.type == AttributeProto.STRING:
            try:
                attribute.s.decode()
            except UnicodeDecodeError as error:
                raise ModelError(f"{title} is not text (UTF-8)") from error
        for tensor in attribute.tensors:
            self._tensor(tensor, title)

    def _tensor(self, tensor: TensorProto, title: str) -> None:
        if tensor.data_type not in _TENSOR_TYPES:
            raise ModelError(f"{title} has an element type that does not exist ({tensor.data_type})")
        if any(size < 0 for size in tensor.dims):
            raise ModelError(f"{title} has a negative size: {list(tensor.dims)}")
        size = math.prod(tensor.dims)
        nbytes = _nbytes(tensor.data_type, size)
        if tensor.data_location == TensorProto.EXTERNAL:
            self._external(tensor, nbytes, title)
            return
        if tensor.HasField("raw_data") and tensor.data_type != TensorProto.STRING:
            if len(tensor.raw_data) != nbytes:
                raise ModelError(f"{title} has {len(tensor.raw_data)} bytes of data, and needs {nbytes}: it is truncated")
            return
        given = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
        if given != _entries(tensor.data_type, size):
            raise ModelError(f"{title} has data for {given} elements, and its sizes are {list(tensor.dims)}: it is truncated")

    def _external(self, tensor: TensorProto, nbytes: int, title: str) -> None:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = external_path(entries.get("location", ""), self.file, tensor.name)
        numbers = {}
        for key in ("offset", "length"):
            text = entries.get(key, "0")
            if not (text.isascii() and text.isdigit() and len(text) < 20):
                raise ModelError(f"{title} has external data whose {key} is no number of bytes: {text[:40]!r}")
            numbers[key] = int(text)
        if "length" in entries and numbers["length"] < nbytes:
            raise ModelError(f"{title} has {numbers['length']} bytes of external data, and needs {nbytes}")
        if path.stat().st_size < numbers["offset"] + nbytes:
            raise ModelError(
                f"external data {path} ends before tensor {tensor.name!r} does; the file is truncated: copy it again"
            )

    def _sparse(self, sparse: SparseTensorProto, title: str) -> None:
        values, indices, dims = sparse.values, sparse.indices, list(sparse.dims)
        self._tensor(values, title)
        self._tensor(indices, f"the indices of {title}")
        size, count = math.prod(dims), math.prod(values.dims)
        if any(one < 0 for one in dims):
            raise ModelError(f"{title} has a negative size: {dims}")
        if _nbytes(values.data_type, size) > at_most(_nbytes(values.data_type, count)):
            raise ModelError(f"{title} has {'x'.join(map(str, dims))} elements, and values for {count} of them: too many")
        linear, pairs = [count], [count, len(dims)]
        if indices.data_type != TensorProto.INT64 or len(values.dims) != 1 or list(indices.dims) not in (linear, pairs):
            raise ModelError(f"{title} has {list(values.dims)} values and {list(indices.dims)} indices, which do not fit")
        array = numpy_helper.to_array(indices)
        if count and ((array < 0).any() or (array >= (size if array.ndim == 1 else dims)).any()):
            raise ModelError(f"{title} has an index outside of {dims}")


def _check_operator(node: NodeProto, attributes: Collection[str], opset: int, where: str) -> None:
    """A node of the standard has the inputs, outputs and attributes that its operator needs, of the right types."""
    operator = _operator(node.op_type, opset)
    if operator is None:
        return  # newer than the installed onnx, or a custom operator without a domain
    if not operator.fewest <= len(node.input) <= operator.most:
        raise ModelError(f"{where} has {len(node.input)} inputs; it takes {operator.fewest} to {operator.most}")
    if len(node.output) > operator.outputs:
        raise ModelError(f"{where} has {len(node.output)} outputs; it makes at most {operator.outputs}")
    for position in operator.required:
        if position < len(node.input) and not node.input[position]:
            raise ModelError(f"{where} has no input {position}")
    for attribute in node.attribute:
        wanted = operator.types.get(attribute.name)
        if wanted is not None and attribute.type != wanted:
            raise ModelError(f"attribute {attribute.name!r} of {where} is not {AttributeProto.AttributeType.Name(wanted)}")
    for name in operator.needs:
        if name not in attributes:
            raise ModelError(f"{where} has no attribute {name!r}")
    if node.op_type == "Constant" and len(node.attribute) != 1:
        raise ModelError(f"{where} has {len(node.attribute)} attributes instead of one value")
    _check_bodies(node, where)


def _check_bodies(node: NodeProto, where: str) -> None:
    """The bodies of control flow take and make as many values as their node passes."""
    bodies = {attribute.name: attribute.g for attribute in node.attribute if attribute.name in _BODIES.get(node.op_type, ())}
    scanned = next((attribute.i for attribute in node.attribute if attribute.name == "num_scan_inputs"), 0)
    for name, body in bodies.items():
        constants = {tensor.name for tensor in body.initializer}
        taken = sum(value.name not in constants for value in body.input)  # old models list constants as inputs, too
        inputs, outputs = 0, len(node.output)
        if node.op_type == "Loop":
            inputs, outputs = len(node.input), len(node.output) + 1
        elif node.op_type == "Scan":
            inputs = taken if len(node.input) - taken == 1 else len(node.input)  # operator set 8 has one more
            if not 1 <= scanned <= len(node.input):
                raise ModelError(f"{where} scans {scanned} of its {len(node.input)} inputs")
        if taken != inputs:
            raise ModelError(f"{name} of {where} takes {taken} values, and gets {inputs}")
        if len(body.output) != outputs:
            raise ModelError(f"{name} of {where} makes {len(body.output)} values, and {outputs} are needed")


@dataclass(frozen=True, slots=True)
class _Operator:
    """What an operator takes.

    Attributes:
        fewest: inputs.
        most: inputs.
        outputs: at most.
        required: positions of inputs that must be there.
        types: of attributes.
        needs: attributes that must be there.
    """

    fewest: int
    most: int
    outputs: int
    required: tuple[int, ...]
    types: dict[str, int]
    needs: tuple[str, ...]


@functools.cache
def _operator(op: str, opset: int) -> _Operator | None:
    if not onnx.defs.has(op) or opset > onnx.defs.onnx_opset_version():
        return None
    try:
        schema: Any = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None
    required = tuple(at for at, one in enumerate(schema.inputs) if one.option == _SINGLE)
    types = {name: int(attribute.type.value) for name, attribute in schema.attributes.items()}
    needs = tuple(name for name, attribute in schema.attributes.items() if attribute.required)
    return _Operator(schema.min_input, schema.max_input, schema.max_output, required, types, needs)


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from _all_nodes(body.node)


def _dim_names(value: onnx.ValueInfoProto) -> Iterator[str]:
    return (dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_param"))


def _texts(names: Iterable[object], where: str) -> None:
    """Names are text; protobuf gives bytes where they are none."""
    for name in names:
        if not isinstance(name, str):
            raise ModelError(f"{where} has a name that is not text (UTF-8), {name!r}: the file is damaged; copy it again")


def _once(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelError(f"two inputs or nodes of {where} make {name!r}")
        seen.add(name)


def _domain(domain: str) -> str:
    return "" if domain in STANDARD_DOMAINS else domain


def _title(node: NodeProto) -> str:
    return f"{node.op_type} node {node.name or next(iter(node.output), '')!r}"


def _nbytes(dtype: int, size: int) -> int:
    """Bytes of raw data; strings have none."""
    if dtype == TensorProto.STRING:
        return 0
    bits = PACKED.get(dtype) or 8 * int(helper.tensor_dtype_to_np_dtype(dtype).itemsize)
    return (size * bits + 7) // 8


def _entries(dtype: int, size: int) -> int:
    """Entries of the typed field; complex numbers have two, and what is packed shares bytes."""
    if dtype in {TensorProto.COMPLEX64, TensorProto.COMPLEX128}:
        return 2 * size
    return _nbytes(dtype, size) if dtype in PACKED else size
