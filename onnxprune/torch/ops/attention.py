"""Fused attention: queries [b, heads, s, d], keys [b, groups, t, d], values [b, groups, t, v].

Each group of keys and values is read by ``heads / groups`` heads of queries that follow each other.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.torch.registry import Node, op
from onnxprune.torch.tensors import dtype_of

MS = "com.microsoft"


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b, s, heads * d] as [b, heads, s, d]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[b, heads, s, d] as [b, s, heads * d]."""
    return x.transpose(1, 2).flatten(2)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask that is added: where a boolean one is false, minus infinity."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -math.inf)


def causal(queries: int, keys: int, offset: Tensor | int, device: torch.device) -> Tensor:
    """True where query ``i`` may read key ``j``: up to ``i + offset``; one offset, or one per batch. [.., s, t]"""
    rows, columns = torch.arange(queries, device=device)[:, None], torch.arange(keys, device=device)
    return columns <= rows + (offset if isinstance(offset, int) else offset.reshape(-1, 1, 1, 1))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
    *,
    softcap: float = 0.0,
    precision: torch.dtype | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Attention, and its scores: raw, softcapped, with the bias, after softmax. Rows that may read no key are zero."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) if x.shape[1] != q.shape[1] else x for x in (k, v))
    root = math.sqrt(scale)
    raw = torch.matmul(q * root, (k * root).mT)
    capped = torch.tanh(raw / softcap) * softcap if softcap else raw
    biased = capped if bias is None else capped + bias
    wide = biased if precision is None else biased.to(precision)
    if bias is None:
        shares = torch.softmax(wide, -1)
    else:
        shut = torch.isneginf(bias).all(-1, keepdim=True)
        shares = torch.softmax(wide.masked_fill(shut, 0), -1).masked_fill(shut, 0)
    shares = shares.to(q.dtype)
    return torch.matmul(shares, v), (raw, capped, biased, shares)


