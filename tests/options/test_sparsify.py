"""What users ask for, and what they are told when it makes no sense."""

from __future__ import annotations

import pytest

from onnxprune.errors import OptionError
from onnxprune.options import sparsify
from onnxprune.options.sparsify import Goal, SparseRecipe
from onnxprune.sparse.encoding import choose


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ("sparsity=0.8", "sparsity", 0.8),
        ("threshold=1.5", "threshold", 1.5),
        ("size=2MB", "size", 2e6),
        ("size=0.3", "size", 0.3),
        ("gzip = 1.5 MiB", "gzip", 1.5 * 2**20),
        ("size=4096", "size", 4096),
    ],
)
def test_goals_read(text: str, metric: str, value: float) -> None:
    assert Goal.parse(text) == Goal(metric, value)


@pytest.mark.parametrize(
    "text", ["0.8", "sparsity=80%", "sparsity=1", "sparsity=-1", "size=0", "size=2XB", "macs=0.5", "sparsity=1kB"]
)
def test_other_goals_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="target"):
        Goal.parse(text)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"method": "best"}, "there is no method 'best'; there are auto, admm"),
        ({"allocation": "even"}, "there is no allocation 'even'"),
        ({"pattern": "2:4", "target": "sparsity=0.8"}, "--pattern 2:4 says how much stays"),
        ({"pattern": "2:4", "allocation": "erk"}, "leave --layer and --allocation out"),
        ({"target": "threshold=1", "allocation": "erk"}, "leave --allocation out"),
        ({"target": "size=0.5"}, "zeros alone save nothing: add --encoding auto"),
        ({"layers": ("conv",)}, "write GLOB=SPARSITY"),
        ({"layers": ("conv=1",)}, "write GLOB=SPARSITY"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        SparseRecipe(**fields)  # type: ignore[arg-type]


def test_auto_depends_on_data() -> None:
    assert SparseRecipe().settled(data=True).method == "admm"
    assert SparseRecipe().settled(data=False).allocation == "erk"
    with pytest.raises(OptionError, match="method 'wanda' needs samples: add --calib DATA"):
        SparseRecipe(method="wanda").settled(data=False)
    with pytest.raises(OptionError, match="allocation 'sensitivity' needs samples"):
        SparseRecipe(allocation="sensitivity").settled(data=False)


def test_encodings_are_those_there_are() -> None:
    assert set(sparsify.ENCODINGS) == set(choose.ENCODINGS)
    with pytest.raises(OptionError, match="there is no encoding 'zip'"):
        SparseRecipe(encoding="zip")


def test_layers_of_their_own_are_globs() -> None:
    assert SparseRecipe(layers=("a=b*=0.5", "*=0")).own == (("a=b*", 0.5), ("*", 0.0))
