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
from onnxprune.torch.registry import Node, Operator, find
from onnxprune.torch.roles import Role, Use, role
from onnxprune.torch.tensors import dtype_of, to_tensor

__all__ = ["Constant", "Place", "Program", "Run", "Way", "compiled", "constants_of"]

Way = tuple[tuple[int, str], ...]
"""The way to a body: at each level the place of the node, and the attribute."""
Place = tuple[Way, str]
"""Where a constant is: the way to the graph that holds it, and its name there."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of a graph or of a body in it.

    Attributes:
        key: its name, made unique over all bodies.
        place: where it is.
        shape: its dimensions.
        dtype: its ``TensorProto.DataType``.
        role: what it is to training.
    """

    key: str
    place: Place
    shape: tuple[int, ...]
    dtype: int
    role: Role


@dataclass(frozen=True, slots=True)
class Run:
    """One call of a module: how it gets constants, and its mode."""

    fetch: Callable[[str], Tensor]
    training: bool


@dataclass(slots=True)
class Step:
    """A node and what happens to the values around it.

    Attributes:
        captured: outer values that its bodies read.
        last: values that nothing reads afterwards.
        trains: whether it follows the mode of the module; not where its statistics cannot be updated.
    """

    node: Node
    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...]
    last: tuple[str, ...] = ()
    trains: bool = True

    def compute(self, values: Values, run: Run) -> None:
        """Add the outputs of the node to the values."""
        operator = self.operator
        inputs = [values[name] if name else None for name in self.inputs]
        options: dict[str, Any] = {"training": run.training and self.trains} if operator.trains else {}
        if self.node.bodies:
            options |= {"outer": values, "run": run}
        try:
            results = operator.function(self.node, *settled(inputs, operator.host), **options)
        except ModelError as error:
            raise ModelError(f"node {self.node} cannot be computed in PyTorch: {error}") from error
        except Exception as error:
            shapes = ", ".join(str(list(x.shape)) if isinstance(x, Tensor) else "-" for x in inputs)
            error.add_note(f"in node {self.node} with inputs of shapes {shapes}")
            raise
        if not isinstance(results, tuple):
            results = (results,)
        values.update((name, value) for name, value in zip(self.outputs, results, strict=False) if name)


def settled(inputs: list[Any], host: Iterable[int]) -> list[Any]:
    """The inputs of a node on one device: values that the host computed follow the others."""
    devices = {x.device for at, x in enumerate(inputs) if isinstance(x, Tensor) and at not in host}
    if len(devices) < 2:
        return inputs
    device = next(device for device in devices if device.type != "cpu")
    return [x.to(device) if isinstance(x, Tensor) and at not in host else x for at, x in enumerate(inputs)]


class Values(dict[str, Any]):
    """Values by name; constants, and in a body the values around it, are looked up when they are read."""

    def __init__(self, program: Program, run: Run, outer: Values | None) -> None:
        super().__init__()
        self._constants, self._run, self._outer = program.constants, run, outer

    def __missing__(self, name: str) -> Any:
        if name in self._constants:
            value = self._run.fetch(self._constants[name])
        elif self._outer is not None:
            value = self._outer[name]
        else:
            raise ModelError(f"value {name!r} is read before any node computes it: sort the nodes of the model")
        self[name] = value
        return value


@dataclass(frozen=True, slots=True)
class Kind:
    """The type and the sizes of a value, 1 where open; what rows of a loop that never runs would be."""

    elem_type: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, value: ValueInfoProto) -> Kind:
        kind = value.type.tensor_type
        return cls(kind.elem_type, tuple(size.dim_value or 1 for size in kind.shape.dim))

    def empty(self) -> Tensor:
        """No rows of this kind."""
        return torch.empty(0, *self.shape, dtype=dtype_of(self.elem_type or TensorProto.FLOAT))


