"""Large products of matrices in pieces of one size: several threads work on them, and the result does not depend on how many."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.runtime.parallel import map_ordered
from onnxprune.runtime.threads import threads

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["gram"]

_SIDE = 512
"""Rows and columns of a piece of a Gram matrix, at most."""


def gram(x: Array) -> Array:
    """``X^T X`` for each group. [groups, rows, features] -> [groups, features, features]"""
    features = x.shape[2]
    if features <= _SIDE:
        small: Array = x.transpose(0, 2, 1) @ x
        return small
    found = np.empty((len(x), features, features), x.dtype)
    edges = [slice(start, start + _SIDE) for start in range(0, features, _SIDE)]

    def fill(piece: tuple[slice, slice]) -> None:
        rows, columns = piece
        found[:, rows, columns] = x[:, :, rows].transpose(0, 2, 1) @ x[:, :, columns]
        found[:, columns, rows] = found[:, rows, columns].transpose(0, 2, 1)

    pieces = itertools.combinations_with_replacement(edges, 2)
    for _ in map_ordered(fill, pieces, threads()):
        pass
    return found
