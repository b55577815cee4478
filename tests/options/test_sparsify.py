"""What users ask for, and what they are told when it makes no sense."""

from __future__ import annotations

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.options.targets import Goal


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"method": "best"}, "there is no method 'best'; there are auto, admm"),
        ({"allocation": "even"}, "there is no allocation 'even'"),
        ({"pattern": "2:4", "target": "sparsity=0.8"}, "--pattern 2:4 says how much stays"),
        ({"pattern": "2:4", "allocation": "erk"}, "leave --layer and --allocation out"),
        ({"target": "threshold=1", "allocation": "erk"}, "leave --allocation out"),
        ({"target": "size=0.5"}, "zeros alone save nothing: add --encoding auto"),
        ({"target": "latency=0.5"}, "target latency=0.5: zeros alone save no time: add --kernels, or remove channels with prune"),
        ({"layers": ("conv",)}, "write GLOB=SPARSITY"),
        ({"layers": ("conv=1",)}, "write GLOB=SPARSITY"),
        ({"seed": -1}, "--seed -1"),
        ({"sparsity": 0.5, "target": "size=2MB"}, r"--sparsity 0.5 and --target size=2e\+06: give one of them"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        SparseRecipe(**fields)  # type: ignore[arg-type]


def test_auto_depends_on_data() -> None:
    assert SparseRecipe().settled(data=True).method == "admm"
    assert SparseRecipe().settled(data=False).allocation == "erk"
    assert SparseRecipe("latency=0.5", kernels=True).settled(data=False).allocation == "uniform"
    with pytest.raises(OptionError, match="method 'wanda' needs samples: add --calib DATA"):
        SparseRecipe(method="wanda").settled(data=False)
    with pytest.raises(OptionError, match="allocation 'sensitivity' needs samples"):
        SparseRecipe(allocation="sensitivity").settled(data=False)


def test_encodings_are_those_there_are() -> None:
    with pytest.raises(OptionError, match="there is no encoding 'zip'"):
        SparseRecipe(encoding="zip")


def test_a_sparsity_is_short_for_a_target() -> None:
    assert SparseRecipe(sparsity=0.1234567).target == SparseRecipe("sparsity=0.1234567").target == Goal("sparsity", 0.1234567)
    assert SparseRecipe(sparsity=0.5).to_dict()["target"] == "sparsity=0.5"
    assert SparseRecipe().to_dict()["target"] == "auto"
    assert SparseRecipe(sparsity=0.5).settled(data=False).goal == Goal("sparsity", 0.5)
    assert SparseRecipe.from_dict(SparseRecipe("gzip=3MB").to_dict()) == SparseRecipe("gzip=3MB")


def test_layers_of_their_own_are_globs() -> None:
    assert SparseRecipe(layers=("a=b*=0.5", "*=0")).own == (("a=b*", 0.5), ("*", 0.0))
