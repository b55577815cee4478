"""Equations as text: parse and print, expand the ellipses, solve for sizes; errors that quote the text."""

from __future__ import annotations

import doctest

import pytest

from onnxprune.axes import equation
from onnxprune.axes.equation import expand_ellipses, parse, parse_axis, show_axis, size_of, solve
from onnxprune.axes.rules import axes
from onnxprune.errors import RuleError
from onnxprune.ir.types import Shape

ROUND_TRIP = [
    "n c h w -> n c h w",
    "n (g i) _..., (g o) i _..., (g o) -> n (g o) _...",
    "... m k, ... k n -> ... m n",
    "n a h w, n b h w -> n (a+b) h w",
    "n (p+q+r) -> n q",
    "b s i, i (t h d) -> b s (h d)",
    "a 1 b -> a b",
    "(a h+d) _ -> _",
    "a0 dim1 -> (a0 dim1)",
    " -> a",
    "a -> ",
    "a, , b -> a b",
]

SPELLED = [
    ("a  b->b   a", "a b -> b a"),
    ("( a   b )->a b", "(a b) -> a b"),
    ("(a)->a", "a -> a"),
    ("(a 1 b)->a b", "(a b) -> a b"),
    ("(a+1)->(1)", "(a+1) -> 1"),
    ("()->1", "1 -> 1"),
]

BROKEN = [
    ("a b", "no '->'"),
    ("a (b -> a b", r"'\(' is not closed"),
    ("a ((b c) d) -> a", r"nested '\('"),
    ("a b) -> a", r"'\)' without '\('"),
    ("a+b -> a", r"'\+' without '\('"),
    ("a ? -> a", r"unexpected '\?'"),
    ("a -> b -> c", "unexpected '-'"),
]

SOLVED: list[tuple[str, dict[str, int], list[Shape | None], list[Shape | None], dict[str, int]]] = [
    ("n a, n b -> n (a+b)", {}, [None, (2, 7)], [(2, 10)], {"n": 2, "a": 3, "b": 7}),
    ("n c -> n c", {}, [(2, 3)], [(2, 3)], {"n": 2, "c": 3}),
    ("n (g i), (g o) i -> n (g o)", {"g": 4}, [(2, 12), (8, 3)], [(2, 8)], {"n": 2, "g": 4, "i": 3, "o": 2}),
    ("n (g i), (g o) i -> n (g o)", {}, [(2, 12), (8, 3)], [(2, 8)], {"n": 2, "g": 4, "i": 3, "o": 2}),
    ("a, b -> (a+b)", {}, [(2,), (3,)], [(5,)], {"a": 2, "b": 3}),
    ("(p+q+r) -> q", {"p": 3, "r": 2}, [(9,)], [(4,)], {"p": 3, "q": 4, "r": 2}),
    ("(p+q) -> q", {}, [(9,)], [(9,)], {"p": 0, "q": 9}),
    ("(t a) -> t a", {}, [(12,)], [(3, 4)], {"t": 3, "a": 4}),
    ("_ a -> a", {}, [(5, 3)], [(3,)], {"a": 3}),
    ("a 1 -> a", {}, [(5, 1)], [(5,)], {"a": 5}),
    ("a, b -> a", {}, [(5,), None], [(5,)], {"a": 5}),
    ("a -> a", {"k": 9}, [(5,)], [(5,)], {"a": 5, "k": 9}),
]

CONTRADICTIONS: list[tuple[str, dict[str, int], list[Shape | None], list[Shape | None], str]] = [
    ("n c -> c n", {}, [(2, 3)], [(2, 3)], "is both . and ."),
    ("(g i) -> g", {"g": 5}, [(12,)], [(5,)], r"\(g i\) is 10, not 12"),
    ("(a+b) -> a b", {}, [(9,)], [(4, 6)], r"\(a\+b\) is 10, not 9"),
    ("a 1 -> a", {}, [(5, 2)], [(5,)], "1 is 1, not 2"),
    ("(a b) -> _", {}, [(12,)], [(12,)], "the sizes of a, b do not follow from the shapes"),
]


