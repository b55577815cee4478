"""Elementwise operators: unary, broadcasting, activations."""

from __future__ import annotations

import string

from onnxprune.axes.equation import AxisRule, Clauses
from onnxprune.axes.rules.registry import NEVER, axes, rule
from onnxprune.ir.node import NodeView

ZERO_TO_ZERO = (
    "Abs", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Elu", "Erf", "Floor", "Gelu", "HardSwish", "Identity",
    "IsInf", "IsNaN", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Shrink", "Sign", "Sin", "Sinh", "Softsign", "Sqrt",
    "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
ZERO_TO_OTHER = ("Acos", "BitwiseNot", "Cos", "Cosh", "Exp", "HardSigmoid", "Not", "Sigmoid", "Softplus")
ALL: Clauses | None = None
"""Stands for "zero where every operand is", whatever their number."""
BROADCASTING: dict[str, Clauses | None] = {
    "Add": ALL, "And": ((0, 1),), "BitShift": ((0,),), "BitwiseAnd": ((0, 1),), "BitwiseOr": ALL, "BitwiseXor": ALL,
    "Div": ((0,),), "Equal": NEVER, "Greater": ALL, "GreaterOrEqual": NEVER, "Less": ALL, "LessOrEqual": NEVER, "Max": ALL,
    "Mean": ALL, "Min": ALL, "Mod": ((0,),), "Mul": ((0, 1),), "Or": ALL, "PRelu": ((0,),), "Sub": ALL,
    "Sum": ALL, "Where": ((1,), (2,)), "Xor": ALL,
}  # fmt: skip
DIVISORS = {"Div": (1,), "Mod": (1,)}


def broadcast(node: NodeView, operands: int, zero: Clauses, poles: tuple[int, ...] = (), outputs: int = 1) -> AxisRule:
    """The rule of an elementwise operator over its first ``operands`` inputs, aligned from the right; unit axes repeat."""
    sides = [aligned(node, position) for position in range(operands)]
    result = ", ".join([letters(node)] * outputs)
    return axes(f"{', '.join(sides)} -> {result}", zero=zero, poles=poles)


def letters(node: NodeView) -> str:
    """A letter for each axis of the output."""
    return " ".join(string.ascii_lowercase[: len(node.out())])


def aligned(node: NodeView, position: int) -> str:
    """The axes of an operand in the letters of the output, aligned from the right; unit axes repeat."""
    out, shape = node.out(), node.shape(position)
    names = letters(node).split()[len(out) - len(shape) :]
    ends = zip(names, shape, out[len(out) - len(shape) :], strict=True)
    return " ".join("1" if size == 1 != full else name for name, size, full in ends)


@rule(*ZERO_TO_ZERO, *ZERO_TO_OTHER)
def unary(node: NodeView) -> AxisRule:
    return axes("... -> ...", zero=NEVER if node.op in ZERO_TO_OTHER else None)


@rule("Acosh", "Log", "Reciprocal")
def pole_at_zero(node: NodeView) -> AxisRule:
    return axes("... -> ...", zero=NEVER, poles=(0,))


@rule("CastLike")
def cast_like(node: NodeView) -> AxisRule:
    return axes("... -> ...")  # the second input gives its type alone


@rule("Clip")
def clip(node: NodeView) -> AxisRule:
    low, high = (node.attr(name, node.const(at)) for name, at in (("min", 1), ("max", 2)))
    spans_zero = (low is None or low <= 0) and (high is None or high >= 0)
    known = all(node.const(at) is not None for at in (1, 2) if node.has(at))
    return axes("... -> ...", zero=None if spans_zero and known else NEVER)


@rule("Dropout")
def dropout(node: NodeView) -> AxisRule:
    if len(node.outputs) > 1:  # the mask is true everywhere
        return axes("... -> ..., ...", zero=NEVER)
    return axes("... -> ...")


@rule("Pow")
def power(node: NodeView) -> AxisRule:
    """Zero to a positive power is zero, to another one or infinite."""
    exponent = node.const(1)
    positive = exponent is not None and exponent.size == 1 and float(exponent.reshape(-1)[0]) > 0
    return broadcast(node, 2, ((0,),), ()) if positive else broadcast(node, 2, NEVER, (0,))


@rule(*BROADCASTING)
def broadcasting(node: NodeView) -> AxisRule:
    count = len(node.inputs)
    zero = BROADCASTING[node.op] or tuple((position,) for position in range(count))
    return broadcast(node, count, zero, DIVISORS.get(node.op, ()))