@op("Attention")
def attention(
    node: Node,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Since operator set 23; causal and window masks are aligned to the end of what a cache holds."""
    flat = q.dim() == 3
    if flat:
        q = split_heads(q, node.attr("q_num_heads"))
        k, v = (split_heads(x, node.attr("kv_num_heads")) for x in (k, v))
    offset: Tensor | int = 0
    if past_key is not None and past_value is not None:
        offset, k, v = past_key.shape[2], torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    elif lengths is not None:
        offset = lengths.reshape(-1) - q.shape[2]
    bias = _bias(node, q, k.shape[2], mask, offset, lengths)
    scale = node.attr("scale") or q.shape[-1] ** -0.5
    precision = node.attr("softmax_precision")
    y, scores = attend(
        q, k, v, bias, scale, softcap=node.attr("softcap", 0.0), precision=None if precision is None else dtype_of(precision)
    )
    return merge_heads(y) if flat else y, k, v, scores[node.attr("qk_matmul_output_mode", 0)]


def _bias(node: Node, q: Tensor, keys: int, mask: Tensor | None, offset: Tensor | int, lengths: Tensor | None) -> Tensor | None:
    """Everything that is added to the scores; positions that a short mask leaves out are not read."""
    parts = []
    queries, device = q.shape[2], q.device
    if mask is not None:
        parts.append(F.pad(additive(mask, q.dtype), [0, keys - mask.shape[-1]], value=-math.inf))
    allowed = []
    if node.attr("is_causal", 0):
        allowed.append(causal(queries, keys, offset, device))
    left, right = node.attr("left_window_size", -1), node.attr("right_window_size", -1)
    if right >= 0:
        allowed.append(causal(queries, keys, offset + right, device))
    if left >= 0:
        allowed.append(~causal(queries, keys, offset - left - 1, device))
    if lengths is not None:
        allowed.append(torch.arange(keys, device=device) < lengths.reshape(-1, 1, 1, 1))
    parts += [additive(one, q.dtype) for one in allowed]
    bias = sum(parts[1:], parts[0]) if parts else None
    return bias if bias is None or bias.dim() > 1 else bias.expand(queries, keys)


# ONNX Runtime's own.


def _key_mask(node: Node, mask: Tensor | None, queries: int, keys: int) -> Tensor | None:
    """True at keys that may be read, from lengths [b] or flags [b, t] or [b, s, t]."""
    if mask is None:
        return None
    if mask.dim() == 1:
        if len(mask) % 3 == 2 and len(mask) > 2:
            raise ModelError("packed lengths of queries and keys: give a mask [batch, keys]")
        return torch.arange(keys, device=mask.device) < mask.reshape(-1, 1, 1, 1)
    flags = mask != 0
    return flags[:, None, None] if mask.dim() == 2 else flags[:, None] if mask.dim() == 3 else flags


def _masked(node: Node, q: Tensor, keys: int, allowed: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """ONNX Runtime writes a large negative number where nothing may be read; causal masks are aligned to the end."""
    low = node.attr("mask_filter_value", -10000.0)
    parts = [] if bias is None else [bias]
    if allowed is not None:
        parts.append(torch.zeros(allowed.shape, dtype=q.dtype, device=q.device).masked_fill(~allowed, low))
    if node.attr("unidirectional", 0):
        parts.append(additive(causal(q.shape[2], keys, keys - q.shape[2], q.device), q.dtype))
    return sum(parts[1:], parts[0]) if parts else None


@op("Attention", domain=MS, weights=(1, 2))
def packed_attention(
    node: Node,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    scores: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Projection and attention in one node; queries, keys and values side by side in one matrix."""
    if node.attr("do_rotary", 0):
        raise ModelError("do_rotary: rotate queries and keys with RotaryEmbedding")
    heads = node.attr("num_heads")
    widths = node.attr("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    packed = torch.matmul(x, w) if bias is None else torch.matmul(x, w) + bias
    q, k, v = (split_heads(part, heads) for part in packed.split(widths, -1))
    if past is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    allowed = _key_mask(node, mask, q.shape[2], k.shape[2])
    y, _ = attend(q, k, v, _masked(node, q, k.shape[2], allowed, scores), node.attr("scale") or q.shape[-1] ** -0.5)
    return (merge_heads(y), torch.stack([k, v])) if node.outputs > 1 else (merge_heads(y),)


@op("MultiHeadAttention", domain=MS, weights=(3,))
def multi_head_attention(
    node: Node,
    q: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    scores: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
) -> tuple[Tensor, ...]:
    heads = node.attr("num_heads")
    if k is None or v is None:
        raise ModelError("queries, keys and values packed in one tensor: split them before the node")
    if bias is not None:
        q_bias, k_bias, v_bias = bias.split([q.shape[-1], q.shape[-1], len(bias) - 2 * q.shape[-1]])
        q, k, v = q + q_bias, k + k_bias if k.dim() == 3 else k, v + v_bias if v.dim() == 3 else v
    q = split_heads(q, heads)
    k, v = (split_heads(x, heads) if x.dim() == 3 else x for x in (k, v))
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    allowed = _key_mask(node, mask, q.shape[2], k.shape[2])
    y, _ = attend(q, k, v, _masked(node, q, k.shape[2], allowed, scores), node.attr("scale") or q.shape[-1] ** -0.5)
    return merge_heads(y), k, v


def rotated(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool) -> Tensor:
    """Pairs in the heads of [b, heads, s, d] turned by angles [b or 1, s, r / 2]; what is beyond ``r`` stays."""
    cos, sin = cos[:, None], sin[:, None]
    width = 2 * cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    one, other = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    real, imaginary = cos * one - sin * other, sin * one + cos * other
    both = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
    return torch.cat([both, rest], -1) if rest.shape[-1] else both


@op("RotaryEmbedding")
def rotary_embedding(node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
    flat = x.dim() == 3
    heads = split_heads(x, node.attr("num_heads")) if flat else x
    if positions is not None:
        cos, sin = cos[positions.long()], sin[positions.long()]
    y = rotated(heads, cos, sin, interleaved=bool(node.attr("interleaved", 0)))
    return merge_heads(y) if flat else y


@op("RotaryEmbedding", domain=MS)
def rotary_embedding_of_runtime(node: Node, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Positions are one for each token, or one to start from."""
    flat = x.dim() == 3
    heads = node.attr("num_heads", 0) or (x.shape[2] // (2 * cos.shape[1]) if flat else x.shape[1])
    split = split_heads(x, heads) if flat else x
    places = positions.long()
    if positions.dim() < 2:
        places = places.reshape(1, 1) + torch.arange(split.shape[2], device=x.device)
    y = rotated(split, cos[places], sin[places], interleaved=bool(node.attr("interleaved", 0)))
    return merge_heads(y) if flat else y


@op("GroupQueryAttention", domain=MS, host=(6,))
def group_query_attention(
    node: Node,
    q: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    lengths: Tensor,
    total: Tensor,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Causal attention over a cache: ``lengths`` are those of all keys, less one, for each batch; ``total`` is the largest."""
    heads, groups = node.attr("num_heads"), node.attr("kv_num_heads")
    if k is None or v is None:
        q, k, v = q.split([q.shape[2] * heads // (heads + 2 * groups), *[q.shape[2] * groups // (heads + 2 * groups)] * 2], 2)
    q, k, v = split_heads(q, heads), split_heads(k, groups), split_heads(v, groups)
    new, whole = q.shape[2], int(total)
    before = torch.zeros_like(lengths) if new == whole else lengths + 1 - new
    places = before.reshape(-1, 1).long() + torch.arange(new, device=q.device)
    if node.attr("do_rotary", 0) and cos is not None and sin is not None:
        turn = bool(node.attr("rotary_interleaved", 0))
        q, k = (rotated(x, cos[places], sin[places], interleaved=turn) for x in (q, k))
    k, v = (_cached(past, x, places, whole) for past, x in ((past_key, k), (past_value, v)))
    columns = torch.arange(k.shape[2], device=q.device)
    allowed = columns <= places[:, None, :, None]
    window = node.attr("local_window_size", -1)
    if window >= 0:
        allowed = allowed & (columns > places[:, None, :, None] - window)
    scale = node.attr("scale") or q.shape[-1] ** -0.5
    y, _ = attend(q, k, v, additive(allowed, q.dtype), scale, softcap=node.attr("softcap", 0.0))
    return merge_heads(y), k, v


def _cached(past: Tensor | None, x: Tensor, places: Tensor, whole: int) -> Tensor:
    """New keys or values [b, groups, s, d] in a cache, at their places [b, s]."""
    room = max(whole, 0 if past is None else past.shape[2])
    cache = x.new_zeros(*x.shape[:2], room, x.shape[3])
    if past is not None:
        cache = torch.cat([past, cache[:, :, past.shape[2] :]], 2)
    return cache.scatter(2, places[:, None, :, None].expand(x.shape), x)
