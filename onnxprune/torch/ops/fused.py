"""Operators of ONNX Runtime's own domain that fuse others, as its optimizer writes them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.ops.conv import conv
from onnxprune.torch.registry import Node, op

MS = "com.microsoft"
FUSED_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "": lambda x: x,
    "Clip": torch.clamp,
    "HardSigmoid": lambda x, alpha, beta: torch.clamp(x * alpha + beta, 0, 1),
    "LeakyRelu": F.leaky_relu,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}


@op("Gelu", domain=MS)
def gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x)


@op("QuickGelu", domain=MS)
def quick_gelu(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.attr("alpha", 1.702) * x)


@op("BiasGelu", domain=MS, weights=(1,))
def bias_gelu(node: Node, x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x + bias)


@op("FastGelu", domain=MS, weights=(1,))
def fast_gelu(node: Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@op("FusedConv", domain=MS, weights=(1, 2))
def fused_conv(node: Node, x: Tensor, w: Tensor, bias: Tensor | None = None, added: Tensor | None = None) -> Tensor:
    y: Tensor = conv(node, x, w, bias)
    y = y if added is None else y + added
    return FUSED_ACTIVATIONS[node.attr("activation", "")](y, *node.attr("activation_params", []))


@op("FusedMatMul", domain=MS, weights=(0, 1))
def fused_matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    a = _turned(a, batch=node.attr("transBatchA", 0), last=node.attr("transA", 0))
    b = _turned(b, batch=node.attr("transBatchB", 0), last=node.attr("transB", 0))
    return torch.matmul(a, b) * float(node.attr("alpha", 1.0))


def _turned(x: Tensor, *, batch: int, last: int) -> Tensor:
    """The first axis before the last one, then the last two exchanged."""
    x = x.movedim(0, -2) if batch and x.dim() > 2 else x
    return x.mT if last and x.dim() > 1 else x


@op("SkipLayerNormalization", domain=MS, weights=(2, 3, 4))
def skip_layer_normalization(
    node: Node, x: Tensor, skip: Tensor, scale: Tensor, shift: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    total = x + skip if bias is None else x + skip + bias
    y, mean, inverse = _normal(total, scale, shift, node.attr("epsilon", 1e-12))
    return y, mean, inverse, total


def _normal(x: Tensor, scale: Tensor, shift: Tensor | None, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(-1, keepdim=True)
    inverse = torch.rsqrt((x - mean).square().mean(-1, keepdim=True) + epsilon)
    return F.layer_norm(x, [x.shape[-1]], scale, shift, epsilon), mean, inverse


@op("SkipSimplifiedLayerNormalization", domain=MS, weights=(2, 3))
def skip_rms_normalization(
    node: Node, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor | None, ...]:
    total = x + skip if bias is None else x + skip + bias
    inverse = torch.rsqrt(total.square().mean(-1, keepdim=True) + node.attr("epsilon", 1e-12))
    return total * inverse * scale, None, inverse, total


@op("EmbedLayerNormalization", domain=MS, weights=(2, 3, 4, 5, 6))
def embed_layer_normalization(
    node: Node,
    words: Tensor,
    segments: Tensor | None,
    word_table: Tensor,
    position_table: Tensor,
    segment_table: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Sums of embeddings, normalised; then how many tokens of each row count, then the sums."""
    places = torch.arange(words.shape[1], device=words.device)[None] if positions is None else positions
    total = F.embedding(words.long(), word_table) + F.embedding(places.long(), position_table)
    if segments is not None and segment_table is not None:
        total = total + F.embedding(segments.long(), segment_table)
    y, _, _ = _normal(total, scale, shift, node.attr("epsilon", 1e-12))
    count = torch.zeros(len(words), dtype=torch.int32, device=words.device) if mask is None else mask.sum(1, dtype=torch.int32)
    return y, count, total