@dataclass(slots=True)
class Program:
    """A graph, ready to run.

    Attributes:
        inputs: values that a caller gives, in order; ``outputs`` those it gets.
        steps: the nodes but for constants.
        constants: names of constants in this graph, and the keys they have in the module.
        kinds: what is known of the outputs before anything runs.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)
    kinds: tuple[Kind, ...] = ()

    def run(
        self, inputs: Mapping[str, Any], run: Run, outer: Values | None = None, wanted: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """The outputs, or the wanted values, by name. Values are let go after their last reader."""
        wanted = self.outputs if wanted is None else wanted
        return dict(zip(wanted, self.results(inputs, run, outer, wanted), strict=True))

    def results(self, inputs: Mapping[str, Any], run: Run, outer: Values | None = None, wanted: Sequence[str] = ()) -> list[Any]:
        """The outputs, or the wanted values, in order; a value may be wanted twice."""
        values, wanted = Values(self, run, outer), wanted or self.outputs
        values.update(inputs)
        kept = set(wanted)
        for step in self.steps:
            step.compute(values, run)
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
        kind = TensorProto.FLOAT if "float" in attribute.name else TensorProto.INT64
        array: Array = torch.tensor(value, dtype=torch.float32 if kind == TensorProto.FLOAT else torch.int64).numpy()
        return Weight(node.output[0], None, array)
    return None


class _Compiler:
    """Walks a graph and its bodies once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.weights: dict[str, tuple[Place, Weight]] = {}
        self.uses: dict[str, list[Use]] = {}
        self.steps: list[tuple[Step, list[str | None]]] = []
        self.missing: dict[tuple[str, str], str] = {}

    def graph(self, graph: GraphProto, weights: Mapping[str, Weight] | None, way: Way, outer: Mapping[str, str]) -> Program:
        """One graph; ``outer`` are the constants around it, by name."""
        own = {}
        for name, weight in constants_of(graph, weights).items():
            own[name] = self._key(name)
            self.weights[own[name]] = (way, name), weight
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
            step = self._step(node, (*way, (at, "")), known)
            if step is not None:
                steps.append(step)
        outputs = tuple(value.name for value in graph.output)
        for name in outputs:
            if name in known:
                self.uses.setdefault(known[name], []).append(Use(None, 0))
        _free(steps, {*outputs})
        given = tuple(value.name for value in graph.input if value.name not in (weights or ()))
        return Program(given, outputs, steps, own, tuple(Kind.of(value) for value in graph.output))

    def _key(self, name: str) -> str:
        key, count = name, 0
        while key in self.weights:
            count += 1
            key = f"{name}__{count}"
        return key

    def _step(self, node: NodeProto, way: Way, known: Mapping[str, str]) -> Step | None:
        domain = domain_of(node)
        opset = self.model.opset_of(domain)
        operator = find(domain, node.op_type, opset)
        name = node.name or f"{node.op_type}({', '.join(node.output)})"
        if operator is None:
            self.missing.setdefault((domain, node.op_type), f"node {name!r}, operator set {opset}")
            return None
        *around, (at, _) = way
        attrs, bodies = {}, {}
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                bodies[attribute.name] = self.graph(attribute.g, None, (*around, (at, attribute.name)), known)
            else:
                attrs[attribute.name] = _value(attribute)
        read = [known.get(value) for value in node.input]
        layer = tuple(key for key in read if key is not None)
        for position, key in enumerate(read):
            if key is not None:
                self.uses.setdefault(key, []).append(Use(operator, position, layer))
        view = Node(node.op_type, domain, opset, name, attrs, bodies, len(node.output))
        outside = tuple(sorted(captured(node))) if bodies else ()
        step = Step(view, operator, tuple(node.input), tuple(node.output), outside)
        self.steps.append((step, read))
        return step

    def constants(self) -> dict[str, Constant]:
        """All constants with their roles, by key."""
        return {
            key: Constant(key, place, weight.shape, weight.dtype, role(weight, self.uses.get(key, ())))
            for key, (place, weight) in self.weights.items()
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


def _value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, TensorProto):
        return to_tensor(Weight(attribute.name, value))
    return [item.decode() if isinstance(item, bytes) else item for item in value] if isinstance(value, list) else value


def _free(steps: list[Step], kept: set[str]) -> None:
    """Tell each step which values nothing reads after it."""
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
