"""Which weights stay, by their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxprune.torch.layers import Layer

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """Chooses weights.

    Attributes:
        layers: the layers that compete, by names of their weights.
        together: whether in all layers together; otherwise each keeps the same share.
        pattern: N and M, if at most N of M channels in a row are kept, whatever the share.
    """

    layers: Mapping[str, Layer]
    together: bool
    pattern: tuple[int, int] | None = None

    def __call__(self, scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """The weights with the highest scores, of equal ones the first.

        Args:
            scores: of each weight, by name.
            share: of the weights that go.

        Returns:
            What stays: bool, by name.
        """
        chosen = {name: scores[name].detach() for name in self.layers}
        if self.pattern:
            return {name: self._cells(self.layers[name], one) for name, one in chosen.items()}
        if not self.together:
            return {name: _highest(one.reshape(-1), share).reshape(one.shape) for name, one in chosen.items()}
        flat = _highest(torch.cat([one.reshape(-1) for one in chosen.values()]), share)
        parts = flat.split([one.numel() for one in chosen.values()])
        return {name: part.reshape(one.shape) for (name, one), part in zip(chosen.items(), parts, strict=True)}

    def _cells(self, layer: Layer, scores: Tensor) -> Tensor:
        assert self.pattern is not None  # noqa: S101 - asked before
        n, m = self.pattern
        spread = layer.spread(scores.float())
        groups, channels, taps, outputs = spread.shape
        filled = torch.full((groups, -(-channels // m) * m, taps, outputs), -torch.inf, device=scores.device)
        filled[:, :channels] = spread
        cells = filled.reshape(groups, -1, m, taps, outputs)
        order = cells.argsort(dim=2, descending=True, stable=True)
        kept = torch.zeros_like(cells, dtype=torch.bool).scatter_(2, order[:, :, :n], value=True)
        return layer.gather(kept.reshape(filled.shape)[:, :channels], scores)


def _highest(scores: Tensor, share: float) -> Tensor:
    """All but a share of the entries, those with the highest scores. [n]"""
    keep = scores.numel() - round(share * scores.numel())
    kept = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    kept[scores.argsort(descending=True, stable=True)[:keep]] = True
    return kept
