"""Globs that name nothing are refused, with names that come near."""

from __future__ import annotations

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.globs import check_globs

NAMES = ["stem.0.weight", "stem.0.bias", "/layers/attention/MatMul", ""]


@pytest.mark.parametrize("globs", [[], ["stem*"], ["stem.0.weight", "*MatMul"], ["/layers/*"]])
def test_globs_that_name_something_pass(globs: list[str]) -> None:
    check_globs(globs, NAMES, "--protect", "node")


@pytest.mark.parametrize(
    ("glob", "near"),
    [
        ("stemm*", "did you mean 'stem*'"),
        ("stem.0.weight:0", "did you mean 'stem.0.weight'"),
        ("*atention*", "'/layers/attention*'"),
        ("zzzzz", "there are 'stem.0.weight', 'stem.0.bias'"),
    ],
)
def test_others_are_refused_with_near_names(glob: str, near: str) -> None:
    with pytest.raises(OptionError) as found:
        check_globs(["stem*", glob], NAMES, "--layer", "layer of net.onnx")
    assert str(found.value).startswith(f"--layer {glob!r}: no layer of net.onnx is called like that; ")
    assert near in str(found.value)


def test_other_names_are_asked_for_only_where_none_of_the_first_fits() -> None:
    asked = []

    def more() -> list[str]:
        asked.append(1)
        return ["other"]

    check_globs(["stem*"], NAMES, "--protect", "node", more)
    assert not asked
    check_globs(["oth*"], NAMES, "--protect", "node", more)
    assert asked
