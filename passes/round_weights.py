"""Round the weights of int8 layers so that each outputs what the original did, from what the rounded network feeds it.

Each layer in topological order, as repair does it: its input is that of the network that is rounded up to it, its target is the
output of the original, residual sums and rectifiers taken into account. First the best weights in floating point are found, then
they are rounded one by one, those that are left and last of all the bias making up for it (`onnxprune.linear.rounding`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto

from onnxprune.ir.model import Model
from onnxprune.ir.node import values_read
from onnxprune.ir.weights import Weight
from onnxprune.linear.layers import Reader, linear_readers, matrix_of
from onnxprune.linear.reconstruction import NetworkPair, Repaired, Task, Twin, tasks_of
from onnxprune.linear.ridge import refit
from onnxprune.linear.rounding import nearest_on_grid, rounded
from onnxprune.passes.base import Fitted, Pass, Progress, silent
from onnxprune.runtime.stages import StagedRun

if TYPE_CHECKING:
    from onnxprune.data.calibration import CalibrationFeeds
    from onnxprune.ir.weights import Array
    from onnxprune.linear.regression import Regression
    from onnxprune.passes.analysis import Analysis

__all__ = ["RoundWeights"]

_BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Operators that add a bias themselves."""
_LARGEST_BIAS = 2**31 - 1
_ROWS = 8192
"""Rows that are enough for a layer: what is rounded is far nearer to the original than what is cut."""
_UNBOUNDED = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True)
class _Constant:
    """A constant that a ``DequantizeLinear`` makes.

    Attributes:
        name: of its integers.
        value: of what they become.
        steps: what each is multiplied by. float64, shaped as the integers
    """

    name: str
    value: str
    steps: Array


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer in int8: its constants, and its node in the network that is rounded."""

    weight: _Constant
    bias: _Constant | None
    twin: Twin


@dataclass(frozen=True)
class RoundWeights(Pass):
    """Choose the integers of weights and biases anew; scales, and all else, stay as they are, and so do zeros."""

    bound: int = 127
    """The largest magnitude of an integer of a weight."""
    seed: int = 0
    """Of the rows that are drawn where there are many."""

    def run(self, quantized: Model, original: Analysis, feeds: CalibrationFeeds, tell: Progress = silent) -> Fitted:
        """The model in int8 with its weights rounded again.

        Args:
            quantized: the original with ``QuantizeLinear`` and ``DequantizeLinear``; its nodes have the names that they had.
            original: the original and its groups, in float32.
            feeds: what is fitted on.
            tell: is told which layer is rounded.
        """
        constants = _constants(quantized)
        twin, result, done = _in_floats(quantized, constants, original.model), quantized.copy(), []
        readers = [_alone(reader, original.model) for reader in linear_readers(original.model, original.coupling)]
        tasks = tasks_of(original.model, readers, original.shapes, [reader.weight for reader in readers])
        matched = list(_matched(tasks, original.model, twin, constants))
        tasks = [task for task, _ in matched]
        twins = {task.reader.weight: layer.twin for task, layer in matched}
        with StagedRun(original.model, feeds, keep={task.target for task in tasks}) as large, StagedRun(twin, feeds) as small:
            pair = NetworkPair(large, small, tasks, twins=twins, most=_ROWS)
            for count, (task, layer) in enumerate(matched):
                tell(f"rounding weights ({count + 1} of {len(tasks)})")
                reader = task.reader
                rng = np.random.default_rng([self.seed, reader.node.index])
                start, steps = matrix_of(reader, original.model), reader.matrix(layer.weight.steps)
                found, errors = self._rounded(pair.rows(task, reader, rng), start, steps)
                _install(result, twin, reader, layer, found)
                done.append(Repaired(reader.name, *errors))
        return Fitted(result, tuple(done))

    def _rounded(
        self, rows: tuple[Regression, Regression, Regression], start: Array, steps: Array
    ) -> tuple[Array, tuple[float, float]]:
        """The weights on their grid that do best on rows that were not fitted; with the errors of the nearest, and of these."""
        whole, fit, judge = rows
        features = steps.shape[1]
        nearest = start.copy()
        nearest[:, :features] = nearest_on_grid(start[:, :features], steps, self.bound)
        kinds = [nearest]
        if judge.y.size:
            kinds.append(_with_bias(nearest, fit))
        if judge.y.size and not whole.dual:
            may = start[:, :features] != 0
            best = refit(whole, fit, judge, start).weights if may.all() else None
            gram = whole.gram if fit is whole else fit.gram + judge.gram
            kinds.append(rounded(gram, start if best is None else best, steps, self.bound, may))
        errors = [judge.error(kind) if judge.y.size else 0.0 for kind in kinds]
        at = int(np.argmin(errors))
        scale = max(float(judge.y.var()), 1e-30) if judge.y.size else 1.0
        return kinds[at], (errors[0] / scale, errors[at] / scale)


def _with_bias(weights: Array, rows: Regression) -> Array:
    """The same with a bias that makes up for the mean of what is missing, where there is one."""
    found = weights.copy()
    if rows.affine:
        found[:, -1] += rows.residual(weights, rectified=True).mean(1)
    return found


def _alone(reader: Reader, model: Model) -> Reader:
    """A reader as its node is: with a bias only where the node adds it."""
    view = reader.node.view
    bias = view.inputs[2] if view.op in _BIASED and view.has(2) and view.inputs[2] in model.weights else ""
    scale = (float(view.attr("alpha", 1.0)), float(view.attr("beta", 1.0)))
    return replace(reader, bias=bias, output=view.outputs[0], can_add_bias=False, norm=None, scale=scale)


def _constants(model: Model) -> dict[str, _Constant]:
    """The constants in integers around zero, by the value that they become; none that several nodes read."""
    read = [name for node in model.graph.node for name in node.input]
    found = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or not model.weights.keys() >= set(node.input) or len(node.input) < 3:
            continue
        name, scale, point = node.input
        single = read.count(name) == read.count(node.output[0]) == 1
        weight, steps = model.weights[name], model.weights[scale].array().astype(np.float64)
        if single and weight.dtype in {TensorProto.INT8, TensorProto.INT32} and not model.weights[point].array().any():
            found[node.output[0]] = _Constant(name, node.output[0], _spread(steps, node, weight.shape))
    return found


def _spread(steps: Array, node: NodeProto, shape: Sequence[int]) -> Array:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    along = [-1 if at == axis % len(shape) and steps.size > 1 else 1 for at in range(len(shape))]
    return np.ascontiguousarray(np.broadcast_to(steps.reshape(along), shape))


def _in_floats(model: Model, constants: Mapping[str, _Constant], original: Model) -> Model:
    """The model with constants in floating point, so that new ones count in the stage that reads them.

    Its nodes run in the order of the original's, each conversion right behind what it converts.
    """
    twin = model.copy()
    places = {node.name: place for place, node in enumerate(original.graph.node)}
    made: dict[str, int] = {}
    order = []
    for node in model.graph.node:
        if node.output[0] in constants:
            continue
        place = places.get(node.name, max((made.get(name, -1) for name in values_read(node)), default=-1))
        made |= dict.fromkeys(node.output, place)
        order.append((place, node))
    del twin.graph.node[:]
    twin.graph.node.extend(node for _, node in sorted(order, key=lambda pair: pair[0]))
    for constant in constants.values():
        array = (twin.weights.pop(constant.name).array() * constant.steps).astype(np.float32)
        twin.weights[constant.value] = Weight(constant.value, None, array)
    return twin


def _matched(
    tasks: Sequence[Task], original: Model, twin: Model, constants: Mapping[str, _Constant]
) -> Iterator[tuple[Task, _Layer]]:
    """The tasks of layers that compute in int8, with their constants.

    Where the rounded network adds something else to the output, or later, the output alone is matched.
    """
    nodes = {node.name: (index, node) for index, node in enumerate(twin.graph.node)}
    made = {name: index for index, node in enumerate(twin.graph.node) for name in node.output}
    adders = {
        name: (node.name, at) for node in original.graph.node if node.op_type == "Add" for at, name in enumerate(node.input)
    }
    for task in tasks:
        reader, (index, node) = task.reader, nodes.get(task.reader.name, (0, NodeProto()))
        inputs = list(reader.node.view.inputs)
        if len(node.input) < len(inputs):
            continue
        weight = constants.get(node.input[inputs.index(reader.weight)])
        if weight is None or original.weights[reader.weight].shape != weight.steps.shape:
            continue
        bias = constants.get(node.input[2]) if reader.bias else None
        found = task if bias else replace(task, reader=replace(reader, bias=""))
        others = [nodes[name][1].input[at] for name, at in (adders[other] for other in task.others) if name in nodes]
        if len(others) < len(task.others) or any(made.get(name, index) >= index for name in others):
            others, found = [], replace(found, target=reader.output, others=(), stop=reader.node.index + 1, bounds=_UNBOUNDED)
        yield found, _Layer(weight, bias, Twin(index, node.input[inputs.index(reader.data)], tuple(others)))


def _install(result: Model, twin: Model, reader: Reader, layer: _Layer, matrix: Array) -> None:
    """Give a layer new integers, in the result and in the network that runs."""
    weight = layer.weight
    integers = np.rint(reader.weight_of(matrix[:, : reader.features], weight.steps) / weight.steps)
    _write(result, twin, weight, integers)
    if layer.bias:
        bias = reader.bias_of(matrix[:, reader.features], layer.bias.steps) / layer.bias.steps
        _write(result, twin, layer.bias, np.clip(np.rint(bias), -_LARGEST_BIAS, _LARGEST_BIAS))


def _write(result: Model, twin: Model, constant: _Constant, integers: Array) -> None:
    kind = result.weights[constant.name].array().dtype
    result.weights[constant.name] = Weight(constant.name, None, integers.astype(kind))
    twin.weights[constant.value] = Weight(constant.value, None, (integers * constant.steps).astype(np.float32))
