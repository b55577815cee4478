"""An ONNX model as the compiler sees it: a graph without weights, and weights that are read when they are needed.

`Model` keeps the protobuf as the truth, so what a pass does not touch is written back as it was read; only functions are
inlined and nodes sorted. Weights live beside the graph as `Weight` handles: analyses look at shapes and types without loading a
byte of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, external_data_helper, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.folders import model_in
from onnxprune.ir.node import FOLLOWED, STANDARD_DOMAINS, captured, defined, domain_of, every_body, every_node, is_followed
from onnxprune.ir.plain import make_plain
from onnxprune.ir.sizes import GivenSizes, given_sizes, is_name, two_sized, unname, written_sizes
from onnxprune.ir.unchanged import note
from onnxprune.ir.validate import validate
from onnxprune.ir.weights import FLOATS, Weight, densify
from onnxprune.options.documents import absent
from onnxprune.options.sizes import check_shape

__all__ = ["DEFAULTS", "Model", "ModelSource", "data_files", "load_proto", "pinned_sizes"]

DEFAULTS = 4
"""The version of the file format from which an initializer need not be an input, and one that is gives a default."""
_MAY_HOLD = frozenset({"Constant", "ConstantOfShape"})
"""Operators that may make floating-point weights of nothing else than what they hold."""

ModelSource = Any
"""A path of a file or of a folder with a model, a ``ModelProto``, its bytes, or an ``onnx_graphsurgeon.Graph``."""


def load_proto(path: Path) -> ModelProto:
    """Read a model file, leaving external data where it is.

    Raises:
        ModelError: there is no such file, or it is not a whole ONNX model.
    """
    try:
        if not path.is_file():
            if path.is_symlink() and not path.exists():
                raise ModelError(f"{path}: is a link that leads nowhere")
            is_folder = "is a folder, not an .onnx file, and has none in it: name the file"
            raise ModelError(f"{path}: {is_folder if path.exists() else absent(path, '.onnx')}")
        proto = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except ModelError:
        raise
    except Exception as error:  # the parser raises another type with every protobuf backend
        raise ModelError(f"{path}: not an ONNX model, or truncated: export or copy it again") from error
    if not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{path}: not an ONNX model (no graph in it): export or copy it again")
    return proto


def data_files(path: Path) -> set[Path]:
    """The files beside a model that hold its weights; none if it is no model."""
    try:
        return _data_files(load_proto(path), path) if path.is_file() else set()
    except ModelError:
        return set()


def _data_files(proto: ModelProto, path: Path) -> set[Path]:
    external = (tensor for tensor in proto.graph.initializer if tensor.data_location == TensorProto.EXTERNAL)
    return {path.parent / external_data_helper.ExternalDataInfo(tensor).location for tensor in external}


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


def _load_external(body: GraphProto, file: Path | None) -> None:
    """Read external data of the constants of a body into memory: who gets the graph need not know where its file lies."""
    for tensor in body.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(Weight(tensor.name, tensor, file=file).array(), tensor.name))


class Model:
    """A graph and its weights.

    Attributes:
        proto: the model without initializers, except those of bodies that no pass has moved out; passes edit it.
        weights: every other initializer, by name. In files older than version 4 of the format each is listed as an input, too:
            that is taken away when such a file is read, and written again. From then on it is a choice; see `overridable`.
        name: what messages call it: its path, or ``<model>``.
        external: whether it came with external data.
        sparse: the weights that came as sparse tensors.
        file_bytes: what it was read from takes on disk, external data included; 0 for a model that no file is known of.
        sizes: what is known of the sizes of open axes of its inputs.
    """

    def __init__(
        self,
        proto: ModelProto,
        weights: dict[str, Weight],
        name: str,
        *,
        external: bool = False,
        sparse: frozenset[str] = frozenset(),
        file_bytes: int = 0,
        sizes: GivenSizes | None = None,
    ) -> None:
        self.proto, self.weights, self.name = proto, weights, name
        self.external, self.sparse, self.file_bytes = external, sparse, file_bytes
        self.sizes = sizes or GivenSizes()

    @classmethod
    def of(cls, source: ModelSource, shape: Sequence[str] = ()) -> Model:
        """The model in a path, a ``ModelProto``, bytes or an ``onnx_graphsurgeon.Graph``; the source is never changed.

        Its functions are inlined, and its nodes are in an order in which they can run: see `make_plain`.

        Args:
            source: see there.
            shape: sizes of inputs, as users write them: ``image=?x3x224x224``, ``height=224``.

        Raises:
            ModelError: it is not a model that can be read.
            OptionError: ``shape`` does not fit its inputs.
        """
        model = cls._of(source)
        if shape:
            check_shape(shape)
            model = model.believing(written_sizes(shape))
            model.sizes = given_sizes(shape, model.inputs)
        return model

    @classmethod
    def _of(cls, source: ModelSource) -> Model:
        if isinstance(source, Model):
            return source.copy()
        if isinstance(source, str | Path):
            path = model_in(Path(source))
            note(path)
            return cls._from_proto(load_proto(path), str(path), path)
        if isinstance(source, bytes):
            try:
                source = ModelProto.FromString(source)
            except Exception as error:
                raise ModelError("<bytes>: not an ONNX model, or truncated") from error
        elif not isinstance(source, ModelProto):
            source = _from_graphsurgeon(source)
        return cls._from_proto(source, "<model>", None)

    @classmethod
    def _from_proto(cls, proto: ModelProto, name: str, file: Path | None) -> Model:
        newest = onnx.defs.onnx_opset_version()
        for opset in proto.opset_import:
            if opset.domain in STANDARD_DOMAINS and opset.version > newest:
                raise ModelError(
                    f"{name}: operator set {opset.version} is newer than the installed onnx knows ({newest}): "
                    "run pip install -U onnx onnxruntime"
                )
        try:
            validate(proto, file)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error
        skeleton = _without(proto, "graph")
        skeleton.graph.CopyFrom(_without(proto.graph, "initializer", "sparse_initializer"))
        weights = {t.name: Weight(t.name, t, file=file) for t in proto.graph.initializer}
        for sparse in proto.graph.sparse_initializer:
            weights[sparse.values.name] = Weight(sparse.values.name, None, densify(sparse))
        if proto.ir_version < DEFAULTS:
            needed = [value for value in proto.graph.input if value.name not in weights]
            del skeleton.graph.input[:]
            skeleton.graph.input.extend(needed)
        for body in every_body(skeleton.graph):
            _load_external(body, file)
        make_plain(skeleton, name)
        values = (*skeleton.graph.input, *skeleton.graph.output, *skeleton.graph.value_info)
        unname(values, lambda symbol: not is_name(symbol))
        external = any(tensor.data_location == TensorProto.EXTERNAL for tensor in proto.graph.initializer)
        sparse = frozenset(one.values.name for one in proto.graph.sparse_initializer)
        taken = proto.ByteSize() if file is None else sum(part.stat().st_size for part in {file, *_data_files(proto, file)})
        return cls(skeleton, weights, name, external=external, sparse=sparse, file_bytes=taken)

    def believing(self, shapes: Mapping[str, Sequence[int | None]]) -> Model:
        """The model without the names of dimensions that have two sizes in an input; itself where there are none.

        Args:
            shapes: by input, what sizes it has; ``None`` where that is not known.
        """
        lost = two_sized({value.name: self.sizes.axes(value) for value in self.inputs}, shapes)
        if not lost:
            return self
        model = self.copy()
        unname((*model.graph.input, *model.graph.output, *model.graph.value_info), lost.__contains__)
        return model

    def copy(self) -> Model:
        """A model whose graph and set of weights can be changed without changing this one; the weights are shared."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        return Model(
            proto,
            dict(self.weights),
            self.name,
            external=self.external,
            sparse=self.sparse,
            file_bytes=self.file_bytes,
            sizes=self.sizes,
        )

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
    def inputs(self) -> list[ValueInfoProto]:
        """The graph inputs that a caller must feed, because no initializer provides them."""
        return [value for value in self.graph.input if value.name not in self.weights]

    @property
    def overridable(self) -> set[str]:
        """The initializers that a caller may replace, because they are inputs, too: a part of the interface."""
        return {value.name for value in self.graph.input if value.name in self.weights}

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of the graph, about what the file takes."""
        return int(self.proto.ByteSize()) + sum(weight.nbytes for weight in self.weights.values())

    @property
    def has_floats(self) -> bool:
        """Tell whether there are floating-point weights, or nodes and bodies that may hold some."""
        if any(weight.is_float for weight in self.weights.values()):
            return True
        inside = (tensor for body in every_body(self.graph) for tensor in body.initializer)
        return any(node.op_type in _MAY_HOLD for node in every_node(self.graph)) or any(t.data_type in FLOATS for t in inside)

    def consumers(self) -> dict[str, list[tuple[NodeProto, int]]]:
        """For each value the nodes that read it, in bodies too, with the input position; -1 for a body that is not followed."""
        found: dict[str, list[tuple[NodeProto, int]]] = {}
        for node in every_node(self.graph):
            for position, value in enumerate(node.input):
                if value:
                    found.setdefault(value, []).append((node, position))
            for value in captured(node) if node.op_type not in FOLLOWED or not is_followed(node) else ():
                found.setdefault(value, []).append((node, -1))
        return found

    def fresh_name(self, stem: str) -> str:
        """A name that no value of the graph or of a body in it has."""
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
        for body in every_body(self.graph):
            names.update(defined(body))
        return names

    def to_proto(self) -> ModelProto:
        """The whole model, weights inside."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        for weight in self.weights.values():
            weight.append_to(proto.graph.initializer)
        self.list_constants(proto)
        return proto

    def list_constants(self, proto: ModelProto) -> None:
        """List the initializers as inputs of a protobuf of this model, if its version of the format demands it."""
        proto.graph.input.extend(self.listed(self.weights.values()))

    def listed(self, weights: Iterable[Weight]) -> Iterator[ValueInfoProto]:
        """The inputs that a file of this model's version of the format lists initializers as; none from version 4 on."""
        for weight in weights if self.proto.ir_version < DEFAULTS else ():
            yield helper.make_tensor_value_info(weight.name, weight.dtype, weight.shape)

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


def pinned_sizes(model: Model) -> dict[str, str]:
    """For each vector ``Where(static, constant, computed)`` the constant."""
    wheres = (node for node in every_node(model.graph) if node.op_type == "Where" and not domain_of(node))
    return {n.output[0]: n.input[1] for n in wheres if n.input[0] in model.weights and n.input[1] in model.weights}


def _from_graphsurgeon(graph: object) -> ModelProto:
    import onnx_graphsurgeon as gs

    if not isinstance(graph, gs.Graph):
        raise ModelError(f"a model is a path, a ModelProto, bytes or an onnx_graphsurgeon.Graph, not {type(graph).__name__}")
    exported: ModelProto = gs.export_onnx(graph)
    return exported
