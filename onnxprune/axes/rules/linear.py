"""Matrix products."""

from __future__ import annotations

import re

from onnxprune.axes.equation import AxisRule
from onnxprune.axes.rules.registry import Refused, axes, rule
from onnxprune.ir.node import NodeView
from onnxprune.ir.types import Shape


@rule("MatMul")
def matmul(node: NodeView) -> AxisRule:
    left, right, out, letters = matmul_axes(node.shape(0), node.shape(1), node.out())
    return axes(f"{left}, {right} -> {out}", zero=((0, 1),), macs=letters)


def matmul_axes(a: Shape, b: Shape, out: Shape) -> tuple[str, str, str, str]:
    """``... m k, ... k n -> ... m n`` and its letters; a vector lacks its outer axis, batch axes broadcast."""
    row, column = "m " if len(a) > 1 else "", "n" if len(b) > 1 else ""
    tail = f"{row}{column}"
    batch = out[: len(out) - len(tail.split())]
    names = [f"b{i}" for i in range(len(batch))]
    left, right = (
        " ".join(
            "1" if size == 1 != full else name
            for name, size, full in zip(names[len(names) - len(shape) :], shape, batch[len(batch) - len(shape) :], strict=True)
        )
        for shape in (a[:-2], b[:-2])
    )
    return f"{left} {row}k", f"{right} k {column}", f"{' '.join(names)} {tail}", " ".join([*names, "k", *tail.split()])


@rule("Gemm")
def gemm(node: NodeView) -> AxisRule:
    a = "k m" if node.attr("transA", 0) else "m k"
    b = "n k" if node.attr("transB", 0) else "k n"
    bias = ""
    if node.has(2):
        out, shape = node.out(), node.shape(2)
        ends = zip(("m", "n")[2 - len(shape) :], shape, out[2 - len(shape) :], strict=True)
        bias = ", " + " ".join("1" if size == 1 != full else name for name, size, full in ends)
    return axes(f"{a}, {b}{bias} -> m n", zero=((0, 1), (2,)), macs="m k n")


@rule("Einsum")
def einsum(node: NodeView) -> AxisRule | Refused:
    """Its own equation; every letter is a factor, and letters only on the left are contracted."""
    text = node.attr("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    if not arrow:
        once = sorted({c for c in left if c.isalpha() and left.count(c) == 1})
        right = ("..." if "..." in left else "") + "".join(once)
    terms = [re.findall(r"\.\.\.|[A-Za-z]", term) for term in (*left.split(","), right)]
    if any(len(set(term)) < len(term) for term in terms):
        return Refused(f"a letter occurs twice in one term of {text!r}")
    dots = [len(node.shape(i)) - len(term) + 1 for i, term in enumerate(terms[:-1]) if "..." in term]
    if any("..." in term for term in terms) and len(set(dots)) > 1:
        return Refused(f"the ellipses of {text!r} broadcast")
    sides = [" ".join(term) for term in terms]
    letters = sorted({c for term in terms for c in term} - {"..."}) + [f"dim{i}" for i in range(dots[0] if dots else 0)]
    operands = tuple(range(len(terms) - 1))
    return axes(f"{', '.join(sides[:-1])} -> {sides[-1]}", zero=(operands,), macs=" ".join(letters))
