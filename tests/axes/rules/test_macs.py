"""The multiply-accumulates of each operator, by hand: a rule that forgets one of its products makes a model look cheap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from axes.rules import samples
from axes.rules.conformance import draw, stated, whole
from axes.rules.more_samples import MORE
from axes.rules.samples import Sample
from onnxprune.axes.node_axes import NodeAxes

Shapes = Sequence[Any]
Attributes = dict[str, Any]
Count = Callable[[Shapes, tuple[int, ...], Attributes], int]
"""From the shapes of the inputs, that of the first output, and the attributes."""


def convolution(weight: int) -> Count:
    """Each output is a sum over the channels of its group and the positions of the kernel."""
    return lambda ins, out, _: math.prod(out) * math.prod(ins[weight][1:])


def matrix(ins: Shapes, out: tuple[int, ...], attrs: Attributes) -> int:
    return int(math.prod(out) * ins[0][-2 if attrs.get("transA") else -1])


def einsum(ins: Shapes, out: tuple[int, ...], attrs: Attributes) -> int:
    """One product for each combination of the letters."""
    sizes: dict[str, int] = {}
    for term, shape in zip(attrs["equation"].replace(" ", "").partition("->")[0].split(","), ins, strict=True):
        letters = term.replace("...", "XYZ"[: len(shape) - len(term) + 3])
        sizes |= zip(letters, shape, strict=True)
    return math.prod(sizes.values())


def recurrent(ins: Shapes, out: tuple[int, ...], attrs: Attributes) -> int:
    """Both matrices, in every step, for every sample."""
    (steps, batch, _), *matrices = ins[:3]
    return int(steps * batch * sum(map(math.prod, matrices)))


def attention(ins: Shapes, out: tuple[int, ...], attrs: Attributes) -> int:
    """Scores of every query with every key, then a mean of values for every query; [batch, tokens, width], or by heads."""
    (batch, *_), query, key, value = ins[0], *ins[:3]
    heads = attrs.get("q_num_heads") or attrs.get("num_heads")
    if len(query) == 3:
        width, groups = query[2] // heads, attrs.get("kv_num_heads", heads)
        return int(batch * heads * query[1] * key[1] * (width + value[2] // groups))
    cached = ins[4][2] if len(ins) > 4 and ins[4] else 0
    return int(batch * query[1] * query[2] * (key[2] + cached) * (query[3] + value[3]))


def packed_attention(ins: Shapes, out: tuple[int, ...], attrs: Attributes) -> int:
    """The projection to queries, keys and values, then attention among the tokens."""
    (batch, tokens, width), (_, columns) = ins[:2]
    queries, _, values = attrs.get("qkv_hidden_sizes") or (columns // 3,) * 3
    return int(batch * tokens * (width * columns + tokens * (queries + values)))


def grouped_attention(ins: Shapes, out: tuple[int, ...], attrs: Attributes) -> int:
    """As `attention`; the numbers of keys and values are those of the cache and of the new tokens."""
    (batch, tokens, width), cached = out, ins[3][2] if ins[3] else 0
    return int(batch * tokens * (tokens + cached) * 2 * width)


MS = "com.microsoft"
COUNTS: dict[tuple[str, str], Count] = {
    ("", "Conv"): convolution(1),
    ("", "ConvInteger"): convolution(1),
    ("", "QLinearConv"): convolution(3),
    (MS, "FusedConv"): convolution(1),
    ("", "ConvTranspose"): lambda ins, _out, _attrs: math.prod(ins[0]) * math.prod(ins[1][1:]),  # each input is spread
    ("", "MatMul"): matrix,
    ("", "MatMulInteger"): matrix,
    ("", "QLinearMatMul"): matrix,
    ("", "Gemm"): matrix,
    (MS, "QGemm"): matrix,
    (MS, "FusedMatMul"): matrix,
    (MS, "MatMulNBits"): matrix,
    ("", "Einsum"): einsum,
    ("", "LSTM"): recurrent,
    ("", "GRU"): recurrent,
    ("", "RNN"): recurrent,
    ("", "Attention"): attention,
    (MS, "Attention"): packed_attention,
    (MS, "MultiHeadAttention"): attention,
    (MS, "GroupQueryAttention"): grouped_attention,
}


def counted(sample: Sample) -> bool:
    node = stated(sample)
    return isinstance(node, NodeAxes) and bool(node.rule.macs)


@pytest.mark.parametrize(
    "sample",
    [sample for sample in (*samples.SAMPLES, *MORE) if (sample.domain, sample.op) in COUNTS],
    ids=lambda sample: sample.id,
)
def test_products_are_counted(sample: Sample) -> None:
    node, given = stated(sample), draw(sample, "positive")
    assert isinstance(node, NodeAxes)
    found = sum(math.prod(node.sizes[letter] for letter in letters) for letters in node.rule.macs)
    shapes = [None if value is None else value.shape for value in given]
    assert found == COUNTS[sample.domain, sample.op](shapes, whole(sample)(given)[0].shape, sample.attrs)


def test_every_operator_that_counts_products_is_counted_by_hand() -> None:
    assert {(sample.domain, sample.op) for sample in (*samples.SAMPLES, *MORE) if counted(sample)} == COUNTS.keys()
