"""Give layers with many zeros the nodes that sparse kernels compute."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from onnxprune.ir.inferred import infer_shapes, typed_values
from onnxprune.ir.model import Model
from onnxprune.ir.node import domain_of
from onnxprune.ir.weights import Weight
from onnxprune.latency.timer import Timer
from onnxprune.passes.base import Pass, Progress, silent
from onnxprune.passes.bodies import replace_all
from onnxprune.shapes.candidates import binding_candidates
from onnxprune.shapes.probes import shapes_at
from onnxprune.sparse.kernel_nodes import (
    DOMAIN,
    HEIGHTS,
    VERSION,
    Fusion,
    KernelLayer,
    block_height,
    functions,
    is_plain,
    is_transposed,
    node_for,
    rows_of,
)

__all__ = ["PAYS", "UseKernels", "WithKernels"]

_FUNCTIONS = 8
"""The first version of the file format with functions."""
_CLIP_INPUTS = 11
"""The operator set from which the bounds of Clip are inputs."""
PAYS = 0.5
"""Time of a kernel over that of the dense one, by the weights that are stored alone, up to which a layer gets it."""
_COPIES = 8
"""Of a layer that are timed side by side, at most: eight of 600 kB fill the L2 cache of most processors."""
_NARROW = 16
"""Input channels and outputs that a layer has at least: with fewer, dense kernels win."""


@dataclass(frozen=True, slots=True)
class WithKernels:
    """Attributes:
    model: with nodes of our domain, and functions for them.
    layers: those that have kernels.
    """

    model: Model
    layers: tuple[KernelLayer, ...]


@dataclass(frozen=True)
class UseKernels(Pass):
    """Each layer that a sparse kernel computes faster is one node of our domain, with the residual and activation behind it.

    Layers in bodies, with few channels, or with few zeros stay as they are. The model has a function for each kind of node, with
    what was there before. Weights stay where they are; encode them afterwards.

    Attributes:
        timer: times each distinct layer with its kernel and without, side by side with its like, at batch 1; one that is not
            faster stays as it is. ``None`` leaves it to the zeros.
        names: of the nodes that may have a kernel; ``None`` for all.
        known: the ratios of layers that were timed before; those that are timed are added, so that one pass runs on many forms
            of a model and times no layer twice.
    """

    timer: Timer | None = None
    names: Collection[str] | None = None
    known: dict[str, float] = field(default_factory=dict)

    def run(self, model: Model, tell: Progress = silent) -> WithKernels:
        """The model with such nodes; ``model`` itself where no layer gets one."""
        fuser = _Fuser(model.copy(), self.timer, self.known)
        found: list[KernelLayer] = []
        for node in fuser.nodes:
            wanted = self.names is None or node.name in self.names
            if wanted and is_plain(node) and node.input[1] in fuser.weights:
                tell(f"looking at the zeros of {node.input[1]}")
                found += fuser.replaced(node)
        if not found:
            return WithKernels(model, ())
        return WithKernels(fuser.finished(), tuple(found))


class _Fuser:
    """Replaces nodes of a graph one after the other."""

    def __init__(self, model: Model, timer: Timer | None, known: dict[str, float]) -> None:
        self.model, self._timer, self._ratios = model, timer, known
        self._readers = model.consumers()
        self._kept = {value.name for value in model.graph.output}
        self.weights = {
            name: weight
            for name, weight in model.weights.items()
            if weight.dtype == TensorProto.FLOAT and name not in model.overridable
        }
        graph = infer_shapes(model.skeleton(), model.name)
        self._bytes = sum(weight.nbytes for weight in self.weights.values())
        self._shapes = {value.name: value.type.tensor_type.shape for value in typed_values(graph)}
        self._timed = shapes_at(model, next(binding_candidates(model, (1, 2)))[0]).shapes if timer else {}
        self._own = {id(node): node for node in model.graph.node}
        self._nodes: dict[int, NodeProto | None] = {}
        self._used: list[Fusion] = []

    def replaced(self, node: NodeProto) -> Iterator[KernelLayer]:
        """The layer of a node, if a kernel pays for it; the node becomes one of our domain."""
        weight = self.weights[node.input[1]]
        if len(weight.shape) not in ((3, 4) if node.op_type == "Conv" else (2,)) or not self._is_biased(node):
            return
        rows = rows_of(weight.array(), node.op_type, transposed=is_transposed(node))
        if min(len(rows), weight.shape[1 if node.op_type == "Conv" else 0]) < _NARROW:
            return
        height, stored = block_height(rows)
        if stored * HEIGHTS[height] > PAYS:
            return
        behind, fusion, inputs = self._chain(node)
        made = node_for(fusion, node, inputs, behind[-1].output[0])
        key = (fusion, weight.shape, made.attribute, self._sizes(node.input[0]), height, round(stored, 1))
        ratio = self._ratio(str(key), behind, made, fusion)
        if ratio is not None and ratio >= 1:
            return
        self._nodes |= {**dict.fromkeys(map(id, behind)), id(behind[-1]): made}
        self._used.append(fusion)
        yield KernelLayer(node.name or node.output[0], weight.name, tuple(weight.shape), fusion.name, height, stored, ratio)

    def _ratio(self, key: str, nodes: Sequence[NodeProto], made: NodeProto, fusion: Fusion) -> float | None:
        """The time of a layer with its kernel over that without; ``None`` where it is not known."""
        if self._timer is None or key in self._ratios:
            return self._ratios.get(key)
        axis = 1 if nodes[0].op_type == "Conv" or is_transposed(nodes[0]) else 0
        dense, fast = self._alone(nodes, axis), self._alone([made], axis)
        fast.functions.extend(functions([fusion], fast))
        fast.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
        if any(self._sizes(value.name) is None for value in dense.graph.input):
            return None
        before, after = self._timer([dense, fast])
        if before and after:
            self._ratios[key] = after / before
        return self._ratios.get(key)

    def _alone(self, nodes: Sequence[NodeProto], axis: int) -> ModelProto:
        """Nodes that follow each other as a model, several times side by side, each time with a matrix of its own.

        As in a network, a layer then finds its inputs in the cache and its weights further away, unless the network is small.
        The matrices are the one that there is, turned along the axis of its inputs: blocks of outputs stay.
        """
        made = {name for node in nodes for name in node.output}
        read = dict.fromkeys(name for node in nodes for name in node.input if name and name not in made)
        fed = [name for name in read if name not in self.model.weights]
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, self._sizes(name)) for name in fed]
        graph = helper.make_graph([], "layer", inputs, [])
        matrix = self.weights[nodes[0].input[1]]
        for name in read:
            if name in self.model.weights and name != matrix.name:
                self.model.weights[name].append_to(graph.initializer)
        for copy in range(min(_COPIES, -(-self._bytes // matrix.nbytes))):
            own = {name: f"{name} {copy}" if copy else name for name in (matrix.name, *made)}
            array = np.roll(matrix.array(), copy, axis)
            Weight(own[matrix.name], None, array).append_to(graph.initializer)
            for node in nodes:
                same = graph.node.add()
                same.CopyFrom(node)
                same.name = ""  # ONNX Runtime takes each name once
                replace_all(same.input, [own.get(name, name) for name in node.input])
                replace_all(same.output, [own[name] for name in node.output])
            graph.output.append(helper.make_tensor_value_info(own[nodes[-1].output[0]], TensorProto.FLOAT, None))
        opsets = [opset for opset in self.model.proto.opset_import if not opset.domain]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_FUNCTIONS)

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

    def _chain(self, node: NodeProto) -> tuple[list[NodeProto], Fusion, list[str]]:
        """The nodes of a layer, what the layer is, and what it reads."""
        fusion, nodes = Fusion(node.op_type), [node]
        inputs = [*node.input, *[""] * (len(fusion.inputs) - len(node.input))]
        after = self._next(node)
        other = self._added(after, node.output[0], node)
        if after is not None and other:
            fusion = Fusion(fusion.operator, adds=True)
            nodes.append(after)
            inputs.append(other)
            after = self._next(after)
        if after is not None and after.op_type == "Relu":
            fusion = Fusion(fusion.operator, fusion.adds, "Relu")
            nodes.append(after)
        elif after is not None and after.op_type == "Clip" and fusion.operator == "Conv" and self.model.opset >= _CLIP_INPUTS:
            fusion = Fusion(fusion.operator, fusion.adds, "Clip")
            nodes.append(after)
            inputs += [*after.input[1:], "", ""][:2]
        return nodes, fusion, inputs

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

    def _sizes(self, name: str) -> list[int] | None:
        """The sizes of a value at batch 1, open ones as the user or samples say, or as is usual; ``None`` if nobody knows."""
        shape = self._timed.get(name)
        return list(shape) if shape else None

    def _shape(self, name: str) -> list[int | str | None]:
        """The sizes of a value, symbols for those that are open; empty where nothing is known."""
        if name in self.model.weights:
            return list(self.model.weights[name].shape)
        dims = self._shapes[name].dim if name in self._shapes else []
        return [dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in dims]
