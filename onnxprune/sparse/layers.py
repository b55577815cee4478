"""The layers whose weights may be sparse, and which of them stay dense unless they are asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import ModelError, OptionError
from onnxprune.ir.node import captured, is_followed, subgraphs
from onnxprune.linear.layers import FLOAT_CONVOLUTIONS, MATRIX_PRODUCTS, Reader, linear_readers, weight_products
from onnxprune.sparse.patterns import Unstructured
from onnxprune.sparse.selection import split_taps

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

    from onnxprune.axes.coupling import Coupling
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.sparse.patterns import Pattern

__all__ = ["Layer", "check_finite", "few_left", "find_layers"]


_VIEWS = frozenset({"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators through which a layer reads the same weight in another form: zeros stay zeros."""
_GENERATED = "is made by nodes, and would be stored if it had zeros"
_FEW = 3
"""Matrices that a message names."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A constant matrix that may be sparse, with what reads it.

    Attributes:
        reader: the reader; the first one where several share the matrix.
        size: how many weights it has.
        end: whether no other layer comes before it, or none after it.
        seen: whether samples show what it reads: where several nodes share the matrix, or a body has it, the weights go by size
            and none makes up for them.
    """

    reader: Reader
    size: int
    end: bool = False
    seen: bool = True

    @property
    def name(self) -> str:
        """The name of the initializer."""
        return self.reader.weight

    def called(self, glob: str) -> bool:
        """Whether the node or the weight has such a name."""
        return fnmatchcase(self.reader.name, glob) or fnmatchcase(self.name, glob)

    def array(self, model: Model) -> Array:
        """Its weights as patterns see them. [groups, channels, taps, outputs]"""
        return split_taps(self.reader.matrix(model.weights[self.name].array()), self.reader.taps)

    def zeros(self, model: Model) -> int:
        """The number of its weights that are zero."""
        return self.size - int(np.count_nonzero(model.weights[self.name].array()))

    def obeys(self, model: Model, pattern: Pattern) -> bool:
        """Say whether its weights have a pattern."""
        return pattern.allows(self.array(model) != 0)


def check_finite(model: Model, layers: Sequence[Layer]) -> None:
    """Nothing happens if every weight of the layers is a finite number: others have no order.

    Raises:
        ModelError: one is not; names it and what reads it.
    """
    for layer in layers:
        if not np.isfinite(model.weights[layer.name].array()).all():
            raise ModelError(
                f"initializer {layer.name!r} of {model.name}, which node {layer.reader.name!r} reads, has NaN or infinite "
                f"weights: export the model again, or leave it dense with --protect {layer.name!r}"
            )


def find_layers(
    model: Model,
    coupling: Coupling,
    protect: Sequence[str] = (),
    pattern: Pattern | None = None,
    generated: Collection[str] = (),
) -> tuple[list[Layer], dict[str, str]]:
    """The layers that may be sparse: constant matrices of convolutions and products, in the order of the graph.

    Args:
        model: a normalised model.
        coupling: its groups.
        protect: globs over names of nodes and weights that stay as they are.
        pattern: what may be kept; unstructured if none.
        generated: weights that nodes of the file make of next to nothing; with zeros in them they would be stored.

    Returns:
        The layers; and the matrices that are none of them, by name, with the reason.

    Raises:
        OptionError: there is no layer.
    """
    readers = {reader.weight: reader for reader in linear_readers(model, coupling)}
    products, consumers = weight_products(model, coupling), model.consumers()
    left = {name: why for name in _matrices(model) if (why := _left(name, products.get(name, []), consumers, pattern))}
    left |= {name: _GENERATED for name in _matrices(model) if model.weights[name].origin in generated}
    ends = _ends(model, products)
    layers = []
    for name, found in products.items():
        if name not in left:
            reader = readers.get(name)
            layers.append(Layer(reader or found[0], model.weights[name].size, name in ends, reader is not None))
    kept = [layer for layer in layers if not any(layer.called(glob) for glob in protect)]
    if not kept:
        why = f"all {len(layers)} layers are protected" if layers else "there is no layer with a constant weight"
        raise OptionError(f"{model.name}: nothing can be sparse: {why}{few_left(left)}")
    return kept, left


