"""Options as they are declared: help from docstrings, ranges and names that are checked, tables of TOML."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Annotated, Any

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.commands import Prune
from onnxprune.options.fields import Option, Options, Parsed, fields_of, meant, read
from onnxprune.options.prune import Recipe
from onnxprune.options.quantize import QuantRecipe
from onnxprune.options.registry import LABELS, SAMPLES, TORCH, Registry
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.options.train import Lesson, Sparse, Training

THINGS = Registry[int]("thing", homes=())
THINGS.add("plain", 1, "A plain one.")
THINGS.add("better", 2, "A better one.", (SAMPLES,))
THINGS.add("best", 3, "The best one.", (SAMPLES, TORCH, LABELS))


@dataclass(frozen=True)
class Some(Options):
    """Something.

    Attributes:
        name: of it: ``a`` or ``b``; goes on
            over two lines.
        many: ``globs`` of it.
        half: of its parts.

    Raises:
        ValueError: never.
    """

    name: str = "a"
    many: Annotated[tuple[str, ...], Option(flags="--one")] = ()
    half: Annotated[Parsed[float], Option(metavar="H")] = Parsed(lambda text: float(text) / 2, "3")
    share: Annotated[float, Option(range="[0, 1)", help="of all.")] = 0.5
    count: Annotated[int | None, Option(range="[1, inf)")] = None
    thing: Annotated[str, Option(names=("auto", THINGS), noun="thing", help="which thing.")] = "auto"
    flag: Annotated[bool, Option(flags="--yes/--nope")] = True
    first: InitVar[Annotated[int, Option(range="[0, inf)")]] = 0

    def __post_init__(self, first: int) -> None:
        super().__post_init__()
        if first:
            object.__setattr__(self, "name", str(first))


def test_help_is_what_the_docstring_says() -> None:
    helps = {field.name: field.help() for field in fields_of(Some)}
    assert helps == {
        "name": "Of it: a or b; goes on over two lines.",
        "many": "globs of it.",
        "half": "Of its parts.",
        "share": "Of all.",
        "count": "",
        "thing": "Which thing. By samples: better. By gradients, which needs samples with labels and PyTorch: best. "
        "Without samples: plain.",
        "flag": "",
        "first": "",
    }


@pytest.mark.parametrize("kind", [Recipe, SparseRecipe, QuantRecipe, Training, Sparse, Lesson, Prune])
def test_every_option_has_a_help(kind: type) -> None:
    assert all(field.help().endswith(".") for field in fields_of(kind))


def test_types_and_defaults() -> None:
    found = {field.name: (field.type, field.default) for field in fields_of(Some)}
    assert found == {
        "name": (str, "a"), "many": (tuple, ()), "half": (str, "3"), "share": (float, 0.5), "count": (int, None),
        "thing": (str, "auto"), "flag": (bool, True), "first": (int, 0),
    }  # fmt: skip


def test_a_value_that_is_read_from_text() -> None:
    assert (Some().half, Some(half="8").half, Some(half=0.25).half) == (1.5, 4.0, 0.25)
    assert Some(half=0.25).to_dict()["half"] == "0.25"


@pytest.mark.parametrize(
    ("table", "made"),
    [
        ({}, Some()),
        ({"name": 3, "share": 0, "count": 2}, Some("3", share=0.0, count=2)),
        ({"one": "x"}, Some(many=("x",))),
        ({"many": ["x", "y"], "nope": True}, Some(many=("x", "y"), flag=False)),
        ({"no-flag": True}, Some(flag=False)),
        ({"yes": False, "half": 4}, Some(flag=False, half=2.0)),
        ({"first": 7}, Some("7")),
    ],
)
def test_tables_are_read(table: dict[str, Any], made: Some) -> None:
    assert Some.from_dict(table) == made


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"nmae": 1}, "there is no option 'nmae'; did you mean 'name'?"),
        ({"xyz": 1}, "there is no option 'xyz'; there are name, many, half, share, count, thing, flag, first, one, yes, nope"),
        ({"flag": True, "nope": True}, "nope says again what flag says: leave one out"),
        ({"share": 1}, "--share 1.0: write a number from 0 to below 1"),
        ({"share": float("nan")}, "--share nan: write a number"),
        ({"count": 0}, "--count 0: write 1 or more"),
        ({"count": True}, "count = True is not a whole number"),
        ({"count": 1.5}, "count = 1.5 is not a whole number"),
        ({"thing": "worst"}, "there is no thing 'worst'; there are auto, better, best, plain"),
        ({"many": [1]}, r"many = \[1\] is not a list of texts"),
        ({"flag": "no"}, "flag = 'no' is not true or false"),
    ],
)
def test_tables_without_sense_are_refused(table: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Some.from_dict(table)


def test_several_dataclasses_share_a_table() -> None:
    made = read((Training, Lesson), {"data": "d", "epochs": 3}, defaults={"teacher": "t"})
    assert made == {Training: Training(epochs=3), Lesson: Lesson("d", "t")}
    with pytest.raises(OptionError, match=r"needs samples to train with: write data = \.\.\."):
        read((Lesson,), {})


def test_a_hint() -> None:
    assert meant("targte", ["target", "scope"]) == "; did you mean 'target'?"
    assert meant("x", ["target", "scope"]) == "; there are target, scope"
