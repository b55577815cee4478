"""From image files to arrays; the expected values follow torchvision's definitions, computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onnxprune.data.preprocess import LAYOUTS, PILLOW_MODES, PRESETS, RESAMPLINGS, Preprocess
from onnxprune.errors import OptionError

RAMP = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def file(folder: Path, pixels: Any, name: str = "image.png") -> Path:
    Image.fromarray(np.asarray(pixels, np.uint8)).save(folder / name)
    return folder / name


# Text


def numbers(least: float) -> st.SearchStrategy[tuple[float, ...]]:
    one = st.floats(least, 1e6, allow_nan=False, exclude_min=True)
    return st.one_of(st.tuples(one), st.tuples(one, one, one))


sides = st.integers(1, 999)
preprocesses = st.builds(
    Preprocess,
    resize=st.one_of(st.just(()), st.tuples(sides), st.tuples(sides, sides)),
    crop=st.one_of(st.just(()), st.tuples(sides, sides)),
    mean=numbers(-1e6),
    std=numbers(0),
    scale=st.floats(0, 1e6, exclude_min=True),
    mode=st.sampled_from(["rgb", "bgr"]),
    layout=st.sampled_from(LAYOUTS),
    resample=st.sampled_from(RESAMPLINGS),
)


@given(preprocesses)
def test_it_prints_as_it_reads(one: Preprocess) -> None:
    assert Preprocess.parse(str(one)) == one


def test_a_text_in_full() -> None:
    text = (
        "resize=256,crop=224x200, mean=0.485/0.456/0.406, std=0.229/0.224/0.225,layout=nhwc,scale=255,mode=bgr,resample=bicubic"
    )
    assert Preprocess.parse(text) == Preprocess((256,), (224, 200), MEAN, STD, 255, "bgr", "nhwc", "bicubic")


@pytest.mark.parametrize(
    ("text", "sizes", "expected"),
    [
        (None, None, Preprocess()),
        (None, (None, 3, None, None), Preprocess()),
        (None, (1, 3, 32, 32), Preprocess((32,), (32, 32))),
        ("", (None, 3, 32, 48), Preprocess((32, 48), (32, 48))),
        ("none", (None, 1, 28, 28), Preprocess((28,), (28, 28), scale=1, mode="l")),
        ("unit", (None, 64, 48, 3), Preprocess((64, 48), (64, 48), layout="nhwc")),
        ("imagenet", (None, 3, None, None), Preprocess((256,), (224, 224), MEAN, STD)),
        ("imagenet", (None, 3, 299, 299), Preprocess((342,), (299, 299), MEAN, STD)),
        ("imagenet", (None, 3, 224, 448), Preprocess((256, 512), (224, 448), MEAN, STD)),
        ("imagenet,resize=232,mode=bgr", (None, 3, 224, 224), Preprocess((232,), (224, 224), MEAN, STD, mode="bgr")),
        ("cifar10", (None, 3, 32, 32), Preprocess((32,), (32, 32), PRESETS["cifar10"]["mean"], PRESETS["cifar10"]["std"])),
        ("resize=none,crop=none", (None, 3, 32, 32), Preprocess()),
        ("crop=none,imagenet", None, Preprocess((256,), (224, 224), MEAN, STD)),
    ],
)
def test_what_is_open_follows_from_the_input(text: str | None, sizes: Any, expected: Preprocess) -> None:
    assert Preprocess.parse(text, sizes) == expected


def test_integers_take_bytes() -> None:
    assert Preprocess.parse(None, integers=True).scale == 1
    assert Preprocess.parse("scale=255", integers=True).scale == 255


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imagnet", "no 'imagnet'; there are none, unit, imagenet, cifar10, and resize=, crop="),
        ("size=3", "no 'size=3'"),
        ("resize", "no 'resize'"),
        ("imagenet,", "no ''"),
        ("none=1", "no 'none=1'"),
        ("resize=big", "resize=big: write the shorter side as 256"),
        ("resize=0", "resize=0: write"),
        ("resize=1x2x3", "resize=1x2x3: write"),
        ("crop=-1", "crop=-1: write the side as 224"),
        ("mean=a", "mean=a: write a number, or one per channel"),
        ("mean=nan", "mean=nan: write"),
        ("mean=1/2", "mean has 2 numbers, an image has 3 channels"),
        ("mode=l,std=1/2/3", "std has 3 numbers, an image has 1 channels"),
        ("std=0", "std=0: write a number above 0"),
        ("scale=-1", "scale=-1: write"),
        ("mode=cmyk", "mode=cmyk: write rgb, bgr or l"),
        ("layout=chw", "layout=chw: write nchw or nhwc"),
        ("resample=box", "resample=box: write nearest, bilinear, bicubic, lanczos"),
    ],
)
def test_a_text_without_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=rf"^--preprocess {text}: .*{words}"):
        Preprocess.parse(text)


def test_an_input_that_takes_no_images_is_refused() -> None:
    with pytest.raises(OptionError, match=r"images have four axes, the input of the model 2: use an \.npz"):
        Preprocess.parse("unit", (None, 10))


# Pixels


def test_bytes_stay_bytes(tmp_path: Path) -> None:
    got = Preprocess(scale=1)(file(tmp_path, RAMP))
    assert (str(got.dtype), got.shape) == ("uint8", (3, 4, 6))
    np.testing.assert_array_equal(got, RAMP.transpose(2, 0, 1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", PILLOW_MODES)
def test_layouts_and_modes(tmp_path: Path, layout: str, mode: str) -> None:
    got = Preprocess(scale=1, layout=layout, mode=mode)(file(tmp_path, np.repeat(RAMP[..., :1], 3, 2)))
    channels = 1 if mode == "l" else 3
    assert got.shape == ((channels, 4, 6) if layout == "nchw" else (4, 6, channels))
    np.testing.assert_array_equal(got[0] if layout == "nchw" else got[..., 0], RAMP[..., 0])


def test_blue_comes_first_where_it_should(tmp_path: Path) -> None:
    np.testing.assert_array_equal(Preprocess(scale=1, mode="bgr")(file(tmp_path, RAMP)), RAMP.transpose(2, 0, 1)[::-1])


def test_scale_mean_and_deviation(tmp_path: Path) -> None:
    got = Preprocess(mean=MEAN, std=STD)(file(tmp_path, RAMP))
    assert got.dtype == np.float32
    expected = (RAMP.transpose(2, 0, 1) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_shorter_side_is_resized_and_the_centre_cut(tmp_path: Path) -> None:
    path = file(tmp_path, np.repeat(np.repeat(RAMP, 2, 0), 2, 1))  # 8 x 12
    small = Preprocess(resize=(4,), scale=1, resample="nearest")
    np.testing.assert_array_equal(small(path), RAMP.transpose(2, 0, 1))
    cut = Preprocess(resize=(4,), crop=(2, 2), scale=1, resample="nearest")
    np.testing.assert_array_equal(cut(path), RAMP.transpose(2, 0, 1)[:, 1:3, 2:4])
    assert Preprocess(resize=(5, 3))(path).shape == (3, 5, 3)
    assert Preprocess(resize=(5,))(path).shape == (3, 5, 7)  # 5 * 12 / 8 is 7.5; torchvision cuts it off, too


def test_a_tall_image_keeps_its_proportion(tmp_path: Path) -> None:
    path = file(tmp_path, RAMP.transpose(1, 0, 2))  # 6 x 4
    assert Preprocess(resize=(2,))(path).shape == (3, 3, 2)


def test_resampling_is_what_was_asked_for(tmp_path: Path) -> None:
    path = file(tmp_path, np.random.default_rng(0).integers(0, 256, (16, 16, 3)))
    with Image.open(path) as image:
        for name in RESAMPLINGS:
            expected = np.asarray(image.resize((5, 5), Image.Resampling[name.upper()]))
            np.testing.assert_array_equal(Preprocess(resize=(5,), scale=1, layout="nhwc", resample=name)(path), expected)


def test_an_image_smaller_than_the_crop_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4x6 pixels are less than crop=5x5: add resize="):
        Preprocess(crop=(5, 5))(file(tmp_path, RAMP))
