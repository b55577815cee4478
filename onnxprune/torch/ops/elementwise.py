"""Elementwise operators: unary, broadcasting, activations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.registry import ANY, Node, op
from onnxprune.torch.tensors import FLOAT8, dtype_of, narrowed

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh, "Atan": torch.atan,
    "Atanh": torch.atanh, "BitwiseNot": torch.bitwise_not, "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "HardSwish": F.hardswish, "IsNaN": torch.isnan, "Log": torch.log,
    "Mish": F.mish, "Neg": torch.neg, "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Relu": torch.relu,
    "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh,
    "Softsign": F.softsign, "Sqrt": torch.sqrt, "Tan": torch.tan, "Tanh": torch.tanh,
}  # fmt: skip
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add, "And": torch.logical_and, "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor, "Equal": torch.eq, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Less": torch.lt,
    "LessOrEqual": torch.le, "Mul": torch.mul, "Or": torch.logical_or, "Sub": torch.sub, "Xor": torch.logical_xor,
}  # fmt: skip


_STORED = {torch.uint16, torch.uint32}
"""Types in which PyTorch stores numbers and hardly computes."""


def _widened(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function on types that PyTorch computes in; results come back in the type of the inputs, or as booleans."""

    @functools.wraps(function)
    def compute(node: Node, *xs: Tensor) -> Tensor:
        dtype = xs[0].dtype
        if dtype not in _STORED:
            return function(node, *xs)
        result = function(node, *(x.to(torch.int64) for x in xs))
        return result if result.dtype == torch.bool else result.to(dtype)

    return compute


@op(*UNARY)
@_widened
def unary(node: Node, x: Tensor) -> Tensor:
    return UNARY[node.op](x)


@op(*BINARY, operands=ANY)
@_widened
def binary(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return BINARY[node.op](a, b)


@op("Identity", operands=(0,))
def identity(node: Node, x: Tensor) -> Tensor:
    return x


@op("Div", operands=ANY)
@_widened
def div(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() or b.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@op("Mod")
@_widened
def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.attr("fmod", 0) else torch.remainder(a, b)


@op("Pow")
def power(node: Node, x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x, y).to(x.dtype)


@op("Max", "Min", "Sum", "Mean", operands=ANY)
@_widened
def variadic(node: Node, *xs: Tensor) -> Tensor:
    fold: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"Max": torch.maximum, "Min": torch.minimum}
    result = functools.reduce(fold.get(node.op, torch.add), xs)
    return result / len(xs) if node.op == "Mean" else result


@op("Where", operands=(1, 2))
def where(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


@op("BitShift")
def bit_shift(node: Node, x: Tensor, by: Tensor) -> Tensor:
    wide = x.to(torch.int64)  # what is shifted out of an unsigned type goes when it is cast back
    shifted = torch.bitwise_left_shift if node.attr("direction") == "LEFT" else torch.bitwise_right_shift
    return shifted(wide, by.to(torch.int64)).to(x.dtype)


@op("Clip", until=10)
def clip_to_attributes(node: Node, x: Tensor) -> Tensor:
    return torch.clamp(x, node.attr("min", -math.inf), node.attr("max", math.inf))


@op("Clip", since=11)
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if low is None and high is None:
        return x
    return torch.clamp(x, low, high)


@op("Cast", "CastLike", operands=(0,))
def cast(node: Node, x: Tensor, like: Tensor | None = None) -> Tensor:
    """Gradients pass between floating-point types. Numbers become integers by truncation, text is not known."""
    dtype = dtype_of(node.attr("to")) if like is None else like.dtype
    return narrowed(x, dtype, saturate=bool(node.attr("saturate", 1))) if dtype in FLOAT8 else x.to(dtype)


@op("Dropout", until=11, trains=True)
def dropout_by_attribute(node: Node, x: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
    """The mask has the type of the values before version 10; in evaluation mode it stays zero, as in ONNX Runtime."""
    y, kept = _dropped(x, node.attr("ratio", 0.5), training)
    mask = kept if training else torch.zeros_like(kept)
    return y, mask.to(x.dtype) if node.opset < 10 else mask


@op("Dropout", since=12, trains=True, host=(1, 2))
def dropout(
    node: Node, x: Tensor, ratio: Tensor | None = None, mode: Tensor | None = None, *, training: bool
) -> tuple[Tensor, Tensor]:
    """Drops in train mode, and where the graph says so itself."""
    always = mode is not None and bool(mode)
    return _dropped(x, 0.5 if ratio is None else float(ratio), training or always)


def _dropped(x: Tensor, ratio: float, training: bool) -> tuple[Tensor, Tensor]:
    if not training or ratio == 0:
        return x, torch.ones_like(x, dtype=torch.bool)
    kept = torch.rand_like(x, dtype=torch.float32) >= ratio
    return x * kept / (1 - ratio) if ratio < 1 else x * 0, kept


@op("IsInf")
def is_inf(node: Node, x: Tensor) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    if node.attr("detect_positive", 1):
        found = found | torch.isposinf(x)
    return found | torch.isneginf(x) if node.attr("detect_negative", 1) else found


# Activations.


@op("Celu")
def celu(node: Node, x: Tensor) -> Tensor:
    return F.celu(x, node.attr("alpha", 1.0))


@op("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.attr("alpha", 1.0))


@op("Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=node.attr("approximate", "none"))


@op("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return torch.clamp(x * node.attr("alpha", 0.2) + node.attr("beta", 0.5), 0, 1)


@op("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.attr("alpha", 0.01))


@op("PRelu", weights=(1,))
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@op("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.attr("alpha", 1.67326319217681884765625), node.attr("gamma", 1.05070102214813232421875)
    return F.elu(x, alpha) * float(gamma)


@op("Shrink")
def shrink(node: Node, x: Tensor) -> Tensor:
    bias, lambd = node.attr("bias", 0.0), node.attr("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))


@op("Softplus")
def softplus(node: Node, x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


@op("Swish")
def swish(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.attr("alpha", 1.0) * x)


@op("ThresholdedRelu")
def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.attr("alpha", 1.0), x, torch.zeros_like(x))


@op("SwiGLU")
def swiglu(node: Node, gate: Tensor, value: Tensor) -> Tensor:
    return gate * torch.sigmoid(node.attr("alpha", 1.0) * gate) * value
