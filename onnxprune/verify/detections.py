"""Detections of two models on the same samples, anchor by anchor.

Detectors as Ultralytics exports them have one output before non-maximum suppression, with a box (centre x and y, width, height,
in pixels) and scores for each anchor: [samples, 4 + classes, anchors] (YOLOv8 and later), or [samples, anchors, 5 + classes],
whose first score is that of an object of any class (YOLOv5 and YOLOv7). Anchors lie in the same order in both models, so that
nothing needs to be suppressed to compare them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["are_detections", "same_detections"]

_BOX = 4
_CONFIDENT = 0.25
"""The score from which an anchor has found something, as `predict` of Ultralytics takes it."""
_OVERLAP = 0.5
"""The share of both boxes together that lies in both from which they are one (Everingham et al., 2010: PASCAL VOC)."""
_PIXELS = 2.0
"""Boxes are larger than that somewhere where they are in pixels."""


class _Found(NamedTuple):
    """What anchors found.

    Attributes:
        boxes: [samples, anchors, 4]
        classes: the best of each. [samples, anchors]
        sure: whether it has a score that counts. [samples, anchors]
    """

    boxes: Array
    classes: Array
    sure: Array


def are_detections(output: Array) -> bool:
    """Whether an output holds boxes in pixels and scores between 0 and 1."""
    if output.ndim != 3 or not output.size or min(output.shape[1:]) <= _BOX or not np.isfinite(output).all():
        return False
    numbers = _by_anchor(output)
    boxes, scores = numbers[..., :_BOX], numbers[..., _BOX:]
    return bool(scores.min() >= 0 and scores.max() <= 1 and boxes.max() > _PIXELS)


def same_detections(output: Array, reference: Array) -> tuple[int, int]:
    """How many anchors found the same in two models, and how many found something, counted in each model.

    An anchor has found the same if it is sure in both, of the same class, and its boxes overlap.
    """
    ours, theirs = _found(output), _found(reference)
    same = ours.sure & theirs.sure & (ours.classes == theirs.classes) & (_overlap(ours.boxes, theirs.boxes) >= _OVERLAP)
    return int(same.sum()), int(ours.sure.sum() + theirs.sure.sum())


def _by_anchor(output: Array) -> Array:
    """Numbers of each anchor along the last axis, of which there are fewer than anchors."""
    return output if output.shape[1] > output.shape[2] else output.transpose(0, 2, 1)


def _found(output: Array) -> _Found:
    numbers = _by_anchor(output)
    whose_first = numbers is output
    numbers = numbers.astype(np.float32)  # areas in pixels are more than float16 holds
    scores = numbers[..., _BOX:]
    if whose_first and scores.shape[-1] > 1:  # that of an object comes first
        scores = scores[..., :1] * scores[..., 1:]
    return _Found(numbers[..., :_BOX], scores.argmax(-1), scores.max(-1) > _CONFIDENT)


def _overlap(one: Array, other: Array) -> Array:
    """The intersection of boxes over their union. [..., 4], [..., 4] -> [...]"""
    a, b = (np.concatenate([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], -1) for box in (one, other))
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    both = sides.prod(-1)
    union = one[..., 2:].prod(-1) + other[..., 2:].prod(-1) - both
    result: Array = np.where(union > 0, both / np.maximum(union, 1e-30), 1.0)  # points are one where neither box has an area
    return result
