"""Detections of two models, anchor by anchor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.verify.detections import are_detections, same_detections

Array = NDArray[Any]


def output(*, objects: bool, **changes: Array | float) -> Array:
    """One sample with 20 anchors and 3 classes, two of which found something; with a score of objects or without."""
    x = np.zeros((20, 8 if objects else 7), np.float32)
    x[:, :4] = [50, 50, 20, 20]
    for anchor, one in ((3, 0), (11, 2)):
        x[anchor, 4 if objects else 4 + one] = 1
        x[anchor, (5 if objects else 4) + one] = 0.8
    first = {"box": np.s_[3, :4], "score": np.s_[3, 5 if objects else 4], "other": np.s_[3, 6 if objects else 5]}
    more = {"extra": np.s_[7, -1], "object": np.s_[7, 4]}
    for name, value in changes.items():
        x[(first | more)[name]] = value
    return x[None] if objects else x.T[None]


@pytest.mark.parametrize("objects", [True, False])
def test_a_detector_finds_what_it_finds(objects: bool) -> None:
    x = output(objects=objects)
    assert are_detections(x)
    assert same_detections(x, x) == (2, 4)


@pytest.mark.parametrize("objects", [True, False])
@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"box": np.array([52, 50, 20, 20])}, (2, 4)),  # 18 of 22 pixels across
        ({"box": np.array([60, 50, 20, 20])}, (1, 4)),  # 10 of 30
        ({"box": np.array([500, 50, 20, 20])}, (1, 4)),
        ({"score": 0.5}, (2, 4)),
        ({"score": 0.2}, (1, 3)),
        ({"other": 0.9}, (1, 4)),
    ],
)
def test_what_counts_as_found(objects: bool, changes: dict[str, Any], same: tuple[int, int]) -> None:
    found = output(objects=objects, **changes)
    assert same_detections(found, output(objects=objects)) == same
    assert same_detections(output(objects=objects), found) == same


@pytest.mark.parametrize("objects", [True, False])
def test_float16_does_not_hold_areas_and_boxes_may_be_points(objects: bool) -> None:
    large, point = np.array([320, 320, 640, 640]), np.array([50, 50, 0, 0])
    for box in (large, point):
        x = output(objects=objects, box=box).astype(np.float16)
        assert same_detections(x, x) == (2, 4)


def test_an_object_must_be_there_for_a_class_to_count() -> None:
    x = output(objects=True)
    assert same_detections(output(objects=True, extra=0.9), x) == (2, 4)
    assert same_detections(output(objects=True, extra=0.9, object=0.9), x) == (2, 5)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 8)),
        np.zeros((2, 4, 30)),
        np.zeros((0, 7, 30)),
        np.full((2, 7, 30), 0.5),  # boxes are not in pixels
        np.full((2, 7, 30), 5.0),  # scores are not between 0 and 1
        np.full((2, 7, 30), np.nan),
    ],
)
def test_other_outputs_are_none(x: Array) -> None:
    assert not are_detections(x)
