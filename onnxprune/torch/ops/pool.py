"""Pooling and sampling."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.torch.ops.conv import pads_of
from onnxprune.torch.registry import Node, op

AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MAXIMUM: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _window(node: Node, x: Tensor) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations, and padding at the begins and at the ends that makes every window a whole one."""
    kernel = list(node.attr("kernel_shape"))
    rank = len(kernel)
    strides, dilations = list(node.attr("strides", [1] * rank)), list(node.attr("dilations", [1] * rank))
    pads = pads_of(node, list(x.shape[2:]), kernel, strides, dilations)
    begins, ends = pads[:rank], pads[rank:]
    if node.attr("ceil_mode", 0):
        for at, size in enumerate(x.shape[2:]):
            reach = dilations[at] * (kernel[at] - 1) + 1
            room = size + begins[at] + ends[at] - reach
            steps = -(-room // strides[at])
            if steps * strides[at] >= size + begins[at]:  # a window must not start beyond the input and its begin
                steps -= 1
            ends[at] = max(steps * strides[at] + reach - size - begins[at], ends[at] if steps * strides[at] <= room else 0)
    return kernel, strides, dilations, begins, ends


def _spelled(begins: list[int], ends: list[int]) -> list[int]:
    return [amount for pair in zip(reversed(begins), reversed(ends), strict=True) for amount in pair]


@op("MaxPool")
def max_pool(node: Node, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    kernel, strides, dilations, begins, ends = _window(node, x)
    rank, dtype = len(kernel), x.dtype
    wide = x if x.is_floating_point() else x.to(torch.float32)  # integers of eight bits are exact
    if begins == ends and node.outputs == 1 and all(2 * b <= k for b, k in zip(begins, kernel, strict=True)):
        return MAXIMUM[rank](wide, kernel, strides, begins, dilations).to(dtype)
    filled = F.pad(wide, _spelled(begins, ends), value=-math.inf)
    if node.outputs == 1:
        return MAXIMUM[rank](filled, kernel, strides, 0, dilations).to(dtype)
    y, places = MAXIMUM[rank](filled, kernel, strides, 0, dilations, return_indices=True)
    return y.to(dtype), _unpadded(node, places, x, list(filled.shape[2:]), begins)


def _unpadded(node: Node, places: Tensor, x: Tensor, full: list[int], begins: list[int]) -> Tensor:
    """Positions in the padded image as positions in the whole tensor."""
    sizes, digits = list(x.shape[2:]), []
    for size, begin in zip(reversed(full), reversed(begins), strict=True):
        digits.append(places % size - begin)
        places = places // size
    digits.reverse()
    order = list(range(len(sizes))) if node.attr("storage_order", 0) == 0 else list(reversed(range(len(sizes))))
    flat = torch.zeros_like(places)
    for at in order:
        flat = flat * sizes[at] + digits[at]
    image = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * len(sizes))
    return flat + image * math.prod(sizes)


@op("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    kernel, strides, dilations, begins, ends = _window(node, x)
    rank, counted = len(kernel), bool(node.attr("count_include_pad", 0))
    plain = all(d == 1 for d in dilations) and not node.attr("ceil_mode", 0)
    if plain and begins == ends and all(2 * b <= k for b, k in zip(begins, kernel, strict=True)):
        return AVERAGE[rank](x, kernel, strides, begins, count_include_pad=counted)
    total = _window_sums(F.pad(x, _spelled(begins, ends)), kernel, strides, dilations)
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    if counted:  # what ceil_mode adds beyond the padding does not count
        pads = pads_of(node, list(x.shape[2:]), kernel, strides, dilations)
        ones = F.pad(ones, _spelled(pads[:rank], pads[rank:]), value=1.0)
        begins, ends = [0] * rank, [end - pad for end, pad in zip(ends, pads[rank:], strict=True)]
    return total / _window_sums(F.pad(ones, _spelled(begins, ends)), kernel, strides, dilations)


def _window_sums(x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> Tensor:
    for at, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        axis, size = at + 2, x.shape[at + 2]
        count = (size - d * (k - 1) - 1) // s + 1
        places = torch.arange(count, device=x.device)[:, None] * s + torch.arange(k, device=x.device) * d
        picked = x.index_select(axis, places.reshape(-1))
        x = picked.reshape(*x.shape[:axis], count, k, *x.shape[axis + 1 :]).sum(axis + 1)
    return x


@op("LpPool")
def lp_pool(node: Node, x: Tensor) -> Tensor:
    kernel, strides, dilations, begins, ends = _window(node, x)
    p = node.attr("p", 2)
    powers = F.pad(x.abs() ** p, _spelled(begins, ends))
    return _window_sums(powers, kernel, strides, dilations).pow(1 / p)


@op("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(node: Node, x: Tensor) -> Tensor:
    axes = list(range(2, x.dim()))
    if node.op == "GlobalAveragePool":
        return x.mean(axes, keepdim=True)
    return (
        x.amax(axes, keepdim=True)
        if node.op == "GlobalMaxPool"
        else torch.linalg.vector_norm(x, node.attr("p", 2), axes, keepdim=True)
    )


@op("MaxUnpool", host=(2,))
def max_unpool(node: Node, x: Tensor, places: Tensor, shape: Tensor | None = None) -> Tensor:
    kernel = node.attr("kernel_shape")
    rank = len(kernel)
    strides, pads = node.attr("strides", [1] * rank), node.attr("pads", [0] * (2 * rank))
    spatial = [
        (n - 1) * s - pads[at] - pads[at + rank] + k
        for at, (n, s, k) in enumerate(zip(x.shape[2:], strides, kernel, strict=True))
    ]
    sizes = [*x.shape[:2], *spatial]
    inner = x.new_zeros(math.prod(sizes)).scatter(0, places.reshape(-1), x.reshape(-1)).reshape(sizes)
    if shape is None:
        return inner
    wanted = [int(size) for size in shape.tolist()]
    return F.pad(inner, _spelled([0] * len(sizes), [w - n for w, n in zip(wanted, sizes, strict=True)]))


@op("GridSample")
def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(node.attr("mode", "bilinear"), node.attr("mode", "bilinear"))
    aligned, outside = bool(node.attr("align_corners", 0)), node.attr("padding_mode", "zeros")
    return F.grid_sample(x, grid, mode=mode, padding_mode=outside, align_corners=aligned)


@op("AffineGrid", host=(1,))
def affine_grid(node: Node, theta: Tensor, size: Tensor) -> Tensor:
    return F.affine_grid(theta, [int(n) for n in size.tolist()], align_corners=bool(node.attr("align_corners", 0)))


@op("RoiAlign", since=10)
def roi_align(node: Node, x: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
    """Means of bilinear samples in the bins of boxes (He et al. 2017, "Mask R-CNN"): one matrix for rows and one for columns."""
    if node.attr("mode", "avg") != "avg":
        raise ModelError("mode=max: write the node with mode=avg")
    aligned = node.opset >= 16 and node.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    corners = boxes * node.attr("spatial_scale", 1.0) - (0.5 if aligned else 0.0)
    sizes = corners[:, 2:] - corners[:, :2]
    sizes = sizes if aligned else sizes.clamp(min=1)
    ratio = node.attr("sampling_ratio", 0)
    columns = _bins(corners[:, 0], sizes[:, 0], x.shape[3], node.attr("output_width", 1), ratio)
    rows = _bins(corners[:, 1], sizes[:, 1], x.shape[2], node.attr("output_height", 1), ratio)
    y = x.new_zeros(len(boxes), x.shape[1], rows.shape[1], columns.shape[1])
    for image in range(len(x)):
        own = (images == image).nonzero()[:, 0]
        y = y.index_copy(0, own, torch.einsum("rph,chw,rqw->rcpq", rows[own], x[image], columns[own]))
    return y


def _bins(start: Tensor, size: Tensor, length: int, bins: int, ratio: int) -> Tensor:
    """For each box and bin the weights of the positions of one axis. [boxes, bins, length]"""
    counts = torch.full_like(size, ratio) if ratio > 0 else (size / bins).ceil()
    steps = torch.arange(int(counts.max()) if len(counts) else 0, device=size.device, dtype=size.dtype)
    taken = steps < counts[:, None]
    inside = (steps + 0.5) / counts.clamp(min=1)[:, None]
    width = (size / bins)[:, None, None]
    places = start[:, None, None] + (torch.arange(bins, device=size.device)[:, None] + inside[:, None]) * width
    kept = (places >= -1) & (places <= length) & taken[:, None]
    places = places.clamp(0, length - 1)[..., None]
    weights = (1 - (places - torch.arange(length, device=size.device)).abs()).clamp(min=0)
    return (weights * kept[..., None]).sum(2) / counts.clamp(min=1)[:, None, None]
