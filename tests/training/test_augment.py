"""Augmentation: images move whole, each in its own way, the same on every run; what is no image stays."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper

from onnxprune import OptionError
from onnxprune.data.batching import Batch
from onnxprune.training.augment import Augment

SHAPES: tuple[tuple[str, int, list[str | int | None]], ...] = (
    ("photo", TensorProto.FLOAT, ["N", 3, 16, 24]),
    ("grey", TensorProto.FLOAT, ["N", 1, 8, 8]),
    ("last", TensorProto.FLOAT, ["N", 16, 24, 3]),
    ("words", TensorProto.INT64, ["N", 7]),
)
PHOTO, GREY, LAST, WORDS = (helper.make_tensor_value_info(*each) for each in SHAPES)


def batch(count: int = 40, seed: int = 0) -> Batch:
    photo = np.random.default_rng(seed).normal(size=(count, 3, 16, 24)).astype(np.float32)
    words = np.arange(7 * count).reshape(count, 7)
    return Batch({"photo": photo, "last": np.moveaxis(photo, 1, 3).copy(), "words": words}, np.arange(count), count)


def made(text: str, *inputs: ValueInfoProto, taught: bool = True) -> Augment:
    found = Augment.of(text, inputs or (PHOTO, WORDS), taught=taught)
    assert found is not None
    return found


def test_half_are_mirrored_and_nothing_else_changes() -> None:
    given = batch(400)
    (changed,) = made("flip")([given], 0)
    before, after = given.feeds["photo"], changed.feeds["photo"]
    mirrored = np.array([np.array_equal(a, b[..., ::-1]) for a, b in zip(after, before, strict=True)])
    same = np.array([np.array_equal(a, b) for a, b in zip(after, before, strict=True)])
    assert (mirrored ^ same).all()
    assert 140 < mirrored.sum() < 260
    assert changed.feeds["words"] is given.feeds["words"]
    assert (changed.labels, changed.size) == (given.labels, given.size)


@pytest.mark.parametrize(("text", "far"), [("shift:3", 3), ("shift", 2), ("shift:0", 0)])
def test_images_move_as_far_as_said_and_the_edges_are_mirrored(text: str, far: int) -> None:
    given = batch()
    (changed,) = made(text)([given], 0)
    before = np.pad(given.feeds["photo"], ((0, 0), (0, 0), (far, far), (far, far)), mode="reflect")
    seen = set()
    for at, image in enumerate(changed.feeds["photo"]):
        moves = [
            (y - far, x - far)
            for y in range(2 * far + 1)
            for x in range(2 * far + 1)
            if np.array_equal(image, before[at, :, y : y + 16, x : x + 24])
        ]
        assert len(moves) == 1
        seen |= set(moves)
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(-far, far + 1))


def test_channels_may_be_first_or_last() -> None:
    given = batch()
    first, last = (next(made("flip,shift", one)([given], 0)).feeds for one in (PHOTO, LAST))
    assert np.array_equal(np.moveaxis(first["photo"], 1, 3), last["last"])


def test_an_epoch_is_the_same_wherever_it_begins_and_another_is_not() -> None:
    batches = [batch(seed=seed) for seed in range(4)]
    augment = made("flip,shift")
    whole = [one.feeds["photo"] for one in augment(batches, 7)]
    rest = [one.feeds["photo"] for one in augment(batches[2:], 7, skip=2)]
    assert all(map(np.array_equal, whole[2:], rest))
    assert not np.array_equal(whole[0], next(augment(batches, 8)).feeds["photo"])


def test_auto_is_for_photographs_that_a_teacher_answers_for() -> None:
    assert made("auto") == made("flip,shift")
    assert Augment.of("auto", [PHOTO], taught=False) is None
    assert Augment.of("auto", [GREY, WORDS], taught=True) is None
    assert Augment.of("none", [PHOTO], taught=True) is None
    assert made("shift:1", GREY, taught=False).images == {"grey": 2}


@pytest.mark.parametrize("text", ["", "turn", "shift:", "shift:-1", "flip,flip", "shift,shift:2", "flip,none", "flip, shift"])
def test_what_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--augment .*: write auto, none, flip"):
        Augment.of(text, [PHOTO], taught=True)


def test_without_an_image_it_says_so() -> None:
    with pytest.raises(OptionError, match="--augment flip: no input is an image of at most 4 channels: write --augment none"):
        Augment.of("flip", [WORDS], taught=True)
