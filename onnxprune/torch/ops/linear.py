"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.torch.registry import ANY, Node, op


@op("MatMul", weights=(0, 1))
def matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@op("Gemm", weights=(0, 1, 2))
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.mT if node.attr("transA", 0) else a
    b = b.mT if node.attr("transB", 0) else b
    alpha, beta = float(node.attr("alpha", 1.0)), float(node.attr("beta", 1.0))
    if c is None:
        return torch.matmul(a, b) * alpha if alpha != 1 else torch.matmul(a, b)
    if alpha == beta == 1:
        return torch.addmm(c, a, b)
    return torch.matmul(a, b) * alpha + c * beta


@op("Einsum", weights=ANY)
def einsum(node: Node, *xs: Tensor) -> Tensor:
    y: Tensor = torch.einsum(node.attr("equation"), *xs)
    return y


@op("Det")
def det(node: Node, x: Tensor) -> Tensor:
    y: Tensor = torch.linalg.det(x)
    return y
