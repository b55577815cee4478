"""Operators that move data: reshape, transpose, concatenate, cut, pad, repeat, pick, scatter."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.registry import ANY, Node, ints, op


@op("Transpose", operands=(0,))
def transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.attr("perm", list(reversed(range(x.dim())))))


@op("Squeeze", operands=(0,), host=(1,))
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = node.attr("axes") if axes is None else ints(axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(axis % x.dim() for axis in chosen))


@op("Unsqueeze", operands=(0,), host=(1,))
def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = node.attr("axes") if axes is None else ints(axes)
    rank = x.dim() + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@op("Reshape", operands=(0,), host=(1,))
def reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = ints(shape)
    if node.attr("allowzero", 0) != 1:  # as ONNX Runtime takes other numbers
        sizes = [x.shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    if x.numel() == 0:  # PyTorch calls -1 ambiguous
        sizes = [max(size, 0) for size in sizes]
    return x.reshape(sizes)


@op("Flatten", operands=(0,))
def flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.attr("axis", 1)
    axis += x.dim() if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@op("Concat", operands=ANY)
def concat(node: Node, *xs: Tensor) -> Tensor:
    return torch.cat(xs, node.attr("axis"))


@op("Split", operands=(0,), host=(1,))
def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.attr("axis", 0)
    given = node.attr("split") if sizes is None else ints(sizes)
    if given is None:
        each = -(-x.shape[axis] // node.outputs)
        given = [min(each, max(x.shape[axis] - at * each, 0)) for at in range(node.outputs)]
    return torch.split(x, given, axis)


@op("Slice", until=9, operands=(0,))
def slice_by_attributes(node: Node, x: Tensor) -> Tensor:
    starts, ends = node.attr("starts"), node.attr("ends")
    return _sliced(x, starts, ends, node.attr("axes", list(range(len(starts)))), [1] * len(starts))


@op("Slice", since=10, operands=(0,), host=(1, 2, 3, 4))
def slice_(
    node: Node, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    first = ints(starts)
    chosen = list(range(len(first))) if axes is None else ints(axes)
    return _sliced(x, first, ints(ends), chosen, [1] * len(first) if steps is None else ints(steps))


def _sliced(x: Tensor, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> Tensor:
    index: list[Any] = [slice(None)] * x.dim()
    flipped = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        positions = range(x.shape[axis])[slice(start, None if end < -x.shape[axis] and step < 0 else end, step)]
        if step < 0:  # PyTorch counts forward only
            positions = positions[::-1]
            flipped.append(axis)
        index[axis] = slice(positions.start, max(positions.stop, positions.start), positions.step)
    return x[tuple(index)].flip(flipped) if flipped else x[tuple(index)]


@op("Pad", until=10, operands=(0,))
def pad_by_attributes(node: Node, x: Tensor) -> Tensor:
    return padded_as(x, node.attr("pads"), list(range(x.dim())), node.attr("mode", "constant"), node.attr("value", 0.0))


@op("Pad", since=11, operands=(0,), host=(1, 2, 3))
def pad(node: Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    chosen = list(range(x.dim())) if axes is None else ints(axes)
    return padded_as(x, ints(pads), chosen, node.attr("mode", "constant"), 0 if value is None else value.item())


def padded_as(x: Tensor, pads: list[int], axes: list[int], mode: str, value: float) -> Tensor:
    """Padded at both ends of axes (all begins, then all ends), with a value or by what positions outside repeat."""
    begins, ends = pads[: len(axes)], pads[len(axes) :]
    if mode == "constant":
        spelled = [0] * (2 * x.dim())
        for axis, begin, end in zip(axes, begins, ends, strict=True):
            at = 2 * (x.dim() - 1 - axis % x.dim())
            spelled[at : at + 2] = [begin, end]
        return F.pad(x, spelled, value=value)
    for axis, begin, end in zip(axes, begins, ends, strict=True):
        if begin or end:
            x = x.index_select(axis, _positions(x.shape[axis], begin, end, mode, x.device))
    return x


def _positions(size: int, begin: int, end: int, mode: str, device: torch.device) -> Tensor:
    places = torch.arange(-begin, size + end, device=device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap" or size == 1:
        return places % size
    period = 2 * (size - 1)
    places = places % period
    return torch.where(places < size, places, period - places)


@op("Expand", operands=(0,), host=(1,))
def expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, ints(shape)))


@op("Tile", operands=(0,), host=(1,))
def tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(ints(repeats))


@op("Gather", weights=(0,))
def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.attr("axis", 0) % x.dim()
    places = _positive(indices, x.shape[axis])
    if places.dim() == 0:
        return x.select(axis, int(places)) if places.device.type == "cpu" else x.index_select(axis, places[None]).squeeze(axis)
    picked = x.index_select(axis, places.reshape(-1))
    return picked.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _positive(indices: Tensor, size: int) -> Tensor:
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


@op("GatherElements", operands=(0,))
def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.attr("axis", 0)
    return torch.gather(x, axis, _positive(indices, x.shape[axis]))


@op("GatherND", operands=(0,))
def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    batch = node.attr("batch_dims", 0)
    if batch == 0:
        return x[_tuples(indices, x.shape)]
    lead, flat = x.shape[:batch], math.prod(x.shape[:batch])
    rows, places = x.reshape(flat, *x.shape[batch:]), indices.reshape(flat, *indices.shape[batch:])
    inner = _tuples(places, x.shape[batch:])
    outer = torch.arange(flat, device=x.device).reshape(-1, *[1] * (places.dim() - 2))
    picked = rows[(outer, *inner)]
    return picked.reshape(*lead, *picked.shape[1:])


def _tuples(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """The last axis of indices as one tensor of positions per axis."""
    return tuple(_positive(place, size) for place, size in zip(indices.unbind(-1), shape, strict=False))


@op("ScatterND", operands=(0, 2))
def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    places, how = _tuples(indices, x.shape), node.attr("reduction", "none")
    if how in {"none", "add"}:
        return x.index_put(places, updates, accumulate=how == "add")
    flat = torch.arange(x.numel(), device=x.device).reshape(x.shape)[places].reshape(-1)
    return _reduced(x.reshape(-1), 0, flat, updates.reshape(-1), how).reshape(x.shape)


@op("Scatter", "ScatterElements", operands=(0, 2))
def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis = node.attr("axis", 0)
    places, how = _positive(indices, x.shape[axis]), node.attr("reduction", "none")
    return x.scatter(axis, places, updates) if how == "none" else _reduced(x, axis, places, updates, how)


def _reduced(x: Tensor, axis: int, places: Tensor, updates: Tensor, how: str) -> Tensor:
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return x.scatter_reduce(axis, places, updates, names[how], include_self=True)


@op("Trilu", operands=(0,), host=(1,))
def trilu(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if node.attr("upper", 1) else torch.tril(x, diagonal)


@op("OneHot", host=(1,))
def one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    count, axis = int(depth), node.attr("axis", -1)
    axis = axis + indices.dim() + 1 if axis < 0 else axis
    places = _positive(indices, count).unsqueeze(axis)
    steps = torch.arange(count, device=indices.device).reshape([-1 if at == axis else 1 for at in range(indices.dim() + 1)])
    return torch.where(places == steps, values[1], values[0])


@op("Col2Im", host=(1, 2))
def col2im(node: Node, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    rank = image.numel()
    strides, dilations = node.attr("strides", [1] * rank), node.attr("dilations", [1] * rank)
    pads, kernel = node.attr("pads", [0] * (2 * rank)), ints(block)
    full = [size + before + after for size, before, after in zip(ints(image), pads[:rank], pads[rank:], strict=True)]
    y = _folded(x, full, kernel, strides, dilations)
    return F.pad(y, [-amount for pair in zip(reversed(pads[:rank]), reversed(pads[rank:]), strict=True) for amount in pair])


def _folded(x: Tensor, full: list[int], kernel: list[int], strides: list[int], dilations: list[int]) -> Tensor:
    """Columns summed into an image of any rank: [n, c * block, l] -> [n, c, *full]."""
    device = x.device
    lines = [
        torch.arange(0, f - (k - 1) * d, s, device=device) for f, k, d, s in zip(full, kernel, dilations, strides, strict=True)
    ]
    offsets = [torch.arange(k, device=device) * d for k, d in zip(kernel, dilations, strict=True)]
    flat = torch.zeros(1, 1, dtype=torch.int64, device=device)
    for size, line, offset in zip(full, lines, offsets, strict=True):
        place = offset[:, None] + line[None, :]
        flat = (flat[:, None, :, None] * size + place[None, :, None, :]).reshape(
            flat.shape[0] * len(offset), flat.shape[1] * len(line)
        )
    channels = x.shape[1] // math.prod(kernel)
    columns = x.reshape(x.shape[0], channels, -1)
    y = x.new_zeros(x.shape[0], channels, math.prod(full)).index_add(2, flat.reshape(-1), columns)
    return y.reshape(x.shape[0], channels, *full)


@op("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.attr("blocksize")
    if node.attr("mode", "DCR") == "DCR":
        y = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // (b * b), h * b, w * b)


@op("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.attr("blocksize")
    y = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 1, 3, 5, 2, 4) if node.attr("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    return y.permute(order).reshape(n, c * b * b, h // b, w // b)


@op("ReverseSequence")
def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    time, batch = node.attr("time_axis", 0), node.attr("batch_axis", 1)
    moved = x.movedim((batch, time), (0, 1))
    steps = torch.arange(moved.shape[1], device=x.device)[None, :]
    ends = lengths.to(torch.int64)[:, None]
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    picked = moved.gather(1, places.reshape(*places.shape, *[1] * (x.dim() - 2)).expand(moved.shape))
    return picked.movedim((0, 1), (batch, time))


@op("CenterCropPad", host=(1,))
def center_crop_pad(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """Cut, or padded with zeros, around the middle; the odd position goes to the end."""
    for axis, size in zip(node.attr("axes", range(x.dim())), ints(shape), strict=True):
        have = x.shape[axis]
        if have > size:
            x = x.narrow(axis, (have - size) // 2, size)
        elif have < size:
            x = padded_as(x, [(size - have) // 2, (size - have + 1) // 2], [axis % x.dim()], "constant", 0.0)
    return x


@op("TensorScatter")
def tensor_scatter(node: Node, cache: Tensor, update: Tensor, starts: Tensor | None = None) -> Tensor:
    """Rows of a cache [b, ..., t, ...] replaced from a position on, one for each batch; ``circular`` goes on at the front."""
    axis = node.attr("axis", -2) % cache.dim()
    first = torch.zeros(len(cache), dtype=torch.int64, device=cache.device) if starts is None else starts
    places = first[:, None] + torch.arange(update.shape[axis], device=cache.device)
    if node.attr("mode", "linear") == "circular":
        places = places % cache.shape[axis]
    shape = [-1 if at in {0, axis} else 1 for at in range(cache.dim())]
    shape[0], shape[axis] = len(cache), update.shape[axis]
    return cache.scatter(axis, places.reshape(shape).expand(update.shape), update)
