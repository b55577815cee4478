"""Give layers with many zeros the nodes that sparse kernels compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import NodeProto, TensorProto, helper

from onnxprune.ir.inferred import infer_shapes, typed_values
from onnxprune.ir.model import Model
from onnxprune.ir.node import domain_of
from onnxprune.passes.base import Pass, Progress, silent
from onnxprune.passes.bodies import replace_all
from onnxprune.sparse.kernel_nodes import (
    DOMAIN,
    HEIGHTS,
    VERSION,
    Fusion,
    block_height,
    functions,
    is_plain,
    node_for,
    rows_of,
)

__all__ = ["Kernelled", "UseKernels", "WithKernels"]

_FUNCTIONS = 8
"""The first version of the file format with functions."""
_CLIP_INPUTS = 11
"""The operator set from which the bounds of Clip are inputs."""
_PAYS = 0.5
"""Time of a kernel over that of the dense one, by the weights that are stored alone, up to which a layer gets it."""
_NARROW = 16
"""Input channels and outputs that a layer has at least: with fewer, dense kernels win."""


@dataclass(frozen=True, slots=True)
class Kernelled:
    """A layer with a sparse kernel.

    Attributes:
        node: its first node.
        weight: the name of its weight.
        shape: of the weight.
        operator: in our domain.
        pattern: blocks of outputs x inputs, as ``4x1``; ``unstructured`` for 1x1.
        stored: the share of the weight that the kernel reads.
    """

    node: str
    weight: str
    shape: tuple[int, ...]
    operator: str
    pattern: str
    stored: float


@dataclass(frozen=True, slots=True)
class WithKernels:
    """Attributes:
    model: with nodes of our domain, and functions for them.
    layers: those that have kernels.
    """

    model: Model
    layers: tuple[Kernelled, ...]


@dataclass(frozen=True)
class UseKernels(Pass):
    """Each layer that a sparse kernel computes faster is one node of our domain, with the residual and activation behind it.

    Layers in bodies, with few channels, or with few zeros stay as they are. The model has a function for each kind of node, with
    what was there before. Weights stay where they are; encode them afterwards.
    """

    def run(self, model: Model, tell: Progress = silent) -> WithKernels:
        """The model with such nodes; ``model`` itself where no layer gets one."""
        fuser = _Fuser(model.copy())
        found: list[Kernelled] = []
        for node in fuser.nodes:
            if is_plain(node) and node.input[1] in fuser.weights:
                tell(f"looking for blocks of zeros in {node.input[1]}")
                found += fuser.replaced(node)
        if not found:
            return WithKernels(model, ())
        return WithKernels(fuser.finished(), tuple(found))


class _Fuser:
    """Replaces nodes of a graph one after the other."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._readers = model.consumers()
        self._kept = {value.name for value in model.graph.output}
        self.weights = {
            name: weight
            for name, weight in model.weights.items()
            if weight.dtype == TensorProto.FLOAT and name not in model.overridable
        }
        graph = infer_shapes(model.skeleton(), model.name)
        self._shapes = {value.name: value.type.tensor_type.shape for value in typed_values(graph)}
        self._own = {id(node): node for node in model.graph.node}
        self._nodes: dict[int, NodeProto | None] = {}
        self._used: list[Fusion] = []

    def replaced(self, node: NodeProto) -> Iterator[Kernelled]:
        """The layer of a node, if a kernel pays for it; the node becomes one of our domain."""
        weight = self.weights[node.input[1]]
        transposed = any(one.name == "transB" and one.i for one in node.attribute)
        if len(weight.shape) not in ((3, 4) if node.op_type == "Conv" else (2,)) or not self._is_biased(node):
            return
        rows = rows_of(weight.array(), node.op_type, transposed=transposed)
        if min(len(rows), weight.shape[1 if node.op_type == "Conv" else 0]) < _NARROW:
            return
        height, stored = block_height(rows)
        if stored * HEIGHTS[height] > _PAYS:
            return
        last, fusion, inputs = self._chain(node)
        self._nodes |= {id(node): None, id(last): node_for(fusion, node, inputs, last.output[0])}
        self._used.append(fusion)
        pattern = "unstructured" if height == 1 else f"{height}x1"
        yield Kernelled(node.name or node.output[0], weight.name, tuple(weight.shape), fusion.name, pattern, stored)

    @property
    def nodes(self) -> list[NodeProto]:
        """Those that were there."""
        return list(self._own.values())

    def finished(self) -> Model:
        """The model with what was replaced."""
        model = self.model
        nodes = [kept for node in model.graph.node if (kept := self._nodes.get(id(node), node)) is not None]
        replace_all(model.graph.node, nodes)
        made = {name for node in nodes for name in node.output}
        recorded = [value for value in model.graph.value_info if value.name in made]
        del model.graph.value_info[:]
        model.graph.value_info.extend(recorded)
        model.proto.functions.extend(functions(self._used, model.proto))
        model.proto.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
        model.proto.ir_version = max(model.proto.ir_version, _FUNCTIONS)
        return model

    def _is_biased(self, node: NodeProto) -> bool:
        """Whether a bias, where there is one, has a number for each output, as kernels take it."""
        name = node.input[2] if len(node.input) > 2 else ""
        return not name or len(self._shape(name)) == 1

    def _chain(self, node: NodeProto) -> tuple[NodeProto, Fusion, list[str]]:
        """The last node of a layer, what the layer is, and what it reads."""
        fusion, last = Fusion(node.op_type), node
        inputs = [*node.input, ""][: len(fusion.inputs)] if len(node.input) < len(fusion.inputs) else list(node.input)
        after = self._next(last)
        other = self._added(after, last.output[0], node)
        if after is not None and other:
            fusion, last = Fusion(fusion.operator, adds=True), after
            inputs.append(other)
            self._nodes[id(after)] = None
            after = self._next(last)
        if after is not None and after.op_type == "Relu":
            fusion, last = Fusion(fusion.operator, fusion.adds, "Relu"), after
        elif after is not None and after.op_type == "Clip" and fusion.operator == "Conv" and self.model.opset >= _CLIP_INPUTS:
            fusion, last = Fusion(fusion.operator, fusion.adds, "Clip"), after
            inputs += [*after.input[1:], "", ""][:2]
        return last, fusion, inputs

    def _next(self, node: NodeProto) -> NodeProto | None:
        """The one node that reads a value, if it is in the graph itself, as its first input or an addend, and not replaced."""
        readers = self._readers.get(node.output[0], [])
        if len(readers) != 1 or node.output[0] in self._kept:
            return None
        after, position = readers[0]
        free = id(after) in self._own and id(after) not in self._nodes
        usable = not domain_of(after) and (position == 0 or after.op_type == "Add")
        return after if free and usable else None

    def _added(self, add: NodeProto | None, value: str, node: NodeProto) -> str:
        """What an ``Add`` adds to a value, if kernels can; else nothing."""
        if add is None or add.op_type != "Add" or node.op_type == "Gemm":
            return ""
        other = add.input[1] if add.input[0] == value else add.input[0]
        if node.op_type == "MatMul":
            outputs = self.weights[node.input[1]].shape[1]
            return other if other in self.weights and self.weights[other].shape == (outputs,) else ""
        shape = self._shape(value)
        return other if shape and None not in shape and shape == self._shape(other) else ""

    def _shape(self, name: str) -> list[int | str | None]:
        """The sizes of a value, symbols for those that are open; empty where nothing is known."""
        if name in self.model.weights:
            return list(self.model.weights[name].shape)
        dims = self._shapes[name].dim if name in self._shapes else []
        return [dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in dims]
