"""Concrete shapes, dynamic sizes and size arithmetic."""

from __future__ import annotations

import pytest
from onnx import ModelProto, TensorProto, helper

from nets import NETS, parse
from onnxprune.ir.model import Model
from onnxprune.shapes.probes import Shapes, probe
from onnxprune.shapes.size_arithmetic import SMALL


def shapes_of(text: str, opset: int = 18) -> Shapes:
    return probe(Model.of(parse(text, opset)))


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [(8, 24), (31, 64), (512, 1024), (4000, 8192)],
)
def test_inputs_are_longer_than_windows(kernel: int, expected: int) -> None:
    text = f"(float[N,1,T] x) => (float[N,4,F] y) <float[4,1,{kernel}] w> {{ a = Conv(x, w) y = Relu(a) }}"
    found = shapes_of(text)
    assert found.shapes["x"] == (2, 1, expected)
    assert found.shapes["y"] == (2, 4, expected - kernel + 1)


def test_batches_that_are_multiples_alone() -> None:
    found = shapes_of("(float[N,7] x) => (float[M,7] y) <int64[2] to = {4, -1}> { f = Reshape(x, to) y = Relu(f) }")
    assert found.shapes["f"] == (4, 7)
    assert found.dynamic["f"] == (False, True)


def test_sizes_that_must_be_equal_are_found() -> None:
    """An exporter gave one size two names."""
    found = shapes_of("""(int64[N,S] ids, int64[M,T] mask) => (float[N,S,4] y) <float[9,4] w> {
      e = Gather(w, ids) f = Cast<to = 1>(mask) a = Constant<value_ints = [2]>() m = Unsqueeze(f, a) p = Mul(e, m) y = Relu(p)
    }""")
    assert found.shapes["p"] == (2, 24, 4)
    assert found.dynamic["p"] == (True, True, False)


def test_what_is_computed_from_a_remainder_is_dynamic() -> None:
    """Sequences are padded to whole windows of four."""
    found = shapes_of("""(float[N,T,3] x) => (float[N,S,3] y)
    <int64[1] i1 = {1}, int64[1] four = {4}, int64[4] before = {0, 0, 0, 0}, int64[1] none = {0}> {
      s = Shape(x) t = Gather(s, i1) r = Mod(t, four) d = Sub(four, r) more = Mod(d, four)
      pads = Concat<axis = 0>(before, more, none) y = Pad(x, pads)
    }""")
    assert found.dynamic["y"] == (True, True, False)
    assert found.values["more"] == [0]
    assert found.moving["more"] == [1]


def test_a_model_for_whole_windows_gets_them() -> None:
    found = shapes_of("""(float[N,T,6] x) => (float[N,T,6] y) <int64[4] apart = {0, -1, 4, 6}, int64[3] whole = {0, -1, 6}> {
      w = Reshape(x, apart) r = Relu(w) j = Reshape(r, whole) y = Add(j, x)
    }""")
    assert found.shapes["w"] == (2, 6, 4, 6)
    assert found.dynamic["w"] == (True, True, False, False)


def test_a_size_that_is_open_by_mistake_is_found() -> None:
    found = shapes_of("""(float[N,3,H,W] x) => (float[N,5] y) <float[4,3,3,3] w, float[576,5] v> {
      c = Conv<strides = [2,2]>(x, w) p = MaxPool<kernel_shape = [2,2], strides = [1,1]>(c) f = Flatten(p) m = MatMul(f, v)
      y = Relu(m)
    }""")
    assert found.shapes["c"] == (2, 4, 13, 13)
    assert found.shapes["m"] == (2, 5)
    assert found.dynamic["c"] == (True, False, False, False)


@pytest.mark.parametrize("given", ["", "H=50", "W=50"])
def test_axes_that_move_alone_are_dynamic(given: str) -> None:
    """Heights from 40 to 79 are right, and any width: twice both is not, which says nothing of the width."""
    text = """(float[N,4,H,W] x) => (float[N,4,1,M] y)
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] three = {3}, int64[1] four = {4}> {
      p = AveragePool<kernel_shape = [40, 2], strides = [40, 2]>(x)
      s = Shape(p)
      n = Slice(s, zero, one, zero)
      w = Slice(s, three, four, zero)
      to = Concat<axis = 0>(n, four, one, w)
      y = Reshape(p, to)
    }"""
    model = Model.of(parse(text), (given,) if given else ())
    found = probe(model)
    assert found.dynamic["x"][3]
    assert found.open["to"].tolist() == [True, False, False, True]


def test_a_contradiction_that_nothing_resolves_keeps_the_plain_sizes() -> None:
    found = shapes_of("""(float[N,H] x) => (float[N,5] y) <float[7,5] v, float[9,5] w> {
      m = MatMul(x, v) n = MatMul(x, w) y = Add(m, n)
    }""")
    assert found.shapes["x"] == (2, 24)
    assert found.shapes["m"] is None


def test_shapes_and_what_is_dynamic() -> None:
    found = shapes_of(NETS["attention"])
    assert found.batch == 2
    assert found.shapes["qh"] == (2, 3, 24, 4)
    assert found.shapes["s"] == (2, 3, 24, 24)
    assert found.dynamic["s"] == (True, False, True, True)
    assert found.dynamic["of"] == (True, True, False)
    assert "wqkv" not in found.dynamic


