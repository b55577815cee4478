"""Products of matrices; large ones in pieces of one size, so that the result does not depend on the number of threads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.runtime.parallel import map_ordered
from onnxprune.runtime.threads import threads

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["gram", "gram_pieces", "lift", "product", "whole"]

_SIDE = 512
"""Rows and columns of a piece of a Gram matrix, at most."""


Piece = tuple[slice, slice]
"""Rows and columns of a Gram matrix."""


def gram(x: Array) -> Array:
    """``X^T X`` for each group. [groups, rows, features] -> [groups, features, features]"""
    features = x.shape[2]
    if features <= _SIDE:
        small: Array = x.transpose(0, 2, 1) @ x
        return small
    found = np.empty((len(x), features, features), x.dtype)

    def fill(piece: Piece) -> None:
        _put(found, piece, _product(x, piece))

    for _ in map_ordered(fill, _upper(features), threads()):
        pass
    return found


def product(x: Array, w: Array) -> Array:
    """``x @ w`` for each group, with no word about invalid operations. [groups, rows, inner], [groups, inner, columns]

    NumPy asks the processor afterwards whether any operation was invalid. Where a float32 matrix has 5 columns and `w` has one,
    OpenBLAS 0.3.31 with AVX-512 also computes with lanes of registers that it never filled, and drops what comes out: the product
    is right, but the processor may say so. Whether a product is finite has to be asked of the product itself.
    """
    with np.errstate(invalid="ignore"):
        found: Array = x @ w
    return found


def gram_pieces(x: Array) -> list[Array]:
    """The pieces of `gram` on and above its diagonal, which are little more than half of a large one; `whole` joins them."""
    if x.shape[2] <= _SIDE:
        return [gram(x)]
    return list(map_ordered(lambda piece: _product(x, piece), _upper(x.shape[2]), threads()))


def whole(pieces: Sequence[Array], features: int) -> Array:
    """The matrix of pieces as `gram_pieces` gives them, or of sums of such."""
    if features <= _SIDE:
        return pieces[0]
    found = np.empty((len(pieces[0]), features, features), pieces[0].dtype)
    for piece, product in zip(_upper(features), pieces, strict=True):
        _put(found, piece, product)
    return found


def lift(moments: Array) -> Array:
    """What to add to the diagonal of centred second moments so that no eigenvalue is negative. [groups, size, size] -> [groups]

    They are a difference of sums in float32. Of features that hardly vary, nothing but rounding is left of it, of either sign;
    where it is the same for all of them, the eigenvalue is as far below zero as their entries on the diagonal together.
    """
    found: Array = -2 * np.minimum(np.einsum("gff->gf", moments), 0).sum(1)
    return found


def _upper(features: int) -> Iterator[Piece]:
    edges = [slice(start, start + _SIDE) for start in range(0, features, _SIDE)]
    return itertools.combinations_with_replacement(edges, 2)


def _product(x: Array, piece: Piece) -> Array:
    rows, columns = piece
    found: Array = x[:, :, rows].transpose(0, 2, 1) @ x[:, :, columns]
    return found


def _put(found: Array, piece: Piece, product: Array) -> None:
    """Put a piece in its place, and below the diagonal."""
    rows, columns = piece
    found[:, rows, columns] = product
    found[:, columns, rows] = found[:, rows, columns].transpose(0, 2, 1)