def few_left(left: Mapping[str, str]) -> str:
    """The first matrices that stay dense, with the reasons, to follow a message."""
    more = f"; and {len(left) - _FEW} more" if len(left) > _FEW else ""
    return "".join(f"; {name!r} {why}" for name, why in islice(left.items(), _FEW)) + more


def _matrices(model: Model) -> list[str]:
    return [name for name, weight in model.weights.items() if weight.is_float and sum(size > 1 for size in weight.shape) > 1]


def _left(
    name: str, products: Sequence[Reader], consumers: Mapping[str, list[tuple[NodeProto, int]]], pattern: Pattern | None
) -> str:
    """Why a matrix stays dense; empty where it may be sparse."""
    made = {reader.node.view.outputs[0] for reader in products}
    shared, others = len(products) > 1, set()
    stack = [name]
    while stack:
        for node, position in consumers.get(stack.pop(), ()):
            if position >= 0 and not made.isdisjoint(node.output):
                continue
            shared = True
            if position == 0 and node.op_type in _VIEWS and products:
                stack.append(node.output[0])
            elif node.op_type not in MATRIX_PRODUCTS | FLOAT_CONVOLUTIONS or position < 0:
                others.add(node.op_type)
    if others:
        return f"is read by {', '.join(sorted(others))}, which is no layer"
    if not products:
        return "is no matrix of one layer"
    structured = pattern is not None and not isinstance(pattern, Unstructured)
    if structured and shared and (len(made) < 2 or not _alike(products)):
        return f"is shared by layers that see it in different forms, of which {pattern} fits one"
    return ""


def _alike(products: Sequence[Reader]) -> bool:
    """Whether every reader sees the same element of a matrix in the same place."""
    first, *others = products
    shape = first.node.view.shape(list(first.node.view.inputs).index(first.weight))
    places = np.arange(math.prod(shape)).reshape(shape)

    def seen(reader: Reader) -> Array:
        return replace(reader, scale=(1.0, 1.0)).matrix(places)

    return all(np.array_equal(seen(first), seen(other)) for other in others)


def _ends(model: Model, products: Mapping[str, Sequence[Reader]]) -> frozenset[str]:
    """The weights all of whose layers read no output of another layer, or have an output that no other layer reads."""
    weights = {reader.node.view.outputs[0]: name for name, readers in products.items() for reader in readers}
    ends = _reached(model.graph, weights, set(), first=True) | _reached(model.graph, weights, set(), first=False)
    return frozenset(name for name, readers in products.items() if all(reader.node.view.outputs[0] in ends for reader in readers))


def _reached(graph: GraphProto, layers: Collection[str], reached: set[str], *, first: bool) -> set[str]:
    """The outputs of layers that the values ``reached`` do not lead to, going down the graph, or up from its end.

    Values behind (or in front of) a layer are added to ``reached``. A body continues the way of the node that it is in.
    """
    found = set()
    for node in graph.node if first else reversed(graph.node):
        near, far = [*node.input, *captured(node)], list(node.output)
        if not first:
            near, far = far, near
        leads = not reached.isdisjoint(near)
        for body in subgraphs(node) if is_followed(node) else ():
            entry, exit_ = (body.input, body.output) if first else (body.output, body.input)
            if leads:
                reached.update(value.name for value in entry)
            found |= _reached(body, layers, reached, first=first)
            leads |= not reached.isdisjoint(value.name for value in exit_)
        layer = node.output[0] in layers
        if layer and not leads:
            found.add(node.output[0])
        if layer or leads:
            reached.update(far)
    return found
