"""Sizes that contradict each other."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from nets import parse
from onnxprune.ir.model import Model
from onnxprune.ir.types import Shape
from onnxprune.shapes.clashes import Clash, Relation, first_clash
from onnxprune.shapes.inference import infer
from onnxprune.shapes.size_arithmetic import small_constants


def clash(inputs: str, weights: str, body: str, **shapes: tuple[int, ...]) -> Clash | None:
    model = Model.of(parse(f"({inputs}) => (float[A] y) <{weights}> {{ {body} }}"))
    return infer(model, shapes, small_constants(model), 13, runs=False).clash


@pytest.mark.parametrize(
    ("weights", "body", "shape", "expected"),
    [
        ("float[7,5] w", "y = MatMul(x, w)", (2, 24), (24, 7)),
        ("float[5,7] w", "y = Gemm<transB = 1>(x, w)", (2, 24), (24, 7)),
        ("float[1,20,4] w", "y = Add(x, w)", (2, 24, 4), (24, 20)),
        ("float[4,3,3] w", "y = Conv(x, w)", (2, 24, 9), (24, 3)),
        ("float[3,4,3] w", "y = ConvTranspose(x, w)", (2, 24, 9), (24, 3)),
        ("float[1,16,3] w, float[1,16,4] r", "z, y, c = LSTM<hidden_size = 4>(x, w, r)", (5, 2, 24), (24, 3)),
        ("int64[2] s = {7, 5}", "y = Reshape(x, s)", (2, 24), (48, 35)),
        ("int64[2] s = {30, 11}", "y, z = Split<axis = 1>(x, s)", (2, 24), (24, 41)),
        ("float[2,9] w", "y = Concat<axis = 0>(x, w)", (2, 24), (24, 9)),
    ],
)
def test_what_must_be_equal(weights: str, body: str, shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    dims = ",".join("ABCD"[: len(shape)])
    found = clash(f"float[{dims}] x", weights, body, x=shape)
    assert found is not None
    assert {found.have, found.want} == {*expected}
    assert found.relation is Relation.EQUAL


def test_a_reshape_asks_for_multiples() -> None:
    found = clash("float[A,4] x", "int64[3] s = {-1, 7, 4}", "y = Reshape(x, s)", x=(2, 4))
    assert found == Clash((0,), 8, 28, Relation.MULTIPLE)
    assert clash("float[A,4] x", "int64[3] s = {-1, 7, 4}", "y = Reshape(x, s)", x=(14, 4)) is None


def test_zeros_that_are_sizes_are_not_looked_at_and_others_are() -> None:
    """PyTorch's newer exporter allows zeros everywhere."""
    found = clash("float[A,4] x", "int64[2] s = {3, 4}", "y = Reshape<allowzero = 1>(x, s)", x=(2, 4))
    assert found == Clash((0,), 8, 12)
    assert clash("float[A,4] x", "int64[2] s = {0, 4}", "y = Reshape<allowzero = 1>(x, s)", x=(2, 4)) is None


def test_a_table_has_an_end() -> None:
    body = "s = Shape<start = 0, end = 1>(x) t = Squeeze(s) r = Range(zero, t, one) y = Gather(table, r)"
    weights = "int64 zero = {0}, int64 one = {1}, float[12,4] table"
    assert clash("float[A,4] x", weights, body, x=(24, 4)) == Clash((3,), 24, 12, Relation.AT_MOST)
    assert clash("float[A,4] x", weights, body, x=(12, 4)) is None


def test_sizes_of_one_are_repeated() -> None:
    assert clash("float[A,4] x", "float[3,1] w", "y = Mul(x, w)", x=(1, 4)) is None


def test_what_is_not_known_is_no_contradiction() -> None:
    assert clash("float[A,4] x, int64[B] s", "", "y = Reshape(x, s)", x=(1, 4), s=(2,)) is None


@pytest.mark.parametrize(
    ("weights", "body", "have", "want", "rank"),
    [
        ("float[4,3,9,5] w", "y = Conv<dilations = [2, 1], pads = [1, 0, 2, 1]>(x, w)", 9 + 3, 17, 1),
        ("float w", "y = MaxPool<kernel_shape = [3, 11]>(x)", 8, 11, 1),
        ("int64[8] p = {0, 0, 9, 0, 0, 0, 2, 0}", 'y = Pad<mode = "reflect">(x, p)', 9, 10, 2),
    ],
)
def test_windows_ask_for_so_much_at_least(weights: str, body: str, have: int, want: int, rank: int) -> None:
    found = clash("float[A,B,C,D] x", weights, body, x=(2, 3, 9, 8))
    assert found == Clash((0,), have, want, Relation.AT_LEAST, rank)
    assert clash("float[A,B,C,D] x", weights, body, x=(2, 3, 17, 11)) is None


def test_frames_ask_for_so_much_at_least() -> None:
    weights, body = "int64 step = {4}, float[0] none, int64 length = {32}", 'y = STFT(x, step, "", length)'
    body = body.replace('""', "")
    found = clash("float[A,B,C] x", weights, body, x=(2, 24, 1))
    assert found == Clash((0,), 24, 32, Relation.AT_LEAST)


def test_of_bodies_only_what_is_too_small_counts() -> None:
    """A branch that is not taken may ask for other sizes than the one that is."""
    body = "y = If (c) <then_branch = t () => (u) { u = Conv (x, w) }, else_branch = e () => (v) { v = Add (x, b) }>"
    weights = "float[3,3,9] w, float[1,1,7] b"
    found = clash("float[A,B,C] x, bool c", weights, body, x=(2, 3, 8), c=())
    assert found is not None
    assert (found.place[0], found.have, found.want, found.relation) == (0, 8, 9, Relation.AT_LEAST)
    assert clash("float[A,B,C] x, bool c", weights, body, x=(2, 3, 9), c=()) is None


@pytest.mark.parametrize(
    "body",
    [
        "y = Gather <axis = 3> (x, i)",
        "y, z = Split <axis = 5, num_outputs = 2> (x)",
        "y = Split <axis = 4> (x, i)",
        "y = Concat <axis = 9> (x, x)",
    ],
)
def test_a_damaged_node_asks_for_nothing(body: str) -> None:
    graph = onnx.parser.parse_graph(f"g (float[2, 3] x, int64[1] i) => (float[n] y) {{ {body} }}")
    shapes: dict[str, Shape | None] = {"x": (2, 3)}
    assert first_clash(graph, 18, shapes, {"i": np.array([0])}) is None