def test_a_static_model_has_nothing_dynamic() -> None:
    found = shapes_of(NETS["chain"].replace("[N,", "[5,"))
    assert not found.dynamic
    assert not found.moving
    assert found.batch == 1
    assert found.shapes["y"] == (5, 4, 8, 8)


def test_recorded_shapes_of_an_earlier_size_are_not_believed() -> None:
    model = parse(NETS["chain"])
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 8, 8, 8]))
    assert probe(Model.of(model)).shapes["r"] == (2, 8, 8, 8)


ARITHMETIC = """(float[N,6,4,4] x) => (float[N,96] y)
<int64 zero = {0}, int64[1] minus = {-1}, int64[1] axes0 = {0}> {
  s = Shape(x)
  b = Gather(s, zero)
  ub = Unsqueeze(b, axes0)
  to = Concat<axis = 0>(ub, minus)
  y = Reshape(x, to)
}"""


def test_size_arithmetic_is_computed_and_told_from_what_moves() -> None:
    found = shapes_of(ARITHMETIC)
    assert found.values["s"].tolist() == [2, 6, 4, 4]
    assert found.values["to"].tolist() == [2, -1]
    assert found.moving["to"].tolist() == [3, -1]
    assert found.moving["b"].tolist() == 3
    assert found.shapes["y"] == (2, 96)
    assert found.dynamic["y"] == (True, False)


def test_static_size_arithmetic_does_not_move() -> None:
    found = shapes_of("""(float[N,6,4,4] x) => (float y) <int64 one = {1}> {
      s = Shape(x)
      c = Gather(s, one)
      f = Cast<to = 1>(c)
      y = Sqrt(f)
    }""")
    assert found.values["c"].tolist() == 6
    assert "c" not in found.moving
    assert found.moving["s"].tolist() == [3, 6, 4, 4]


@pytest.mark.parametrize("opset", [15, 18])
def test_the_slice_that_a_shape_node_takes(opset: int) -> None:
    found = shapes_of("(float[N,6,4,5] x) => (int64[2] y) { y = Shape<start = 1, end = -1>(x) }", opset)
    assert found.values["y"].tolist() == [6, 4]


def test_size_is_the_number_of_elements() -> None:
    found = shapes_of("(float[N,6,5] x) => (int64 y) { y = Size(x) }")
    assert (found.values["y"].tolist(), found.moving["y"].tolist()) == (60, 90)


def test_large_values_are_not_computed() -> None:
    found = shapes_of(
        f"(float[2] x) => (int64[{SMALL + 1}] y) <int64 a = {{0}}, int64 b = {{{SMALL + 1}}}, int64 c = {{1}}>"
        " { y = Range(a, b, c) }"
    )
    assert "y" not in found.values
    assert found.shapes["y"] == (SMALL + 1,)


def test_random_numbers_are_not_size_arithmetic() -> None:
    found = shapes_of("(float[2] x) => (float[2] y) <int64[1] n = {2}> { z = ConstantOfShape(n)\n y = RandomNormalLike(z) }")
    assert "y" not in found.values


def test_a_size_that_depends_on_data_is_not_taken_for_static() -> None:
    found = shapes_of("(float[N,3] x) => (float[N,K] y) <bool[3] keep = {1, 0, 1}> { y = Compress<axis = 1>(x, keep) }")
    assert found.shapes["y"] is None or found.dynamic["y"] == (True, True)


def test_a_custom_operator_leaves_its_shape_unknown() -> None:
    model: ModelProto = parse(NETS["chain"])
    model.graph.node[2].op_type, model.graph.node[2].domain = "Foo", "my.domain"
    model.opset_import.add(domain="my.domain", version=1)
    found = probe(Model.of(model))
    assert found.shapes["n"] == (2, 8, 8, 8)
    assert found.shapes["r"] is None


def test_sizes_that_the_user_gave_come_first_and_nothing_else_is_taken_for_static() -> None:
    """The graph takes other sizes, too: what it computes from them is no constant."""
    text = "(float[N,3,H,W] x) => (float[N,3,A,B] y) { y = MaxPool<kernel_shape = [2,2], strides = [2,2]>(x) }"
    found = probe(Model.of(parse(text), ("x=1x3x40x40",)))
    assert found.shapes["x"] == (1, 3, 40, 40)
    assert found.dynamic["y"] == (True, False, True, True)


def test_a_given_size_that_is_the_only_right_one() -> None:
    text = "(float[N,T,4] x) => (float[N,A,4] y) <float[1,20,4] table> { y = Add(x, table) }"
    found = probe(Model.of(parse(text), ("T=20",)))
    assert found.shapes["y"] == (2, 20, 4)
    assert found.dynamic["y"] == (True, False, False)


def test_an_input_without_a_rank() -> None:
    model = parse("(float[N,4] x) => (float[N,4] y) <float[4,4] w> { m = MatMul(x, w) y = Relu(m) }")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert probe(Model.of(model)).shapes["y"] == (2, 4)
    assert probe(Model.of(model, ("x=5x6x4",))).shapes["y"] == (5, 6, 4)
