"""Options of `release`, as a recipe file writes them."""

from __future__ import annotations

import pytest

from onnxprune.errors import OptionError
from onnxprune.options import fields
from onnxprune.options.release import ReleaseRecipe


def test_a_table_names_inputs() -> None:
    read = fields.read((ReleaseRecipe,), {"inputs": ["w", "b*"], "require_proof": True})
    assert read[ReleaseRecipe] == ReleaseRecipe(inputs=("w", "b*"), require_proof=True)


def test_a_table_says_what_there_is() -> None:
    with pytest.raises(OptionError, match="output"):
        fields.read((ReleaseRecipe,), {"output": ["w"]})
