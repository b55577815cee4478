"""Nodes that have a sparse kernel: a standard operator with a sparse weight and what follows it, as one node of our domain.

With the library of `onnxprune.kernels` ONNX Runtime runs a kernel for such a node. Without it the node is a function of the
model, whose body is what the node stands for: the same nodes that were there before. So the file is right everywhere, whoever
inlines functions has the old graph back, and weights are stored as in any other file.

The names say what is inside: ``SparseConvAddRelu`` is ``Conv``, ``Add`` and ``Relu``. Other types of weights will be other
operators; these take float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto, FunctionProto, NodeProto, helper

from onnxprune.ir.node import domain_of
from onnxprune.ir.weights import Array

if TYPE_CHECKING:
    from onnx import ModelProto

    from onnxprune.ir.weights import Weight

__all__ = [
    "DOMAIN",
    "FUSIONS",
    "HEIGHTS",
    "VERSION",
    "Fusion",
    "KernelLayer",
    "block_height",
    "functions",
    "is_plain",
    "is_transposed",
    "kernel_layers",
    "node_for",
    "rows_of",
]

DOMAIN = "onnxprune"
VERSION = 1
"""Of the domain: the meaning of a name never changes, other names may come."""
HEIGHTS = {1: 1.25, 2: 1.08, 4: 1.0, 8: 0.98, 16: 0.97}
"""Rows of blocks that kernels know, with the time that a weight takes in them; as in ``pack.c``."""

_ATTRIBUTES: Mapping[str, Mapping[str, AttributeProto.AttributeType]] = {
    "Conv": {
        "strides": AttributeProto.INTS,
        "pads": AttributeProto.INTS,
        "dilations": AttributeProto.INTS,
        "group": AttributeProto.INT,
    },
    "MatMul": {},
    "Gemm": {"transB": AttributeProto.INT},
}
"""What each operator may have, and the kernel knows."""
_INPUTS = {"Conv": ("x", "w", "b"), "MatMul": ("x", "w"), "Gemm": ("x", "w", "b")}


@dataclass(frozen=True, slots=True)
class Fusion:
    """A node and those that follow it, as one node.

    Attributes:
        operator: ``Conv``, ``MatMul`` or ``Gemm``.
        adds: whether an ``Add`` follows: of a value with the shape of the output, or of a bias for ``MatMul``.
        bound: the activation that follows: ``Relu``, ``Clip`` or nothing.
    """

    operator: str
    adds: bool = False
    bound: str = ""

    @property
    def name(self) -> str:
        """The operator in our domain."""
        return f"Sparse{self.operator}{'Add' * self.adds}{self.bound}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the node reads: inputs and weight, bias, what is added, bounds."""
        return (*_INPUTS[self.operator], *("z",) * self.adds, *(("low", "high") if self.bound == "Clip" else ()))


def _fusions() -> Iterator[Fusion]:
    for bound in ("", "Relu", "Clip"):
        for adds in (False, True):
            yield Fusion("Conv", adds, bound)
    for bound in ("", "Relu"):
        yield Fusion("Gemm", bound=bound)
        for adds in (False, True):
            yield Fusion("MatMul", adds, bound)


FUSIONS = {fusion.name: fusion for fusion in _fusions()}
"""Every operator of the library, by its name."""


@dataclass(frozen=True, slots=True)
class KernelLayer:
    """A layer with a sparse kernel.

    Attributes:
        node: its first node.
        weight: the name of its weight.
        shape: of the weight.
        operator: in our domain.
        height: R of the blocks of R outputs x 1 input in which the kernel reads the weight; 1 where it is unstructured.
        stored: the share of the weight that the kernel reads.
        ratio: the time of the layer with the kernel over that without, where it was measured.
    """

    node: str
    weight: str
    shape: tuple[int, ...]
    operator: str
    height: int
    stored: float
    ratio: float | None = None

    @property
    def pattern(self) -> str:
        """As `sparsify` takes it: ``unstructured``, ``4x1``."""
        return "unstructured" if self.height == 1 else f"{self.height}x1"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "pattern": self.pattern}


