"""Writes the weights and statistics of a module back into the model that it was made from."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from onnx import GraphProto, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.files import save
from onnxprune.ir.model import Model, ModelSource
from onnxprune.ir.weights import Array, Weight
from onnxprune.torch.module import GraphModule
from onnxprune.torch.program import BodyPath, Constant, ConstantLocation, constants_of
from onnxprune.torch.roles import Role
from onnxprune.torch.tensors import to_array

__all__ = ["write_back"]


def write_back(
    module: GraphModule, model: ModelSource, output: str | Path | None = None, *, exclude: Collection[str] = ()
) -> Model:
    """The model with the weights and statistics of a module made from it, in the types the model has.

    What did not change stays as it is in the model, bit by bit, and so does everything but weights and statistics. With
    parametrizations, the parametrized values are written.

    Args:
        module: made by `to_module`, trained or not.
        model: the model it was made from, or one with the same graph; it is not changed.
        output: where to save the result, whole or not at all, with external data where the model had some.
        exclude: names of constants of the module that are not written.

    Raises:
        ModelError: the model has no such constant, or one of another shape or type.
        OutputError: the output cannot be written.
    """
    result, known = Model.of(model), {}
    with torch.no_grad():
        for constant in module.constants.values():
            if constant.role is Role.CONSTANT or constant.key in exclude:
                continue
            path = constant.location[0]
            if path not in known:
                known[path] = _constants_in(result, path)
            old = _checked(result.name, constant, known[path].get(constant.location[1]))
            new = to_array(module.value_of(constant.key), old.dtype)
            if not _same_bits(new, old.array()):
                _replace_constant(result, constant.location, old, new)
    if output is not None:
        save(result, Path(output))
    return result


def _same_bits(one: Array, other: Array) -> bool:
    return one.tobytes() == np.ascontiguousarray(other).tobytes()


def _body(model: Model, path: BodyPath) -> GraphProto | None:
    graph = model.graph
    for at, name in path:
        found = [one.g for node in graph.node[at : at + 1] for one in node.attribute if one.name == name]
        if not found:
            return None
        graph = found[0]
    return graph


def _constants_in(model: Model, path: BodyPath) -> dict[str, Weight]:
    graph = _body(model, path)
    return {} if graph is None else constants_of(graph, None if path else model.weights)


def _checked(model: str, constant: Constant, found: Weight | None) -> Weight:
    name = constant.location[1]
    if found is None:
        raise ModelError(f"{model}: there is no constant {name!r}: pass the model that the module was made from")
    if found.shape != constant.shape or not found.is_float:  # floats are written in the type they have there
        raise ModelError(
            f"{model}: constant {name!r} is {list(found.shape)} and the module's is {list(constant.shape)}: "
            "pass the model that the module was made from"
        )
    return found


def _replace_constant(model: Model, location: ConstantLocation, old: Weight, new: Array) -> None:
    path, name = location
    if not path and name in model.weights:
        changed = Weight(name, None, new)
        changed.origin = old.origin
        model.weights[name] = changed
        return
    graph = _body(model, path)
    assert graph is not None  # noqa: S101 - the constant was found there
    tensor = numpy_helper.from_array(new, name)
    for known in graph.initializer:
        if known.name == name:
            known.CopyFrom(tensor)
            return
    for node in graph.node:
        if list(node.output) == [name]:
            attribute = node.attribute[0]
            attribute.Clear()
            attribute.name, attribute.type = "value", attribute.TENSOR
            attribute.t.CopyFrom(tensor)
            return
    for at, sparse in enumerate(graph.sparse_initializer):
        if sparse.values.name == name:
            del graph.sparse_initializer[at]
            graph.initializer.append(tensor)
            return
