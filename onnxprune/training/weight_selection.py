"""Chooses the weights that stay while a module is trained, by their scores: how many of each layer, and which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxprune.ir.weights import Array
from onnxprune.sparse.allocation import edges, lamp_scores, ranked, shared
from onnxprune.sparse.patterns import Pattern, Unstructured
from onnxprune.training.layers import PrunableLayer

__all__ = ["WeightSelection"]


@dataclass(frozen=True)
class WeightSelection:
    """Chooses weights.

    Attributes:
        layers: the layers that compete, by names of their weights.
        allocation: decides how many weights each of them keeps: ``uniform``, ``erk``, ``lamp`` or ``global``; see
            `onnxprune.sparse.allocation`.
        pattern: of the weights that a layer may keep.
    """

    layers: Mapping[str, PrunableLayer]
    allocation: str
    pattern: Pattern = Unstructured()  # noqa: RUF009 - has no state

    def __call__(self, scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """The weights with the highest scores, of equal ones the first.

        Args:
            scores: of each weight, by name; of any sign.
            share: of the weights that go; patterns with a sparsity of their own ignore it.

        Returns:
            True at weights that stay, by name, on the device of the scores.
        """
        known = {name: scores[name].detach() for name in self.layers}
        arrays = {name: np.asarray(one.double().cpu().numpy()) for name, one in known.items()}
        counts = {} if self.pattern.fixed else self._counts(arrays, share)
        kept = {}
        for name, array in arrays.items():
            layer = self.layers[name]
            spread = np.asarray(layer.spread(torch.from_numpy(array - array.min())).numpy())
            mask = torch.from_numpy(self.pattern.mask(spread, counts.get(name, 0)))
            kept[name] = layer.gather(mask, known[name]).to(known[name].device)
        return kept

    def _counts(self, scores: Mapping[str, Array], share: float) -> Mapping[str, int]:
        sizes = {name: array.size for name, array in scores.items()}
        total = sum(sizes.values()) - round(share * sum(sizes.values()))
        match self.allocation:
            case "uniform":
                return {name: size - round(share * size) for name, size in sizes.items()}
            case "erk":
                return shared({name: self._edges(name, array) for name, array in scores.items()}, sizes, total)
            case "lamp":
                return ranked({name: lamp_scores(np.square(array).reshape(-1)) for name, array in scores.items()}, total)
        return ranked({name: array.reshape(-1) for name, array in scores.items()}, total)

    def _edges(self, name: str, array: Array) -> int:
        layer = self.layers[name]
        return edges(layer.spread(torch.from_numpy(array)).shape, array.shape[2:] if layer.kernel else ())