def kernel_layers(nodes: Iterable[NodeProto], weights: Mapping[str, Weight]) -> list[KernelLayer]:
    """The layers that have a kernel among the nodes of a file.

    Args:
        nodes: of the file as it is, with its functions not inlined.
        weights: the constants of the file, decoded.
    """
    found = []
    for node in nodes:
        fusion = FUSIONS.get(node.op_type) if domain_of(node) == DOMAIN else None
        if fusion is None or len(node.input) < 2 or node.input[1] not in weights:
            continue
        weight = weights[node.input[1]]
        if len(weight.shape) >= 2:
            height, stored = block_height(rows_of(weight.array(), fusion.operator, transposed=is_transposed(node)))
            found.append(KernelLayer(node.name or node.output[0], weight.name, tuple(weight.shape), fusion.name, height, stored))
    return found


def is_transposed(node: NodeProto) -> bool:
    """Whether the weight of a ``Gemm`` has a row for each output."""
    return any(one.name == "transB" and one.i for one in node.attribute)


def is_plain(node: NodeProto) -> bool:
    """Whether a kernel does what a node does: nothing but attributes that it knows, or that have their usual values."""
    known = _ATTRIBUTES.get(node.op_type)
    if known is None or domain_of(node):
        return False
    usual = {"auto_pad": b"NOTSET", "alpha": 1.0, "beta": 1.0, "transA": 0}
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute if one.name not in known}
    given.pop("kernel_shape", None)  # which the weight has, too
    return all(name in usual and value == usual[name] for name, value in given.items())


def node_for(fusion: Fusion, node: NodeProto, inputs: Iterable[str], output: str) -> NodeProto:
    """The node of a fusion: named and with the attributes of its first one."""
    made = NodeProto(op_type=fusion.name, domain=DOMAIN, name=node.name, input=inputs, output=[output])
    made.attribute.extend(one for one in node.attribute if one.name in _ATTRIBUTES[fusion.operator])
    while made.input and not made.input[-1]:
        del made.input[-1]
    return made


def functions(used: Iterable[Fusion], proto: ModelProto) -> list[FunctionProto]:
    """For each fusion the function of the same name: what its nodes stand for, in the operator sets of the model."""
    return [_function(fusion, proto) for fusion in dict.fromkeys(used)]


def _function(fusion: Fusion, proto: ModelProto) -> FunctionProto:
    standard = [opset for opset in proto.opset_import if not opset.domain]
    first = NodeProto(op_type=fusion.operator, input=_INPUTS[fusion.operator])
    for name, kind in _ATTRIBUTES[fusion.operator].items():
        first.attribute.append(AttributeProto(name=name, ref_attr_name=name, type=kind))
    nodes = [first]
    if fusion.adds:
        nodes.append(NodeProto(op_type="Add", input=["", "z"]))
    if fusion.bound:
        nodes.append(NodeProto(op_type=fusion.bound, input=["", *(("low", "high") if fusion.bound == "Clip" else ())]))
    for count, (one, after) in enumerate(zip(nodes, [*nodes[1:], None], strict=True)):
        one.output.append("y" if after is None else f"t{count}")
        if after is not None:
            after.input[0] = one.output[0]
    return helper.make_function(
        DOMAIN, fusion.name, fusion.inputs, ["y"], nodes, standard, attributes=list(_ATTRIBUTES[fusion.operator])
    )


def rows_of(array: Array, operator: str, *, transposed: bool = False) -> Array:
    """A weight as a matrix with a row for each output. [outputs, inputs]"""
    if operator == "Conv":
        return array.reshape(len(array), -1)
    return array if transposed else array.T


def block_height(rows: Array) -> tuple[int, float]:
    """The height R of the blocks R x 1 in which a matrix takes least time, and the share of it that they store.

    Zeros inside blocks are stored, and so the share is at least that of what is not zero. The rows that are left where R does
    not divide their number are stored one by one.
    """
    stored = rows != 0
    best, least = (1, 1.0), np.inf
    for height, cost in HEIGHTS.items():
        if height > len(stored):
            break
        whole = len(stored) // height * height
        blocks = stored[:whole].reshape(-1, height, stored.shape[1]).any(axis=1)
        share = float(blocks.sum() * height + stored[whole:].sum()) / max(stored.size, 1)
        if cost * share < least:
            best, least = (height, share), cost * share
    return best
