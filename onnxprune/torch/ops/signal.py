"""Signals: Fourier transforms and windows. Complex numbers are a last axis of real and imaginary parts."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.torch.registry import Node, op
from onnxprune.torch.tensors import dtype_of

_COSINES = {"HannWindow": (0.5, 0.5, 0.0), "HammingWindow": (25 / 46, 21 / 46, 0.0), "BlackmanWindow": (0.42, 0.5, 0.08)}


@op(*_COSINES, host=(0,))
def window(node: Node, size: Tensor) -> Tensor:
    """Sums of cosines, over one period or, symmetric, over one position less."""
    count, (a, b, c) = int(size), _COSINES[node.op]
    period = count if node.attr("periodic", 1) else count - 1
    angles = torch.arange(count, dtype=torch.float64, device=size.device) * (2 * torch.pi / max(period, 1))
    return (a - b * angles.cos() + c * (2 * angles).cos()).to(dtype_of(node.attr("output_datatype", 1)))


@op("DFT", since=17, until=19, host=(1,))
def dft_by_attribute(node: Node, x: Tensor, length: Tensor | None = None) -> Tensor:
    return _transformed(node, x, length, node.attr("axis", 1))


@op("DFT", since=20, host=(1, 2))
def dft(node: Node, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    return _transformed(node, x, length, -2 if axis is None else int(axis))


def _transformed(node: Node, x: Tensor, length: Tensor | None, axis: int) -> Tensor:
    along, count = axis % x.dim(), None if length is None else int(length)
    back, half = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    numbers = _numbers(x)
    if back and half:
        real: Tensor = torch.fft.irfft(numbers, count, along)
        return real.unsqueeze(-1).to(x.dtype)
    if back:
        return torch.view_as_real(torch.fft.ifft(numbers, count, along)).to(x.dtype)
    whole = torch.fft.fft(numbers, count, along)
    return torch.view_as_real(whole.narrow(along, 0, whole.shape[along] // 2 + 1) if half else whole).to(x.dtype)


def _numbers(x: Tensor) -> Tensor:
    """In float64: sums over a whole signal are to cancel where they should."""
    numbers: Tensor = x[..., 0].double() if x.shape[-1] == 1 else torch.view_as_complex(x.double().contiguous())
    return numbers


@op("STFT", host=(1, 3))
def stft(node: Node, x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None) -> Tensor:
    """[b, n, 1 or 2] as [b, frames, bins, 2]."""
    size = int(length) if length is not None else x.shape[1] if window is None else window.numel()
    frames = _numbers(x).unfold(1, size, int(step))
    whole = torch.fft.fft(frames if window is None else frames * window, dim=2)
    return torch.view_as_real(whole[..., : size // 2 + 1] if node.attr("onesided", 1) else whole).to(x.dtype)
