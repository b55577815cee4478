"""Quantised operators.

While gradients are recorded, quantised values stay in floating point, whole numbers all the same: rounding lets gradients
straight through (Bengio et al. 2013), and none pass where values are cut off at the ends of the type.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.torch.ops.conv import conv
from onnxprune.torch.ops.pool import average_pool
from onnxprune.torch.registry import Node, op
from onnxprune.torch.tensors import FLOAT8, dtype_of, narrowed


class _Round(torch.autograd.Function):
    """To the nearest, ties to even; gradients pass as if nothing had been rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 - the signature is PyTorch's
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: ARG004 - as above
        return grads[0]


def aligned(values: Tensor, x: Tensor, axis: int, block: int = 0) -> Tensor:
    """Scales or zero points for each entry: one for all, one for each position of an axis, or one for each block along it."""
    if values.numel() == 1 and not block:
        return values.reshape(())
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return values.reshape([-1 if at == axis % x.dim() else 1 for at in range(x.dim())])


def quantized(x: Tensor, scale: Tensor, zero: Tensor | None, dtype: torch.dtype, *, saturate: bool = True) -> Tensor:
    """``round(x / scale) + zero`` cut off at the ends of the type."""
    if dtype in FLOAT8:
        return narrowed(x / scale, dtype, saturate=saturate)
    limits = torch.iinfo(dtype)
    whole: Tensor = _Round.apply(x / scale)  # type: ignore[no-untyped-call]
    whole = whole if zero is None else whole + zero.to(whole.dtype)
    whole = whole.clamp(limits.min, limits.max)
    return whole if whole.requires_grad else whole.to(dtype)


