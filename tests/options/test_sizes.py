"""Sizes as users write them."""

from __future__ import annotations

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.sizes import check_shape, read_shape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image=?x3x224x224", ("image", (None, 3, 224, 224))),
        ("height=224", ("height", (224,))),
        ("past=0", ("past", (0,))),
        ("input:0=1x?", ("input:0", (1, None))),
        ("a=b = 1 ", ("a=b", (1,))),
    ],
)
def test_what_is_read(text: str, expected: tuple[str, tuple[int | None, ...]]) -> None:
    assert read_shape(text) == expected


@pytest.mark.parametrize("text", ["", "224", "=224", "image=", "image=1x", "image=1,3", "image=-1x3", "image=1x3.5"])
def test_what_is_not(text: str) -> None:
    with pytest.raises(OptionError, match=r"--shape '.*': write the sizes of an input, as image=\?x3x224x224"):
        check_shape(["height=224", text])


def test_one_text_is_no_list() -> None:
    with pytest.raises(OptionError, match=r"shape = 'height=224' is not a list of texts"):
        check_shape("height=224")
