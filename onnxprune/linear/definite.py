"""Cholesky factors of positive definite matrices, in blocks, and what follows from them.

Nearly all of the work is products of matrices, which BLAS does at more than twice the speed of the decompositions in LAPACK, and
of a symmetric matrix only half is gone through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["Factors"]

_SIDE = 128
"""Rows of a block."""


class Factors:
    """Matrices ``M = L L'``, one for each group; where rounding left one of them indefinite, LAPACK takes over.

    Attributes:
        definite: whether all are positive definite.
        lower: *L* on and below the diagonal, anything above; the matrices themselves where not all are definite. [groups, n, n]
    """

    def __init__(self, matrices: Array) -> None:
        """Factorise symmetric matrices, which are overwritten. float64 [groups, n, n]"""
        self.lower = matrices
        self._blocks = [slice(at, at + _SIDE) for at in range(0, matrices.shape[1], _SIDE)]
        self._inverses: list[Array] = []
        corners = [matrices[:, at, at].copy() for at in self._blocks]
        try:
            for at in self._blocks:
                self._inverses.append(self._factorise(at))
            self.definite = True
        except np.linalg.LinAlgError:
            self.definite = False
            for at, corner in zip(self._blocks, corners, strict=True):  # above the diagonal nothing was written
                matrices[:, at, at] = corner
                matrices[:, at.stop :, at] = matrices[:, at, at.stop :].transpose(0, 2, 1)

    def _factorise(self, at: slice) -> Array:
        """Write some columns of *L*; the inverse of their corner on the diagonal. [groups, side, side]"""
        column = self.lower[:, at.start :, at]
        if at.start:
            column -= self.lower[:, at.start :, : at.start] @ self.lower[:, at, : at.start].transpose(0, 2, 1)
        corner = np.linalg.cholesky(column[:, :_SIDE])
        inverse: Array = np.linalg.inv(corner)
        column[:, :_SIDE] = corner
        column[:, _SIDE:] = column[:, _SIDE:] @ inverse.transpose(0, 2, 1)
        return inverse

    def solve(self, right: Array) -> Array:
        """The solutions ``M^-1 B``. [groups, n, columns] -> float64"""
        found: Array = right.astype(np.float64)
        if not self.definite:
            plain: Array = np.linalg.solve(self.lower, found)
            return plain
        for at, inverse in zip(self._blocks, self._inverses, strict=True):
            found[:, at] = inverse @ (found[:, at] - self.lower[:, at, : at.start] @ found[:, : at.start])
        return self.back(found)

    def back(self, right: Array) -> Array:
        """The solutions ``L'^-1 B``, where *L* ends with as many rows as *B* has. [groups, rows, columns] -> float64"""
        found: Array = right.astype(np.float64)
        rows = found.shape[1]
        for at, inverse in zip(self._blocks[::-1], self._inverses[::-1], strict=True):
            if at.start < rows:
                beyond = slice(at.stop, rows)
                rest = found[:, at] - self.lower[:, beyond, at].transpose(0, 2, 1)[:, : rows - at.start] @ found[:, beyond]
                found[:, at] = inverse[:, : rows - at.start, : rows - at.start].transpose(0, 2, 1) @ rest
        return found

    def inverse(self) -> Array:
        """The inverses ``M^-1``. float64 [groups, n, n]"""
        if not self.definite:
            plain: Array = np.linalg.inv(self.lower)
            return plain
        found = np.empty_like(self.lower)
        for at, inverse in zip(self._blocks[::-1], self._inverses[::-1], strict=True):
            beyond = slice(at.stop, None)
            below = self.lower[:, beyond, at] @ inverse
            column = found[:, beyond, beyond] @ -below
            found[:, beyond, at], found[:, at, beyond] = column, column.transpose(0, 2, 1)
            found[:, at, at] = inverse.transpose(0, 2, 1) @ inverse - below.transpose(0, 2, 1) @ column
        return found
