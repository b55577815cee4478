"""Shake the weights of a model: an output that does not move with them says nothing of them.

Weights are constants, or what nodes make of constants: a matrix that ``ConstantOfShape`` fills, one that ``Expand`` or ``Mul``
make of a few numbers, one that ``DequantizeLinear`` makes of integers. A constant is multiplied where it is stored; what nodes
make is multiplied behind the node that makes it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.inferred import infer_shapes
from onnxprune.ir.model import Model
from onnxprune.ir.node import CONTROL_FLOW, values_read
from onnxprune.ir.subgraph import extract
from onnxprune.ir.weights import FLOATS

if TYPE_CHECKING:
    from onnx import NodeProto, SparseTensorProto, ValueInfoProto

    from onnxprune.ir.weights import Array

__all__ = ["shaken", "sparse_weights", "weights_that_count"]

_PERIOD = 8191
"""Length of the factors that weights are shaken by; a prime, so that no axis of a tensor has it."""
_LEAST, _MOST = 0.5, 1.5
"""Their range."""


def shaken(model: Model, names: Collection[str]) -> Model:
    """The model with some of its floating-point weights multiplied by factors around one, which no symmetry hides.

    Args:
        model: its nodes are in order.
        names: constants, and values that nodes make of constants; for integers what is made of them is multiplied.
    """
    result = model.copy()
    integers = set()
    for name in names:
        weight = result.weights.get(name)
        if weight is not None and weight.is_float:
            result.weights[name] = weight.derived(weight.shape, _shaken)
        elif weight is not None:
            integers.add(name)
    for name, sparse in sparse_weights(result).items():
        if name in names and sparse.values.data_type in FLOATS:
            sparse.values.CopyFrom(numpy_helper.from_array(_shaken(numpy_helper.to_array(sparse.values)), name))
    _shake_made(result, {*names}, integers)
    return result


def sparse_weights(model: Model) -> dict[str, SparseTensorProto]:
    """The weights that are written as sparse tensors, by name."""
    return {sparse.values.name: sparse for sparse in model.graph.sparse_initializer}


def _shaken(array: Array) -> Array:
    factors = np.random.default_rng(0).uniform(_LEAST, _MOST, min(_PERIOD, array.size)).astype(np.float32)
    with np.errstate(over="ignore"):
        moved = array * np.resize(factors, array.shape).astype(array.dtype)
    return np.where(np.isfinite(moved), moved, array)  # masks may be the least number that there is


def weights_that_count(model: Model) -> set[str]:
    """The weights that an output must move with to be tested where nothing was cut: matrices and kernels, else all vectors.

    What nodes make of shapes, integers and single numbers alone is a weight, too; what they make of weights moves with these.
    """
    shapes = {name: weight.shape for name, weight in model.weights.items() if weight.is_float}
    shapes |= {name: tuple(one.dims) for name, one in sparse_weights(model).items() if one.values.data_type in FLOATS}
    some = {name: shape for name, shape in shapes.items() if math.prod(shape) > 1}
    made = _Made(model)
    if made.nodes:
        moved = made.of(some)
        some |= {name: _sizes(value) for name, value in made.floats().items() if name not in moved}
    large = {name for name, shape in some.items() if sum(size > 1 for size in shape) > 1}
    return large or {name for name, shape in some.items() if any(size > 1 for size in shape)}


class _Made:
    """What the nodes of the main graph make of constants alone.

    Attributes:
        nodes: those that do, in order.
        read: the values that others read of what they make.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.nodes: list[NodeProto] = []
        known = {*model.weights, *sparse_weights(model)} - model.overridable
        made: set[str] = set()
        others: list[NodeProto] = []
        for node in model.graph.node:
            random = node.op_type.startswith("Random") or node.op_type in {"Bernoulli", "Multinomial", *CONTROL_FLOW}
            if not random and (node.input or node.op_type == "Constant") and known.issuperset(values_read(node)):
                self.nodes.append(node)
                made.update(filter(None, node.output))
                known.update(node.output)
            else:
                others.append(node)
        read = (name for node in others for name in values_read(node)) if made else ()
        self.read = made.intersection(read)

    def of(self, names: Collection[str]) -> set[str]:
        """The values that depend on some of the constants."""
        found = {*names}
        for node in self.nodes:
            if not found.isdisjoint(values_read(node)):
                found.update(filter(None, node.output))
        return found

    def floats(self) -> dict[str, ValueInfoProto]:
        """The floating-point values that others read, by name; without any whose type is not known."""
        part = extract(self._model, self.nodes, sorted(self.read), helper.make_empty_tensor_value_info)
        try:
            graph = infer_shapes(part.skeleton(), self._model.name)
        except ModelError:
            return {}
        return {value.name: value for value in graph.output if value.type.tensor_type.elem_type in FLOATS}


def _sizes(value: ValueInfoProto) -> tuple[int, ...]:
    """The sizes of a value; where they are not known, those of a matrix."""
    shape = value.type.tensor_type
    return tuple(dim.dim_value or 2 for dim in shape.shape.dim) if shape.HasField("shape") else (2, 2)


def _shake_made(model: Model, names: Collection[str], integers: Collection[str]) -> None:
    """Multiply what nodes make: values of these names, and what is made of integers."""
    made = _Made(model)
    wanted = made.read & {*names, *made.of(integers)} if made.nodes else set()
    floats = made.floats() if wanted else {}
    wanted &= floats.keys()
    nodes = []
    for node in model.graph.node if wanted else ():
        nodes.append(node)
        for at, name in enumerate(node.output):
            if name in wanted:
                node.output[at] = model.fresh_name(f"{name}__still")
                nodes += _factors(model, node.output[at], name, floats[name].type.tensor_type.elem_type)
    if nodes:
        copies = list(nodes)
        del model.graph.node[:]
        model.graph.node.extend(copies)


def _factors(model: Model, still: str, name: str, dtype: int) -> Iterator[NodeProto]:
    """The nodes that multiply a value by factors that are drawn when the model runs, the same in every run."""
    wide = TensorProto.DOUBLE if dtype == TensorProto.DOUBLE else TensorProto.FLOAT
    drawn = model.fresh_name(f"{name}__factors")
    yield helper.make_node("RandomUniformLike", [still], [drawn], dtype=wide, low=_LEAST, high=_MOST, seed=0.0)
    if wide != dtype:
        rounded = model.fresh_name(f"{name}__rounded")
        yield helper.make_node("Cast", [drawn], [rounded], to=dtype)
        drawn = rounded
    yield helper.make_node("Mul", [still, drawn], [name])
