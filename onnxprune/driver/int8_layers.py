"""Layers as ONNX Runtime's quantizer takes them: biases that are vectors, and which nodes it must leave alone, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from string import digits
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onnxprune.ir.node import captured, domain_of, every_graph, every_node
from onnxprune.ir.weights import Weight
from onnxprune.passes.bodies import replace_all
from onnxprune.runtime.int8_operators import LINEAR, is_direct

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array

__all__ = [
    "as_constants",
    "as_defaults",
    "left_alone",
    "make_biases_vectors",
    "masked_scores",
    "name_nodes",
    "scaled_whole",
    "separate_names",
    "unlike_parts",
]

_INTEGER = frozenset(
    {
        *("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul"),
        *("MatMulIntegerToFloat", "DynamicQuantizeLSTM", "MatMulNBits", "MatMulBnb4"),
    }
)
"""Operators of layers that are quantised already: of the standard, and of ONNX Runtime."""
_IN_INTEGERS = "it is quantised already"
_SUFFIXES = (
    *("_scale", "_zero_point", "_quantized", "_QuantizeLinear", "_DequantizeLinear"),
    *("_QuantizeLinear_Input", "_QuantizeLinear_Output", "_DequantizeLinear_Output"),
)
"""Of names that the quantizer makes."""
_RECTIFIERS = frozenset({"Relu", "Clip"})
_EXPONENTIAL = frozenset({"Softmax", "LogSoftmax"})
_LEVELS, _TOLD = 256, 8
"""Values that integers of 8 bits tell apart, and how few are too few for some of the numbers."""


def name_nodes(model: Model) -> bool:
    """Give every node of the main graph a name of its own, since the quantizer goes by names; tells whether one has changed.

    Inputs that are left out at the end are dropped: it takes a missing bias for one that is computed.
    """
    taken = Counter(node.name for node in model.graph.node)
    changed = False
    for number, node in enumerate(model.graph.node):
        while node.input and not node.input[-1]:
            node.input.pop()
            changed = True
        if not node.name or taken[node.name] > 1:
            name = f"{node.name or node.op_type}_{number}"
            while name in taken:
                name += "_"
            node.name, changed = name, True
            taken[name] += 1
    return changed


def separate_names(model: Model) -> bool:
    """Rename nodes, and values inside the graph, whose names the quantizer would give to others; tells whether there are any.

    It calls the scale of ``x`` ``x_scale``, and so does the one that has quantised a part of the model before. To it, copies of a
    bias ``b`` that several nodes read are ``b0``, ``b1``, ..., whatever else is called so.
    """
    changed = False
    for node in model.graph.node:
        if node.name.endswith(_SUFFIXES):
            node.name, changed = model.fresh_name(f"{node.name}__own"), True
    inside = {name for node in model.graph.node for name in node.output} | model.weights.keys()
    inside -= {value.name for value in (*model.graph.input, *model.graph.output)}
    inside.difference_update(*(captured(node) for node in model.graph.node))
    stems = {name: name.removesuffix(suffix) for suffix in _SUFFIXES for name in inside if name.endswith(suffix)}
    known = inside | {value.name for value in model.graph.input}
    clashing = {name for name, stem in stems.items() if stem in known} | (_copied(model) & inside)
    new = {name: model.fresh_name(f"{name}__own") for name in sorted(clashing)}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    for value in model.graph.value_info:
        value.name = new.get(value.name, value.name)
    model.weights = {new.get(name, name): weight.renamed(new.get(name, name)) for name, weight in model.weights.items()}
    return changed or bool(new)


def _copied(model: Model) -> set[str]:
    """The constants with several readers whose name, with a number behind it, is that of a value."""
    values = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
    numbered = {name[:end] for name in values for end in range(len(name.rstrip(digits)), len(name))}
    readers = Counter(name for node in model.graph.node for name in node.input)
    return {name for name in numbered & model.weights.keys() if readers[name] > 1}


def make_biases_vectors(model: Model) -> bool:
    """Give each ``Gemm`` with a constant bias one that is a vector, where it can be one; tells whether anything has changed.

    Exporters, and the optimizer that fuses ``MatMul`` and ``Add``, write biases of shape [1, N], [1] or [], which become [N]. One
    of shape [M, N], or with infinite entries, is added by a node of its own: ``Gemm(x, w, c)`` becomes ``Add(MatMul(x, w), c)``.
    """
    readers = model.consumers()
    nodes: list[NodeProto] = []
    changed = False
    for node in model.graph.node:
        bias, width = _bias(node, model)
        finite = bias is None or bool(np.isfinite(bias.array()).all())
        if bias is None or (finite and bias.shape == (width,)):
            nodes.append(node)
        elif finite and _is_row(bias, width):
            name = model.fresh_name(f"{bias.name}__row") if len(readers[bias.name]) > 1 else bias.name
            model.weights[name] = bias.derived((width,), _row(width)).renamed(name)
            node.input[2] = name
            nodes.append(node)
            changed = True
        elif _is_product(node):
            nodes += _apart(node, model)
            changed = True
        else:
            nodes.append(node)
    if changed:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return changed


def _bias(node: NodeProto, model: Model) -> tuple[Weight | None, int]:
    """The constant bias of a ``Gemm`` with a constant weight, and how many columns its output has; else none."""
    if node.op_type != "Gemm" or len(node.input) < 3 or node.input[1] not in model.weights:
        return None, 0
    weight = model.weights[node.input[1]]
    width = weight.shape[0 if _attribute(node, "transB", 0) else 1]
    return model.weights.get(node.input[2]), width


def _is_row(bias: Weight, width: int) -> bool:
    """Tell whether all rows that a bias is added to get the same."""
    return bias.shape[-1:] in {(), (1,), (width,)} and bias.size in {1, width} and (bias.size == 1 or bias.shape[-1] == width)


def _row(width: int) -> Callable[[Array], Array]:
    return lambda array: np.ascontiguousarray(np.broadcast_to(array.reshape(-1), width))


def _attribute(node: NodeProto, name: str, default: float) -> float:
    return next((float(helper.get_attribute_value(one)) for one in node.attribute if one.name == name), default)


def _is_product(node: NodeProto) -> bool:
    """Tell whether a ``Gemm`` is a ``MatMul`` and an ``Add``."""
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0.0, "transB": 0.0}
    return all(_attribute(node, name, value) == value for name, value in plain.items())


def _apart(node: NodeProto, model: Model) -> list[NodeProto]:
    """A ``Gemm`` as a product and a sum."""
    product = model.fresh_name(f"{node.output[0]}__product")
    model.graph.value_info.append(helper.make_tensor_value_info(product, TensorProto.FLOAT, None))
    return [
        helper.make_node("MatMul", list(node.input[:2]), [product], node.name),
        helper.make_node("Add", [product, node.input[2]], list(node.output), model.fresh_name(f"{node.name}_bias")),
    ]


def left_alone(model: Model, given: Collection[str], generated: Collection[str] = ()) -> dict[str, str]:
    """The nodes that the quantizer would spoil, or fail at, by name, with the reason why they stay as they are.

    Args:
        model: prepared for the quantizer.
        given: constants that callers may override.
        generated: weights that nodes of the file make of next to nothing.
    """
    found: dict[str, str] = {}
    for reasons in (
        _overridable(model, given),
        _generated(model, generated),
        _not_finite(model),
        _matrix_biases(model),
        _in_integers(model),
        _rectifiers(model),
    ):
        for name, why in reasons:
            found.setdefault(name, why)
    return found


def _overridable(model: Model, given: Collection[str]) -> Iterator[tuple[str, str]]:
    for node in model.graph.node:
        if any(name in given for name in node.input):
            yield node.name, "it reads an input that callers may override, unless `onnxprune release` makes it a constant"


def _generated(model: Model, generated: Collection[str]) -> Iterator[tuple[str, str]]:
    for node in model.graph.node:
        if any(name in generated for name in node.input):
            yield node.name, "nodes make its weight of fewer bytes than int8 takes"


def _not_finite(model: Model) -> Iterator[tuple[str, str]]:
    """Nodes that read an infinite constant: a range that holds it has no step."""
    read = {name for node in model.graph.node for name in node.input}
    weights = (weight for name, weight in model.weights.items() if name in read and weight.dtype == TensorProto.FLOAT)
    infinite = {weight.name for weight in weights if not np.isfinite(weight.array()).all()}
    for node in model.graph.node:
        for name in infinite.intersection(node.input):
            yield node.name, f"its constant {name!r} is not finite everywhere"


def _matrix_biases(model: Model) -> Iterator[tuple[str, str]]:
    for node in model.graph.node:
        bias, width = _bias(node, model)
        if bias is not None and bias.shape != (width,):
            yield node.name, f"its bias {bias.name!r} of shape {list(bias.shape)} is not one number for each column"


def _in_integers(model: Model) -> Iterator[tuple[str, str]]:
    """Nodes of layers that are quantised already: what computes in integers, and what scales its results.

    ``y = (float)MatMulInteger(q, w) * (s * t)`` with ``q, s = DynamicQuantizeLinear(x)``: the sums and the scales are no
    activations, and a range for them would lose what their bits hold. ``y`` is an activation again.
    """
    raw: set[str] = set()
    """Sums and scales."""
    for node in model.graph.node:
        if node.op_type in _INTEGER:
            yield node.name, _IN_INTEGERS
            raw.update(node.output if domain_of(node) == "" else ())
            continue
        read = raw.intersection(node.input)
        if not read or node.op_type not in {"Cast", "Mul"}:
            continue
        yield node.name, _IN_INTEGERS
        if node.op_type == "Cast" or len(read) < 2:
            raw.update(node.output)


def _rectifiers(model: Model) -> Iterator[tuple[str, str]]:
    """Rectifiers that the quantizer would take away although the range of integers does not do the same for all who read there.

    It gives the input of a rectifier the range of its output, and drops the node: who else reads the input gets it cut off, and a
    body that reads the output, where nothing is quantised, gets it whole.
    """
    inside = {name for node in model.graph.node for name in captured(node)}
    needed = inside | {output.name for output in model.graph.output}
    for node in model.graph.node:
        if node.op_type not in _RECTIFIERS:
            continue
        if node.input[0] in needed:
            yield node.name, f"what it cuts off {node.input[0]!r} is needed elsewhere"
        elif node.output[0] in inside:
            yield node.name, f"a branch or loop reads {node.output[0]!r}, which would not be cut off there"


def masked_scores(nodes: Sequence[NodeProto], ranges: Mapping[str, Sequence[Any]]) -> set[str]:
    """The values in front of a ``Softmax`` whose range leaves integers no room for scores: masks, and what they are added to.

    A mask is a number that stands for minus infinity: -10,000, or the least of float32. Integers that reach it are whole units
    apart or more, and the exponentials of neighbours differ by a factor of e.

    Args:
        nodes: of the graph.
        ranges: the least and the largest number of each value on samples.
    """
    makers = {name: node for node in nodes for name in node.output}
    wide = {name for name, (low, high) in ranges.items() if np.max(high) - np.min(low) >= _LEVELS}
    found: set[str] = set()
    todo = [node.input[0] for node in nodes if node.op_type in _EXPONENTIAL]
    while todo:
        name = todo.pop()
        if name in wide - found:
            found.add(name)
            todo += makers[name].input if name in makers else []
    return found


def unlike_parts(nodes: Sequence[NodeProto], ranges: Mapping[str, Sequence[Any]]) -> set[str]:
    """The values that hold numbers of unlike sizes side by side, next to which integers tell the small ones from zero no more.

    Detectors concatenate boxes in pixels and scores between 0 and 1, and arrange that. What layers multiply is left out: it has
    one scale in any case.

    Args:
        nodes: of the graph, in order.
        ranges: the least and the largest number of each value on samples.
    """
    spans = {name: float(max(np.max(high), 0) - min(np.min(low), 0)) for name, (low, high) in ranges.items()}
    multiplied: set[str] = set()
    for node in reversed(nodes):
        if node.op_type in LINEAR or (_arranges(node) and not multiplied.isdisjoint(node.output)):
            multiplied.update(node.input)
    found: set[str] = set()
    for node in nodes:
        if not _arranges(node) or not multiplied.isdisjoint(node.output):
            continue
        parts = [spans[name] for name in node.input if spans.get(name)] if node.op_type == "Concat" else []
        unlike = parts and min(parts) * _LEVELS < _TOLD * max(parts)
        if unlike or not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _arranges(node: NodeProto) -> bool:
    """Whether the numbers of a node are those that it reads, elsewhere."""
    return node.op_type in {"Concat", "Split"} or is_direct(node.op_type)


def scaled_whole(model: Model) -> list[str]:
    """The weights that must have one scale for all channels, because ONNX Runtime does not take one for each.

    These are stacks of matrices, which ``MatMul`` multiplies one by one, and weights of ``ConvTranspose`` with groups and a bias:
    their channels are those of one group, and the bias has those of all.
    """
    found = {}
    for node in model.graph.node:
        weight = model.weights.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None:
            continue
        stacked = node.op_type == "MatMul" and len(weight.shape) > 2
        grouped = node.op_type == "ConvTranspose" and len(node.input) > 2 and _attribute(node, "group", 1) > 1
        if stacked or grouped:
            found[weight.name] = True
    return list(found)


def as_defaults(model: Model, weights: Collection[Weight]) -> Model:
    """The model with weights as defaults of inputs, and without the nodes that make them; itself if there are none.

    ONNX Runtime folds no default into what follows, and its quantizer is told to leave the readers alone.
    """
    if not weights:
        return model
    changed = model.copy()
    made = {weight.name for weight in weights}
    while made:
        nodes = [node for node in changed.graph.node if made.isdisjoint(node.output)]
        gone = {name for node in changed.graph.node for name in node.input if not made.isdisjoint(node.output)}
        replace_all(changed.graph.node, nodes)
        read = {name for node in every_node(changed.graph) for name in node.input}
        read.update(value.name for graph in every_graph(changed.graph) for value in graph.output)
        made = gone - read - changed.weights.keys()  # by now, nobody needs the nodes in front either
    changed.weights |= {weight.name: weight for weight in weights}
    changed.graph.input.extend(helper.make_tensor_value_info(one.name, one.dtype, one.shape) for one in weights)
    return changed


def as_constants(model: Model, names: Collection[str]) -> Model:
    """The model with defaults of inputs as constants and nothing else."""
    replace_all(model.graph.input, [value for value in model.graph.input if value.name not in names])
    return model
