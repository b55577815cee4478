"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.registry import Node, op

CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def pads_of(node: Node, sizes: list[int], kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    """Padding of a sliding window: all begins, then all ends; ``auto_pad`` computed from the sizes."""
    auto, rank = node.attr("auto_pad", "NOTSET"), len(sizes)
    if auto == "VALID":
        return [0] * (2 * rank)
    if auto == "NOTSET":
        return list(node.attr("pads", [0] * (2 * rank)))
    begins, ends = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(large if auto == "SAME_LOWER" else small)
        ends.append(small if auto == "SAME_LOWER" else large)
    return begins + ends


def padded(x: Tensor, pads: list[int], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """The tensor and the symmetric padding that is left to do; uneven padding is done here."""
    rank = len(pads) // 2
    begins, ends = pads[:rank], pads[rank:]
    if begins == ends and min(begins, default=0) >= 0:
        return x, begins
    spelled = [amount for pair in zip(reversed(begins), reversed(ends), strict=True) for amount in pair]
    return F.pad(x, spelled, value=value), [0] * rank


@op("Conv", weights=(1, 2))
def conv(node: Node, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = w.dim() - 2
    strides, dilations = node.attr("strides", [1] * rank), node.attr("dilations", [1] * rank)
    x, padding = padded(x, pads_of(node, list(x.shape[2:]), list(w.shape[2:]), strides, dilations))
    return CONV[rank](x, w, bias, strides, padding, dilations, node.attr("group", 1))


@op("ConvTranspose", weights=(1, 2))
def conv_transpose(node: Node, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = w.dim() - 2
    strides, dilations = node.attr("strides", [1] * rank), node.attr("dilations", [1] * rank)
    extra, group = list(node.attr("output_padding", [0] * rank)), node.attr("group", 1)
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, w.shape[2:], dilations, strict=True)]
    begins, ends = _transposed_pads(node, list(x.shape[2:]), full, strides, extra)
    if begins == ends and all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        return TRANSPOSED[rank](x, w, bias, strides, begins, extra, group, dilations)
    y = TRANSPOSED[rank](x, w, None, strides, 0, 0, group, dilations)
    # what is padded is cut off; rows that no input reaches hold the bias alone
    spelled: list[Any] = [v for b, e, o in zip(begins[::-1], ends[::-1], extra[::-1], strict=True) for v in (-b, o - e)]
    y = F.pad(y, spelled)
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def _transposed_pads(
    node: Node, sizes: list[int], full: list[int], strides: list[int], extra: list[int]
) -> tuple[list[int], list[int]]:
    auto, wanted, rank = node.attr("auto_pad", "NOTSET"), node.attr("output_shape"), len(sizes)
    if wanted is None and auto in {"NOTSET", "VALID"}:
        pads = node.attr("pads", [0] * (2 * rank)) if auto == "NOTSET" else [0] * (2 * rank)
        return list(pads[:rank]), list(pads[rank:])
    wanted = [n * s for n, s in zip(sizes, strides, strict=True)] if wanted is None else wanted[-rank:]
    total = [f + o - w for f, o, w in zip(full, extra, wanted, strict=True)]
    if auto == "SAME_UPPER":
        return [t // 2 for t in total], [t - t // 2 for t in total]
    return [t - t // 2 for t in total], [t // 2 for t in total]
