"""A graph as a list of steps, and the loop that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from onnx import AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto, helper
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.ir.node import captured, domain_of
from onnxprune.ir.weights import PACKED, Array, Weight, densify
from onnxprune.torch.registry import Node, Operator, find_operator
from onnxprune.torch.roles import Role, Use, role
from onnxprune.torch.tensors import dtype_of, to_tensor

__all__ = ["BodyPath", "CallContext", "Constant", "ConstantLocation", "Program", "ValueScope", "compiled", "constants_of"]

BodyPath = tuple[tuple[int, str], ...]
"""The path to a body: at each level the index of the node in its graph, and the name of the attribute."""
ConstantLocation = tuple[BodyPath, str]
"""The path to the graph that holds a constant, and its name there."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of a graph or of a body in it.

    Attributes:
        key: its name, made unique over all bodies.
        location: the graph that holds it, and its name there.
        shape: its dimensions.
        dtype: its ``TensorProto.DataType``.
        role: its part in training: weight, statistic or constant.
    """

    key: str
    location: ConstantLocation
    shape: tuple[int, ...]
    dtype: int
    role: Role


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call of a module: the function that returns its constants, and whether it is in train mode."""

    fetch: Callable[[str], Tensor]
    training: bool


@dataclass(slots=True)
class ProgramStep:
    """A node, its operator, and the names of the values that it reads and writes.

    Attributes:
        captured: outer values that its bodies read.
        last: values that no later step reads; they are freed after it.
        trains: follows the mode of the module; false where its statistics cannot be updated.
    """

    node: Node
    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...]
    last: tuple[str, ...] = ()
    trains: bool = True

    def compute(self, values: ValueScope, context: CallContext) -> None:
        """Add the outputs of the node to the values."""
        operator = self.operator
        inputs = [values[name] if name else None for name in self.inputs]
        options: dict[str, Any] = {"training": context.training and self.trains} if operator.trains else {}
        if self.node.bodies:
            options |= {"outer": values, "context": context}
        try:
            results = operator.function(self.node, *on_one_device(inputs, operator.host), **options)
        except ModelError as error:
            raise ModelError(f"node {self.node} cannot be computed in PyTorch: {error}") from error
        except Exception as error:
            shapes = ", ".join(str(list(x.shape)) if isinstance(x, Tensor) else "-" for x in inputs)
            error.add_note(f"in node {self.node} with inputs of shapes {shapes}")
            raise
        if not isinstance(results, tuple):
            results = (results,)
        values.update((name, value) for name, value in zip(self.outputs, results, strict=False) if name)


def on_one_device(inputs: list[Any], host: Iterable[int]) -> list[Any]:
    """The inputs of a node on one device: values that the host computed move to the device of the others."""
    devices = {x.device for at, x in enumerate(inputs) if isinstance(x, Tensor) and at not in host}
    if len(devices) < 2:
        return inputs
    device = next(device for device in devices if device.type != "cpu")
    return [x.to(device) if isinstance(x, Tensor) and at not in host else x for at, x in enumerate(inputs)]


class ValueScope(dict[str, Any]):
    """Values by name; constants, and in a body the values around it, are looked up when they are read."""

    def __init__(self, program: Program, context: CallContext, outer: ValueScope | None) -> None:
        super().__init__()
        self._constants, self._context, self._outer = program.constants, context, outer

    def __missing__(self, name: str) -> Any:
        if name in self._constants:
            value = self._context.fetch(self._constants[name])
        elif self._outer is not None:
            value = self._outer[name]
        else:
            raise ModelError(f"value {name!r} is read before any node computes it: sort the nodes of the model")
        self[name] = value
        return value


@dataclass(frozen=True, slots=True)
class ValueType:
    """The element type and the sizes of a value, 1 where a size is open; rows of a loop that never runs are of this type."""

    elem_type: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, value: ValueInfoProto) -> ValueType:
        tensor_type = value.type.tensor_type
        return cls(tensor_type.elem_type, tuple(size.dim_value or 1 for size in tensor_type.shape.dim))

    def empty(self) -> Tensor:
        """A tensor of this type without rows."""
        return torch.empty(0, *self.shape, dtype=dtype_of(self.elem_type or TensorProto.FLOAT))


