"""Shapes at a batch, guessed sizes, and random data for the inputs of a model that is timed."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import OptionError
from onnxprune.latency.inputs import SessionInput, make_feeds, resolve_shapes, session_inputs


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (("N", 3, 32, 32), (8, 3, 32, 32)),
        ((None, 5), (8, 5)),
        (("rows", 5), (8, 5)),
        (("seq", "batch", 5), (64, 8, 5)),  # time first, as recurrent networks have it
        (("sequence_length",), (64,)),
        (("N", 3, "H", "W"), (8, 3, 224, 224)),
        (("N", 3, None, None), (8, 3, 224, 224)),
        ((None, None, None, 3), (8, 224, 224, 3)),
        (("batch_size", 12, "past_len", 64), (8, 12, 64, 64)),
        ((), ()),
    ],
)
def test_batch_and_defaults_of_dynamic_axes(dims: tuple[int | str | None, ...], shape: tuple[int, ...]) -> None:
    assert resolve_shapes([SessionInput("x", "tensor(float)", dims)], 8, {}).shapes == {"x": shape}


def test_guessed_sizes_are_noted_and_known_ones_are_not() -> None:
    inputs = [SessionInput("ids", "tensor(int64)", ("N", "seq")), SessionInput("mask", "tensor(int64)", ("N", "seq"))]
    (note,) = resolve_shapes(inputs, 2, {}).notes
    assert "ids: seq=64" in note
    known = resolve_shapes(inputs, 2, {"mask": [-1, 7]})
    assert known.shapes == {"ids": (2, 7), "mask": (2, 7)}  # a symbol has one size
    assert known.notes == ()


def test_a_fixed_batch_is_kept_and_noted() -> None:
    fixed = resolve_shapes([SessionInput("x", "tensor(float)", (4, 3))], 8, {})
    assert fixed.batch == 4
    assert fixed.shapes == {"x": (4, 3)}
    assert fixed.notes == ("the model's batch is fixed at 4; 8 was asked for",)
    assert resolve_shapes([SessionInput("x", "tensor(float)", (8, 3))], 8, {}).notes == ()
    assert resolve_shapes([], 8, {}).batch == 1


@pytest.mark.parametrize(
    ("dims", "shape", "says"),
    [
        (("N", 3), [1, 3, 5], "rank 3"),
        (("N", 3), [1, 4], "axis 1"),
        (("N", "seq"), [1, 0], "axis 1"),
        (("N", "seq"), [4, 5], "ask for batch 4"),
        (("N", "C", "H", "W"), None, "axis 1 has no plausible size: give its shape"),
        (("N", 3, None, 8, 8), None, "axis 2 has no plausible size: give its shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(dims: tuple[int | str | None, ...], shape: list[int] | None, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        resolve_shapes([SessionInput("pic", "tensor(float)", dims)], 2, {"pic": shape} if shape else {})
    assert "'pic'" in str(caught.value)


def test_one_symbol_cannot_be_given_two_sizes() -> None:
    inputs = [SessionInput("a", "tensor(float)", ("N", "seq")), SessionInput("b", "tensor(float)", ("N", "seq"))]
    with pytest.raises(OptionError, match="'seq' is given two sizes, 3 and in input 'b' 4"):
        resolve_shapes(inputs, 1, {"a": [-1, 3], "b": [-1, 4]})


def test_a_symbol_of_which_one_input_is_given_two_sizes_names_nothing() -> None:
    image = SessionInput("x", "tensor(float)", ("N", 3, "any", "any"))
    assert resolve_shapes([image], 2, {"x": [-1, 3, 48, 192]}).shapes == {"x": (2, 3, 48, 192)}
    mask = SessionInput("m", "tensor(float)", ("N", "any"))
    assert resolve_shapes([image, mask], 1, {"x": [-1, 3, 48, 192], "m": [-1, 7]}).shapes["m"] == (1, 7)


def test_a_question_mark_is_no_symbol() -> None:
    class Input:
        name, type, shape = "x", "tensor(float)", ("?", 3, "?", "?")

    class Session:
        get_inputs = staticmethod(lambda: [Input])

    assert session_inputs(Session) == (SessionInput("x", "tensor(float)", (None, 3, None, None)),)


def test_feeds_depend_on_seed_and_name_alone() -> None:
    x, y = SessionInput("x", "tensor(float)", ()), SessionInput("y", "tensor(float)", ())
    shapes = {"x": (3, 4), "y": (3, 4)}
    both, alone = make_feeds([y, x], shapes, 0), make_feeds([x], shapes, 0)
    assert np.array_equal(both["x"], alone["x"])
    assert not np.array_equal(both["x"], both["y"])
    assert not np.array_equal(alone["x"], make_feeds([x], shapes, 1)["x"])


@pytest.mark.parametrize("name", ["float16", "float", "double", "int8", "uint8", "int32", "int64", "bool"])
def test_feeds_have_the_type_of_the_input(name: str) -> None:
    data = make_feeds([SessionInput("x", f"tensor({name})", ())], {"x": (50,)}, 0)["x"]
    assert data.dtype == np.dtype({"float": "float32", "double": "float64"}.get(name, name))
    assert (len(set(data.tolist())) == 2) == (data.dtype.kind != "f")  # 0 and 1; floats are normal
    assert make_feeds([SessionInput("x", f"tensor({name})", ())], {"x": ()}, 0)["x"].shape == ()
