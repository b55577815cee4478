"""Resampling: one axis after the other, each output a weighted sum of few inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from onnxprune.torch.registry import Node, ints, op


@op("Upsample", until=8)
def upsample_by_attribute(node: Node, x: Tensor) -> Tensor:
    return _resized(node, x, node.attr("scales"), None, None, "asymmetric", "floor")


@op("Upsample", since=9, host=(1,))
def upsample(node: Node, x: Tensor, scales: Tensor) -> Tensor:
    return _resized(node, x, scales.tolist(), None, None, "asymmetric", "floor")


@op("Resize", until=10, host=(1,))
def resize_by_scales(node: Node, x: Tensor, scales: Tensor) -> Tensor:
    return _resized(node, x, scales.tolist(), None, None, "asymmetric", "floor")


@op("Resize", since=11, host=(1, 2, 3))
def resize(node: Node, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
    coordinates, nearest = (
        node.attr("coordinate_transformation_mode", "half_pixel"),
        node.attr("nearest_mode", "round_prefer_floor"),
    )
    given = None if scales is None or scales.numel() == 0 else scales.tolist()
    crop = None if roi is None or roi.numel() == 0 else roi.tolist()
    return _resized(node, x, given, None if sizes is None else ints(sizes), crop, coordinates, nearest)


def _resized(
    node: Node,
    x: Tensor,
    scales: Sequence[float] | None,
    sizes: Sequence[int] | None,
    roi: Sequence[float] | None,
    coordinates: str,
    nearest: str,
) -> Tensor:
    axes = [axis % x.dim() for axis in node.attr("axes", range(x.dim()))]
    before = [x.shape[axis] for axis in axes]
    if sizes is not None:
        sizes, scales = _kept_aspect(list(sizes), before, node.attr("keep_aspect_ratio_policy", "stretch"))
    assert scales is not None  # noqa: S101 - the standard asks for one of them
    if sizes is None:
        sizes = [math.floor(size * scale) for size, scale in zip(before, scales, strict=True)]
    crops = coordinates == "tf_crop_and_resize"
    inside: list[tuple[int, Tensor]] = []
    for at, axis in enumerate(axes):
        size, scale = sizes[at], scales[at]
        if size == before[at] and scale == 1 and not crops:
            continue
        window = (roi[at], roi[at + len(axes)]) if roi is not None and crops else (0.0, 1.0)
        places = _places(coordinates, before[at], size, scale, window, x.device)
        if crops:
            inside.append((axis, (places >= 0) & (places <= before[at] - 1)))
        x = _along(node, x, axis, places, scale, nearest)
    for axis, kept in inside:
        shape = [-1 if at == axis else 1 for at in range(x.dim())]
        x = torch.where(kept.reshape(shape), x, node.attr("extrapolation_value", 0.0))
    return x


def _kept_aspect(sizes: list[int], before: list[int], policy: str) -> tuple[list[int], list[float]]:
    scales = [size / max(old, 1) for size, old in zip(sizes, before, strict=True)]
    if policy == "stretch":
        return sizes, scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [math.floor(scale * old + 0.5) for old in before], [scale] * len(sizes)


def _places(mode: str, before: int, size: int, scale: float, window: tuple[float, float], device: torch.device) -> Tensor:
    """For each output position the position in the input it stands for, in float32 as ONNX Runtime counts. [size]"""
    x = torch.arange(size, dtype=torch.float32, device=device)
    full = scale * before
    if mode == "align_corners":
        return x * (before - 1) / (full - 1) if full != 1 else x * 0
    if mode == "asymmetric":
        return x / scale
    if mode == "tf_crop_and_resize":
        start, end = window
        if size == 1:
            return x * 0 + (start + end) * (before - 1) / 2
        return start * (before - 1) + x * (end - start) * (before - 1) / (size - 1)
    places = (x + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel" and size == 1:
        return x * 0 - 0.5
    if mode == "half_pixel_symmetric":
        places = places + before / 2 * (1 - size / full)
    return places


def _along(node: Node, x: Tensor, axis: int, places: Tensor, scale: float, nearest: str) -> Tensor:
    """One axis resampled at places of the input."""
    mode, last = node.attr("mode", "nearest"), x.shape[axis] - 1
    if mode == "nearest":
        return x.index_select(axis, _rounded(places, nearest).clamp(0, last))
    shrink = min(scale, 1.0) if node.attr("antialias", 0) else 1.0
    cubic = mode == "cubic"
    reach = 2 if cubic else 1
    first = math.floor(-reach / shrink) + 1
    taps = torch.arange(first, 2 - first if cubic else first + 2 - 2 * first, device=x.device)
    base = places.floor()
    distance = (taps - (places - base)[:, None]).abs() * shrink
    weights = _cubic(distance, node.attr("cubic_coeff_a", -0.75)) if cubic else (1 - distance).clamp(min=0)
    indices = base.to(torch.int64)[:, None] + taps
    if node.attr("exclude_outside", 0):
        weights = weights * ((indices >= 0) & (indices <= last))
    if node.attr("exclude_outside", 0) or shrink < 1:
        weights = weights / weights.sum(1, keepdim=True)
    indices, weights = indices.clamp(0, last), weights.to(x.dtype)
    shape = [-1 if at == axis else 1 for at in range(x.dim())]
    terms = (x.index_select(axis, indices[:, at]) * weights[:, at].reshape(shape) for at in range(len(taps)))
    return sum(terms, torch.zeros((), dtype=x.dtype, device=x.device))


def _cubic(distance: Tensor, a: float) -> Tensor:
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))


def _rounded(places: Tensor, mode: str) -> Tensor:
    if mode == "floor":
        return places.floor().to(torch.int64)
    if mode == "ceil":
        return places.ceil().to(torch.int64)
    rounded = (places + 0.5).floor() if mode == "round_prefer_ceil" else (places - 0.5).ceil()
    return rounded.to(torch.int64)