@dataclass(slots=True)
class Program:
    """A graph, ready to run.

    Attributes:
        inputs: names of the values that a caller gives, in order; ``outputs`` those that it gets.
        steps: the nodes, in order, without ``Constant`` nodes.
        constants: names of constants in this graph, and the keys they have in the module.
        output_types: types of the outputs, as the graph declares them.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    steps: list[ProgramStep] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)
    output_types: tuple[ValueType, ...] = ()

    def run(
        self,
        inputs: Mapping[str, Any],
        context: CallContext,
        outer: ValueScope | None = None,
        wanted: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """The outputs, or the wanted values, by name. Values are freed after their last reader."""
        wanted = self.outputs if wanted is None else wanted
        return dict(zip(wanted, self.results(inputs, context, outer, wanted), strict=True))

    def results(
        self, inputs: Mapping[str, Any], context: CallContext, outer: ValueScope | None = None, wanted: Sequence[str] = ()
    ) -> list[Any]:
        """The outputs, or the wanted values, in order; a value may be wanted twice."""
        values, wanted = ValueScope(self, context, outer), wanted or self.outputs
        values.update(inputs)
        kept = set(wanted)
        for step in self.steps:
            step.compute(values, context)
            for name in step.last:
                if name not in kept:
                    values.pop(name, None)
        return [values[name] for name in wanted]


def constants_of(graph: GraphProto, weights: Mapping[str, Weight] | None = None) -> dict[str, Weight]:
    """The constants of one graph, bodies left out: its initializers, and what ``Constant`` nodes hold.

    ``weights`` are the initializers of a main graph, which its protobuf does not have.
    """
    found = dict(weights or {})
    found |= {tensor.name: Weight(tensor.name, tensor) for tensor in graph.initializer}
    found |= {sparse.values.name: Weight(sparse.values.name, None, densify(sparse)) for sparse in graph.sparse_initializer}
    for node in graph.node:
        if node.op_type == "Constant" and not domain_of(node):
            weight = _of_node(node)
            if weight is not None:
                found[node.output[0]] = weight
    return found


def _of_node(node: NodeProto) -> Weight | None:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return Weight(node.output[0], value)
    if isinstance(value, SparseTensorProto):
        return Weight(node.output[0], None, densify(value))
    if attribute.name in {"value_float", "value_floats", "value_int", "value_ints"}:
        array: Array = torch.tensor(value, dtype=torch.float32 if "float" in attribute.name else torch.int64).numpy()
        return Weight(node.output[0], None, array)
    return None


class _Compiler:
    """Walks a graph and its bodies once, and collects constants, their readers, and operators that have no function."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.weights: dict[str, tuple[ConstantLocation, Weight]] = {}
        self.uses: dict[str, list[Use]] = {}
        self.steps: list[tuple[ProgramStep, list[str | None]]] = []
        self.missing: dict[tuple[str, str], str] = {}

    def graph(self, graph: GraphProto, weights: Mapping[str, Weight] | None, path: BodyPath, outer: Mapping[str, str]) -> Program:
        """One graph; ``outer`` are the constants around it, by name."""
        own = {}
        for name, weight in constants_of(graph, weights).items():
            own[name] = self._key(name)
            self.weights[own[name]] = (path, name), weight
        known = dict(outer) | own
        for value in graph.input:  # a body may have an input by the name of a constant around it
            if value.name not in own:
                known.pop(value.name, None)
        steps = []
        for at, node in enumerate(graph.node):
            if node.op_type == "Constant" and not domain_of(node) and node.output[0] in own:
                continue
            if node.op_type == "Identity" and not domain_of(node) and node.input[0] in known:
                own[node.output[0]] = known[node.output[0]] = known[node.input[0]]
                continue
            step = self._step(node, (*path, (at, "")), known)
            if step is not None:
                steps.append(step)
        outputs = tuple(value.name for value in graph.output)
        for name in outputs:
            if name in known:
                self.uses.setdefault(known[name], []).append(Use(None, 0))
        _free(steps, {*outputs})
        given = tuple(value.name for value in graph.input if value.name not in (weights or ()))
        return Program(given, outputs, steps, own, tuple(ValueType.of(value) for value in graph.output))

    def _key(self, name: str) -> str:
        key, count = name, 0
        while key in self.weights:
            count += 1
            key = f"{name}__{count}"
        return key

    def _step(self, node: NodeProto, path: BodyPath, known: Mapping[str, str]) -> ProgramStep | None:
        domain = domain_of(node)
        opset = self.model.opset_of(domain)
        operator = find_operator(domain, node.op_type, opset)
        name = node.name or f"{node.op_type}({', '.join(node.output)})"
        if operator is None:
            self.missing.setdefault((domain, node.op_type), f"node {name!r}, operator set {opset}")
            return None
        *around, (at, _) = path
        attrs, bodies = {}, {}
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                bodies[attribute.name] = self.graph(attribute.g, None, (*around, (at, attribute.name)), known)
            else:
                attrs[attribute.name] = _attribute_value(attribute)
        read = [known.get(value) for value in node.input]
        layer = tuple(key for key in read if key is not None)
        for position, key in enumerate(read):
            if key is not None:
                self.uses.setdefault(key, []).append(Use(operator, position, layer))
        view = Node(node.op_type, domain, opset, name, attrs, bodies, len(node.output))
        outside = tuple(sorted(captured(node))) if bodies else ()
        step = ProgramStep(view, operator, tuple(node.input), tuple(node.output), outside)
        self.steps.append((step, read))
        return step

    def constants(self) -> dict[str, Constant]:
        """All constants with their roles, by key."""
        return {
            key: Constant(key, location, weight.shape, weight.dtype, role(weight, self.uses.get(key, ())))
            for key, (location, weight) in self.weights.items()
        }

    def check(self) -> None:
        for step, read in self.steps:
            written = {step.node.attr("to"), step.node.attr("output_dtype")}
            if step.node.op == "QuantizeLinear":
                written |= {self.weights[key][1].dtype for key in read[2:] if key is not None}
            if not written.isdisjoint(PACKED):
                raise ModelError(
                    f"{self.model.name}: node {step.node} writes numbers of less than eight bits, which PyTorch does not have: "
                    "train the model before it is quantised"
                )
        if self.missing:
            (domain, op), where = next(iter(self.missing.items()))
            others = ", ".join(f"{d or 'ai.onnx'}::{o}" for d, o in list(self.missing)[1:])
            raise ModelError(
                f"{self.model.name}: {domain or 'ai.onnx'}::{op} ({where}) cannot be computed in PyTorch"
                f"{f', nor can {others}' if others else ''}: "
                "replace it by operators of docs/torch_ops.md, or convert the model with onnx.version_converter"
            )


def _attribute_value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, TensorProto):
        return to_tensor(Weight(attribute.name, value))
    return [item.decode() if isinstance(item, bytes) else item for item in value] if isinstance(value, list) else value


def _free(steps: list[ProgramStep], kept: set[str]) -> None:
    """Note in each step the values that no later step reads."""
    seen = kept
    for step in reversed(steps):
        names = {*step.inputs, *step.captured, *step.outputs} - seen - {""}
        step.last = tuple(names)
        seen |= names


def compiled(model: Model) -> tuple[Program, dict[str, Constant], dict[str, Weight]]:
    """A model as a program, its constants by key, and their values.

    Raises:
        ModelError: an operator has no function; names the node, the operator and the way out.
    """
    compiler = _Compiler(model)
    program = compiler.graph(model.graph, model.weights, (), {})
    compiler.check()
    constants = compiler.constants()
    for step, read in compiler.steps:
        keys = [read[at] for at in step.operator.statistics if at < len(read)]
        step.trains = all(key is not None and constants[key].role is Role.STATISTIC for key in keys)
    return program, constants, {key: weight for key, (_, weight) in compiler.weights.items()}