def real(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """``(x - zero) * scale``, in the type of the scale."""
    if x.is_floating_point() or x.dtype in FLOAT8:
        x = x.to(scale.dtype) if x.dtype in FLOAT8 else x
        return (x if zero is None else x - zero.to(x.dtype)) * scale
    wide = x.to(torch.int32)
    return (wide if zero is None else wide - zero.to(torch.int32)).to(scale.dtype) * scale


@op("QuantizeLinear", operands=(0,))
def quantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block, wanted = node.attr("axis", 1), node.attr("block_size", 0), node.attr("output_dtype", 0)
    dtype = zero.dtype if zero is not None else dtype_of(wanted) if wanted else torch.uint8
    points = None if zero is None or dtype in FLOAT8 else aligned(zero, x, axis, block)
    return quantized(x, aligned(scale, x, axis, block), points, dtype, saturate=bool(node.attr("saturate", 1)))


@op("DequantizeLinear", operands=(0,))
def dequantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block, wanted = node.attr("axis", 1), node.attr("block_size", 0), node.attr("output_dtype", 0)
    points = None if zero is None or x.dtype in FLOAT8 else aligned(zero, x, axis, block)
    y = real(x, aligned(scale, x, axis, block), points)
    return y.to(dtype_of(wanted)) if wanted else y


@op("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / scale).round().clamp(0, 255).detach().to(torch.uint8)
    return quantized(x, scale, zero, torch.uint8), scale, zero


@op("QLinearConv")
def qlinear_conv(
    node: Node,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """In float64, in which the products of integers are exact."""
    y: Tensor = conv(node, real(x, x_scale.double(), x_zero), real(w, aligned(w_scale.double(), w, 0), aligned(w_zero, w, 0)))
    if bias is not None:
        shape = [1, -1, *[1] * (y.dim() - 2)]
        y = y + (bias.double() * x_scale.double() * w_scale.double()).reshape(shape)
    return quantized(y, y_scale.double(), y_zero, y_zero.dtype)


@op("QLinearMatMul")
def qlinear_matmul(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """Scales of the first may be one per row, of the second one per column; in float64."""
    rows, columns = (real(a, _rows(a_scale.double()), _rows(a_zero)), real(b, b_scale.double(), b_zero))
    return quantized(torch.matmul(rows, columns), _rows(y_scale.double()), _rows(y_zero), y_zero.dtype)


def _rows(values: Tensor) -> Tensor:
    return values[:, None] if values.dim() == 1 and values.numel() > 1 else values


@op("ConvInteger")
def conv_integer(node: Node, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None) -> Tensor:
    one = torch.ones((), dtype=torch.float64, device=x.device)
    points = None if w_zero is None else aligned(w_zero, w, 0)
    y: Tensor = conv(node, real(x, one, x_zero), real(w, one, points))
    return y.round().to(torch.int32)


@op("MatMulInteger")
def matmul_integer(node: Node, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
    one = torch.ones((), dtype=torch.float64, device=a.device)
    rows = None if a_zero is None else _rows(a_zero)
    return torch.matmul(real(a, one, rows), real(b, one, b_zero)).round().to(torch.int32)


# ONNX Runtime's own: in real numbers and rounded again, in float64.

MS = "com.microsoft"


@op("QLinearAdd", "QLinearMul", domain=MS)
def qlinear_binary(node: Node, *xs: Tensor) -> Tensor:
    a, b = (real(x, scale.double(), zero) for x, scale, zero in (xs[:3], xs[3:6]))
    return quantized(a + b if node.op == "QLinearAdd" else a * b, xs[6].double(), xs[7], xs[7].dtype)


@op("QLinearLeakyRelu", "QLinearSigmoid", domain=MS)
def qlinear_unary(node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor, y_scale: Tensor, y_zero: Tensor) -> Tensor:
    value = real(x, x_scale.double(), x_zero)
    y = torch.sigmoid(value) if node.op == "QLinearSigmoid" else F.leaky_relu(value, node.attr("alpha", 0.01))
    return quantized(y, y_scale.double(), y_zero, y_zero.dtype)


@op("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MS)
def qlinear_pool(node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor, y_scale: Tensor, y_zero: Tensor) -> Tensor:
    value, last = real(x, x_scale.double(), x_zero), bool(node.attr("channels_last", 0))
    value = value.movedim(-1, 1) if last else value
    if node.op == "QLinearGlobalAveragePool":
        y = value.mean(list(range(2, value.dim())), keepdim=True)
    else:
        y = average_pool(node, value)
    return quantized(y.movedim(1, -1) if last else y, y_scale.double(), y_zero, y_zero.dtype)


@op("QLinearConcat", domain=MS)
def qlinear_concat(node: Node, scale: Tensor, zero: Tensor, *xs: Tensor) -> Tensor:
    parts = [real(xs[at], xs[at + 1].double(), xs[at + 2]) for at in range(0, len(xs), 3)]
    return quantized(torch.cat(parts, node.attr("axis")), scale.double(), zero, zero.dtype)


@op("QGemm", domain=MS)
def qgemm(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    bias: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
) -> Tensor:
    """The bias is in the scale of the product; without a scale for the result it stays real."""
    left, right = real(a, a_scale.double(), a_zero), b
    columns = -2 if node.attr("transB", 0) else -1
    right = real(b, aligned(b_scale.double(), b, columns), aligned(b_zero, b, columns))
    left, right = (x.mT if node.attr(name, 0) else x for x, name in ((left, "transA"), (right, "transB")))
    y = torch.matmul(left, right) * float(node.attr("alpha", 1.0))
    if bias is not None:
        y = y + bias.double() * a_scale.double() * b_scale.double()
    if y_scale is None or y_zero is None:
        return y.to(a_scale.dtype)
    return quantized(y, y_scale.double(), y_zero, y_zero.dtype)


@op("MatMulNBits", domain=MS, weights=(5,))
def matmul_nbits(
    node: Node,
    x: Tensor,
    packed: Tensor,
    scales: Tensor,
    zeros: Tensor | None = None,
    order: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """A matrix [k, n] in blocks along k, each with its scale; numbers of few bits share bytes, low bits first."""
    if order is not None:
        raise ModelError("g_idx: sort the rows of the matrix before it is quantised")
    k, n, bits, block = (node.attr(name) for name in ("K", "N", "bits", "block_size"))
    blocks = -(-k // block)
    values = _unpacked(packed.reshape(n, blocks, -1), bits).to(scales.dtype)[..., :block]
    if zeros is None:
        points = torch.full((n, blocks), 2.0 ** (bits - 1), dtype=scales.dtype, device=x.device)
    elif zeros.is_floating_point():
        points = zeros.reshape(n, blocks)
    else:
        points = _unpacked(zeros.reshape(n, -1), bits)[:, :blocks].to(scales.dtype)
    w = ((values - points[..., None]) * scales.reshape(n, blocks, 1)).reshape(n, -1)[:, :k]
    return F.linear(x, w, bias)


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    shifts = torch.arange(0, 8, bits, device=packed.device, dtype=torch.uint8)
    numbers: Tensor = (packed[..., None] >> shifts) & (2**bits - 1)
    return numbers.flatten(-2)
