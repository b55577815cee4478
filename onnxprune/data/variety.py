"""Whether samples show anything: they differ, do not vanish, and none is far from all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import OptionError

if TYPE_CHECKING:
    from onnxprune.data.batching import Batch
    from onnxprune.ir.weights import Array

__all__ = ["variety"]

_VANISHING = 1e-19
"""Absolute values whose squares are zero in float32, about."""
_FEW, _FAR = 8, 1000.0
"""Samples from which one can be an outlier, which is so many times as large as the largest other one."""


def variety(source: str, batches: Iterable[Batch], *, bounded: bool) -> str:
    """A notice where samples show little; empty where they do not.

    Args:
        source: where they are from, for messages.
        batches: of them.
        bounded: whether their values are, as those of images: these are only read until two differ.

    Raises:
        OptionError: all are equal, one has a single value everywhere, or all values vanish: nothing can be learnt from them.
    """
    first: dict[str, Array] = {}
    sizes: dict[str, list[float]] = {}
    seen, differ = 0, False
    for batch in batches:
        seen += batch.size
        for name, array in batch.feeds.items():
            parts = array if batch.size > 1 and array.ndim and len(array) == batch.size else array[None]
            like = first.setdefault(name, parts[0])
            differ = differ or any(part.shape != like.shape or not np.array_equal(part, like) for part in parts)
            if array.dtype.kind == "f" and parts.size:
                sizes.setdefault(name, []).extend(np.abs(parts).max(tuple(range(1, parts.ndim))).tolist())
        if differ and bounded:
            return ""
    if not differ:
        return _alone(source, seen, first)
    if sizes and len(sizes) == len(first) and max(map(max, sizes.values())) < _VANISHING:
        raise OptionError(f"{source}: every value is below {_VANISHING:g}, and its square is zero: scale the samples")
    return _outlier(source, sizes)


def _alone(source: str, seen: int, first: Mapping[str, Array]) -> str:
    """The notice on a single sample; as `variety`."""
    if all(array.size < 2 or (array == array.flat[0]).all() for array in first.values()):
        raise OptionError(f"{source}: every value of every sample is the same, which shows nothing: give real samples")
    if seen > 1:
        raise OptionError(f"{source}: all {seen} samples are equal, which show no more than one: give different ones")
    return f"{source}: one sample alone shows little of the data: give more"


def _outlier(source: str, sizes: Mapping[str, Sequence[float]]) -> str:
    """The notice on a sample that is far larger than all others: what is fitted follows it alone."""
    for name, found in sizes.items():
        if len(found) < _FEW:
            continue
        second, largest = np.sort(found)[-2:]
        if second > 0 and largest > _FAR * second:
            at = int(np.argmax(found))
            return (
                f"{source}: sample {at} of {name!r} has values up to {largest:.3g}, all others at most {second:.3g}: "
                "what is fitted follows it alone; leave it out if it is wrong"
            )
    return ""