@pytest.mark.parametrize("text", ROUND_TRIP)
def test_what_parses_prints_as_it_was(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(str(parse(text))) is parse(text)


@pytest.mark.parametrize(("text", "printed"), SPELLED)
def test_spelling_is_normalised(text: str, printed: str) -> None:
    assert str(parse(text)) == printed
    assert str(parse(printed)) == printed


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_error_quotes_the_text(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message) as caught:
        parse(text)
    assert repr(text) in str(caught.value)


def test_marks_are_printed() -> None:
    rule = axes("n (g k) -> n (g k)", mix="k", fixed="n")
    assert str(rule) == "n (g k) -> n (g k); mix k; fixed n"


@pytest.mark.parametrize("text", ["c", "1", "_", "(g o)", "(a+b)", "(g o+b)", "(a+1)"])
def test_axis_round_trip(text: str) -> None:
    assert show_axis(parse_axis(text)) == text


# Letters


def test_roles_of_letters() -> None:
    conv = parse("n (g i) _, (g o) i _, (g o) -> n (g o) _")
    assert conv.carriers == {"n": ((0, 0),), "g": ((0, 1), (1, 0), (2, 0)), "i": ((0, 1), (1, 1)), "o": ((1, 0), (2, 0))}
    assert conv.contracted == {"i"}
    assert parse("a -> (t a)").contracted == frozenset()


def test_spelling_is_a_letter_where_the_axis_is_one() -> None:
    assert parse("a (b c) 1 -> (a+b)").spelling == ((("a", (("b", "c"),), ((),)),), (((("a",), ("b",)),),))


# Ellipses


@pytest.mark.parametrize(
    ("text", "inputs", "outputs", "expanded"),
    [
        ("... -> ...", (3,), (3,), "dim2 dim1 dim0 -> dim2 dim1 dim0"),
        ("... d, d -> ... d", (3, 1), (3,), "dim1 dim0 d, d -> dim1 dim0 d"),
        ("... a, ... a -> ... a", (3, 2), (3,), "dim1 dim0 a, dim0 a -> dim1 dim0 a"),
        ("n c _... -> n c _...", (4,), (4,), "n c _ _ -> n c _ _"),
        ("n c _... -> n c", (2,), (2,), "n c -> n c"),
        ("a _... b -> b", (4,), (1,), "a _ _ b -> b"),
        ("... -> ", (0,), (0,), " -> "),
        ("a, b -> a", (1, None), (1,), "a,  -> a"),
        ("a, b -> a", (1,), (1,), "a,  -> a"),
        ("a -> a, b", (1,), (1, None), "a -> a, "),
    ],
)
def test_ellipses_expand_from_the_right(
    text: str, inputs: tuple[int | None, ...], outputs: tuple[int | None, ...], expanded: str
) -> None:
    assert str(expand_ellipses(parse(text), (inputs, outputs))) == expanded


@pytest.mark.parametrize(("text", "rank"), [("n c -> n c", 3), ("n c -> n c", 1), ("n c _... -> n", 1), ("a ... -> a", 0)])
def test_a_rank_that_does_not_fit_is_an_error(text: str, rank: int) -> None:
    with pytest.raises(RuleError, match=f"a tensor of rank {rank} does not fit") as caught:
        expand_ellipses(parse(text), ((rank,), (1,)))
    assert text in str(caught.value)


# Sizes


@pytest.mark.parametrize(("text", "known", "inputs", "outputs", "sizes"), SOLVED)
def test_sizes_follow_from_shapes(
    text: str, known: dict[str, int], inputs: list[Shape | None], outputs: list[Shape | None], sizes: dict[str, int]
) -> None:
    assert solve(parse(text), known, inputs, outputs) == sizes


@pytest.mark.parametrize(("text", "known", "inputs", "outputs", "message"), CONTRADICTIONS)
def test_contradictions_are_errors(
    text: str, known: dict[str, int], inputs: list[Shape | None], outputs: list[Shape | None], message: str
) -> None:
    with pytest.raises(RuleError, match=message) as caught:
        solve(parse(text), known, inputs, outputs)
    assert text in str(caught.value)


def test_a_part_larger_than_its_sum_is_a_contradiction() -> None:
    with pytest.raises(RuleError, match=r"\(a\+b\)"):
        solve(parse("(a+b) -> a"), {}, [(3,)], [(5,)])


def test_known_sizes_are_left_alone() -> None:
    known = {"g": 4}
    solve(parse("(g i) -> _"), known, [(12,)], [(12,)])
    assert known == {"g": 4}


def test_size_of_an_axis() -> None:
    assert size_of(parse_axis("(a b+c+1)"), {"a": 2, "b": 3, "c": 4}) == 11


def test_examples_of_the_docstrings() -> None:
    assert doctest.testmod(equation).failed == 0
