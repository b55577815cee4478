"""Linear readers: what ONNX Runtime computes is the product of the matrices that a reader says it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from nets import NETS, parse, some
from onnxprune.axes.factors import Keeper, mask_outside
from onnxprune.axes.plan import Plan
from onnxprune.driver.prune import analyze
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array
from onnxprune.linear.layers import Reader, install, linear_readers, matrix_of
from onnxprune.linear.rows import input_rows, output_rows, pick_rows, positions_read
from onnxprune.passes import PruneChannels
from onnxprune.passes.analysis import Analysis
from onnxprune.runtime import session

ALL = 10**9


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def readers_of(found: Analysis) -> list[Reader]:
    return linear_readers(found.model, found.coupling)


def feeds_of(model: Model) -> dict[str, Array]:
    """Two samples, the open sizes small."""
    shapes = {v.name: tuple(d.dim_value or 2 for d in v.type.tensor_type.shape.dim) for v in model.inputs}
    return session.random_feeds(model.inputs, shapes, 1)


def values(model: Model, names: list[str]) -> dict[str, Array]:
    return dict(zip(names, session.Session(model, names).run(feeds_of(model)), strict=True))


def close(got: Array, expected: Array) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(expected).max(initial=0))))


def check_product(reader: Reader, model: Model) -> None:
    """Rows of the input times the matrix, and the bias, are rows of the output; some rows are those of all."""
    got = values(model, [reader.data, reader.output])
    x, y, w = got[reader.data], got[reader.output], model.weights[reader.weight].array()
    picked = pick_rows(reader, x.shape, w.shape, ALL, rng())
    rows, outputs, matrix = input_rows(reader, x, picked), output_rows(reader, y, picked), reader.matrix(w)
    assert matrix.shape == (reader.groups, reader.features, outputs.shape[2])
    assert reader.groups * outputs[0].size == y.size
    whole = matrix_of(reader, model)
    predicted = rows @ whole[:, : reader.features]
    if reader.affine:
        predicted = predicted + whole[:, reader.features :]
    if reader.bias:
        bias = model.weights[reader.bias].array()
        close(reader.bias_of(reader.bias_matrix(bias), bias), bias)
    close(predicted.astype(np.float32), outputs)
    back = reader.weight_of(matrix, w)
    assert back.dtype == w.dtype
    np.testing.assert_allclose(back, w, rtol=1e-6)
    few = pick_rows(reader, x.shape, w.shape, 3, rng())
    batches = 1 if picked.taps is None else x.shape[0]
    assert len(few.places) == min(len(picked.places), max(1, round(3 / batches)))
    for whole, part in ((rows, input_rows(reader, x, few)), (outputs, output_rows(reader, y, few))):
        blocks = whole.reshape(len(whole), len(picked.places), batches, -1)
        np.testing.assert_array_equal(part.reshape(len(whole), len(few.places), batches, -1), blocks[:, few.places])


def check_positions(reader: Reader, found: Analysis) -> int:
    """Zeros at a position of a group are zeros at exactly the features that are said to belong to it; how many it reads."""
    x = values(found.model, [reader.data])[reader.data]
    x = np.where(x == 0, np.ones((), x.dtype), x)
    picked = pick_rows(reader, x.shape, found.model.weights[reader.weight].shape, ALL, rng())
    read = 0
    for group in found.coupling.groups:
        positions = positions_read(reader, found.coupling, group.factor)
        if positions is None:
            continue
        read += 1
        assert positions.shape == (reader.groups, reader.features)
        rows = input_rows(reader, x, picked)
        for position in range(group.size):
            kept = Keeper({group.factor: np.delete(np.arange(group.size), position)})(found.coupling.axes[reader.data])
            changed = (input_rows(reader, mask_outside(x, kept), picked) != rows).any(1)
            padding = (rows == 0).all(1)
            np.testing.assert_array_equal(changed, (positions == position) & ~padding)
    return read


def check_cut(found: Analysis, seed: int = 0) -> None:
    """In a pruned graph, too, readers are the products that they say they are."""
    keep = {group.id: np.array(some(group.size, seed)) for group in found.coupling.groups}
    pruned = PruneChannels().run(found, Plan(keep))
    counts = {group.factor: len(keep[group.id]) for group in found.coupling.groups}
    for reader in readers_of(found):
        check_product(reader.cut(counts), pruned)


def check(model: ModelProto, names: list[str], *, affine: list[bool] | None = None, groups: int = 0) -> list[Reader]:
    """The readers have these weights, and are what they say; ``groups``: the least number of groups that they read."""
    found = analyze(model)
    readers = readers_of(found)
    assert [reader.weight for reader in readers] == names
    if affine is not None:
        assert [reader.affine for reader in readers] == affine
    assert sum(check_positions(reader, found) for reader in readers) >= groups
    for reader in readers:
        check_product(reader, found.model)
    check_cut(found)
    return readers


WEIGHTS = {
    "chain": ["w1", "w2", "w3"],
    "residual": ["w0", "w1", "w2", "w3"],
    "depthwise": ["w1", "dw", "w2"],
    "shuffle": ["w1", "g1", "g2", "w2"],
    "concat_split": ["wa", "wb", "wl", "wr"],
    "gate": ["w1", "down", "up", "w2"],
    "depth_to_space": ["w1", "w2"],
    "flatten": ["w1", "w2", "w3"],
    "attention": ["wqkv", "wo"],
}


@pytest.mark.parametrize("name", NETS)
def test_readers_of_nets(name: str) -> None:
    check(parse(NETS[name]), WEIGHTS[name], groups=len(WEIGHTS[name]) - 2)


@settings(max_examples=40)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    """In one to three dimensions, between two others; dense, grouped and depthwise; whatever pads."""
    draw = data.draw
    dims, groups, inner, outer = draw(st.integers(1, 3)), *(draw(st.integers(1, 3)) for _ in range(3))
    transposed = draw(st.booleans())
    kernel, strides = ([draw(st.integers(1, 3)) for _ in range(dims)] for _ in range(2))
    attributes = f"group = {groups}, strides = {strides}"
    if draw(st.booleans()):
        attributes += f', auto_pad = "{draw(st.sampled_from(["VALID", "SAME_UPPER", "SAME_LOWER"]))}"'
    else:
        attributes += f", dilations = {[draw(st.integers(1, 2)) for _ in range(dims)]}"
        attributes += f", pads = {[draw(st.integers(0, 1)) for _ in range(2 * dims)]}"
    if transposed and "auto_pad" not in attributes:
        attributes += f", output_padding = {[draw(st.integers(0, stride - 1)) for stride in strides]}"
    size = ",".join(str(draw(st.integers(5, 6))) for _ in range(dims))
    ins, outs, spatial = groups * inner, groups * outer, ",".join(map(str, kernel))
    weight = f"{ins},{outer},{spatial}" if transposed else f"{outs},{inner},{spatial}"
    ones = ",".join("1" * dims)
    bias = draw(st.booleans())
    open_sizes = ",".join(f"S{dim}" for dim in range(dims))
    model = parse(f"""(float[N,2,{size}] x) => (float[N,3,{open_sizes}] y)
    <float[{ins},2,{ones}] w1, float[{weight}] w, float[{outs}] b, float[3,{outs},{ones}] w2> {{
      a = Conv(x, w1)
      c = {"ConvTranspose" if transposed else "Conv"}<{attributes}>(a, w{", b" if bias else ""})
      y = Conv(c, w2)
    }}""")
    check(model, ["w1", "w", "w2"], affine=[True] * 3)


def between(node: str, weights: str, hidden: str, *, rank: int = 2, left: str = "4,6", right: str = "5,3") -> ModelProto:
    """A product between two others."""
    size = {2: "N", 3: "N,7"}[rank]
    return parse(
        f"""(float[{size},4] x) => (float[{size},3] y)
    <float[{left}] wl, {weights}, float[{right}] wr> {{
      a = MatMul(x, wl)
      {node}
      y = MatMul({hidden}, wr)
    }}""",
        domains=["com.microsoft"],
    )


PRODUCTS: dict[str, tuple[ModelProto, bool]] = {
    "MatMul": (between("c = MatMul(a, w)", "float[6,5] w", "c"), False),
    "its bias": (between("m = MatMul(a, w)\n c = Add(m, b)", "float[6,5] w, float[5] b", "c"), True),
    "its bias first": (between("m = MatMul(a, w)\n c = Add(b, m)", "float[6,5] w, float[1,5] b", "c"), True),
    "a bias of one number": (between("m = MatMul(a, w)\n c = Add(m, b)", "float[6,5] w, float[1] b", "c"), False),
    "a bias of higher rank": (
        parse("""(float[N,4] x) => (float[1,N,3] y) <float[4,6] wl, float[6,5] w, float[1,1,5] b, float[5,3] wr> {
          a = MatMul(x, wl)
          m = MatMul(a, w)
          c = Add(m, b)
          y = MatMul(c, wr)
        }"""),
        False,
    ),
    "sequences": (between("m = MatMul(a, w)\n c = Add(m, b)", "float[6,5] w, float[5] b", "c", rank=3), True),
    "a batch axis of one": (between("c = MatMul(a, w)", "float[1,6,5] w", "c", rank=3), False),
    "Gemm": (between("c = Gemm(a, w, b)", "float[6,5] w, float[5] b", "c"), True),
    "Gemm, scaled": (
        between("c = Gemm<transB = 1, alpha = 0.3, beta = 2.0>(a, w, b)", "float[5,6] w, float[1,5] b", "c"),
        True,
    ),
    "Gemm without bias": (between("c = Gemm<beta = 0.5>(a, w)", "float[6,5] w", "c"), True),
    "Gemm, turned": (
        between("t = Transpose<perm = [1,0]>(a)\n c = Gemm<transA = 1>(t, w)", "float[6,5] w", "c"),
        True,
    ),
    "FusedMatMul": (
        between("c = com.microsoft.FusedMatMul<alpha = 0.5, transB = 1>(a, w)", "float[5,6] w", "c", rank=3),
        False,
    ),
    "Einsum": (between('c = Einsum<equation = "ntk,kj->ntj">(a, w)', "float[6,5] w", "c", rank=3), False),
    "Einsum, ellipsis": (between('c = Einsum<equation = "...k,jk->...j">(a, w)', "float[5,6] w", "c"), False),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    model, affine = PRODUCTS[name]
    _, middle, _ = check(model, ["wl", "w", "wr"], affine=[False, affine, False], groups=2)
    assert bool(middle.bias) == any(weight.name == "b" for weight in model.graph.initializer) & affine


def test_a_weight_on_the_left() -> None:
    """Where a constant multiplies columns; a bias along the rows is none."""
    model = parse("""(float[4,6] x) => (float[3,6] y) <float[5,4] wl, float[5,5] w, float[3,5] wr, float[6] b> {
      a = MatMul(wl, x)
      m = MatMul(w, a)
      c = Add(m, b)
      y = Gemm(wr, c)
    }""")
    check(model, ["wl", "w", "wr"], affine=[False] * 3, groups=2)


def test_a_bias_of_rows_is_no_bias() -> None:
    square = "(float[4,3] x) => (float[4,4] y) <float[6,3] wl, float[6,4] w, float[4] b, float[4,1] rows> {{ {} }}"
    first = "a = Gemm<transB = 1>(x, wl)"
    assert [r.bias for r in check(parse(square.format(f"{first} y = Gemm(a, w, b)")), ["wl", "w"])] == ["", "b"]
    check(parse(square.format(f"{first} y = Gemm(a, w, rows)")), ["wl"])
    turned = f"{first} t = Transpose<perm = [1,0]>(a) y = Gemm<transA = 1>(w, t, b)"
    check(parse(square.format(turned)), ["wl"])


def test_a_vector_times_a_matrix() -> None:
    model = parse("""(float[4] x) => (float y) <float[4,6] w1, float[6] b1, float[6] w2, float b2> {
      a = MatMul(x, w1)
      h = Add(a, b1)
      r = Relu(h)
      m = MatMul(r, w2)
      y = Add(m, b2)
    }""")
    check(model, ["w1", "w2"], affine=[True, False], groups=1)


def test_a_weight_that_broadcasts_over_heads() -> None:
    """Batched products are groups that are kept apart; where the activation lacks the batch, they are outputs."""
    model = parse("""(float[N,3,7,4] x) => (float[N,3,7,2] y) <float[3,4,6] w1, float[3,6,5] w2, float[1,5,2] w3> {
      a = MatMul(x, w1)
      r = Relu(a)
      b = MatMul(r, w2)
      y = MatMul(b, w3)
    }""")
    readers = check(model, ["w1", "w2", "w3"], affine=[False] * 3, groups=2)
    assert [reader.groups for reader in readers] == [3, 3, 1]
    model = parse("""(float[1,7,4] x) => (float[3,7,2] y) <float[4,6] w1, float[3,6,5] w2, float[5,2] w3> {
      a = MatMul(x, w1)
      b = MatMul(a, w2)
      y = MatMul(b, w3)
    }""")
    check(model, ["w1", "w2", "w3"], affine=[False] * 3, groups=2)


def test_features_along_two_axes() -> None:
    """Projections of heads as some exporters write them."""
    model = parse("""(float[N,T,8] x) => (float[N,T,8] y) <float[8,3,4] wv, float[3,4,8] wo> {
      v = Einsum<equation = "ntd,dhk->nthk">(x, wv)
      r = Relu(v)
      y = Einsum<equation = "nthk,hkd->ntd">(r, wo)
    }""")
    _, outer = check(model, ["wv", "wo"], affine=[False] * 2, groups=2)
    assert outer.feature_axes == [2, 3]
    assert outer.features == 12


LEFT_ALONE = {
    "tied": ("a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) y = MatMul(c, v)", ["v"]),
    "two activations": ("a = MatMul(x, v) t = Transpose<perm = [1,0]>(a) b = MatMul(a, t) y = MatMul(b, a)", ["v"]),
    "a weight that is computed": ("s = Mul(w, x0) a = MatMul(x, s) y = MatMul(a, v)", ["v"]),
    "a sum on one side": ('a = MatMul(x, w) y = Einsum<equation = "nk,ij->nj">(a, v)', ["w"]),
    "times nothing": ("a = Gemm<alpha = 0.0>(x, w) y = Gemm(a, v)", ["v"]),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_is_no_linear_reader(case: str) -> None:
    text, weights = LEFT_ALONE[case]
    model = parse(f"(float[N,8] x, float x0) => (float[N,8] y) <float[8,8] w, float[8,8] v> {{ {text} }}")
    assert [reader.weight for reader in readers_of(analyze(model))] == weights


def test_a_bias_that_something_else_reads_is_left_alone() -> None:
    model = Model.of(parse("""(float[N,8] x) => (float[N,8] y) <float[8,8] w, float[8] b> { y = Gemm(x, w, b) }"""))
    found = analyze(model)
    (reader,) = readers_of(found)
    assert reader.bias == "b"
    found.model.graph.node.extend(parse("(float[8] b) => (float[8] z) { z = Relu(b) }").graph.node)
    assert not readers_of(found)


def test_half_precision() -> None:
    model = parse("""(float16[N,4] x) => (float16[N,3] y) <float16[4,6] w1, float16[6] b, float16[6,3] w2> {
      a = Gemm(x, w1, b)
      y = MatMul(a, w2)
    }""")
    found: Any = readers_of(analyze(model))
    weight = Model.of(model).weights["w1"].array()
    np.testing.assert_array_equal(found[0].weight_of(found[0].matrix(weight.astype(np.float64)), weight), weight)
    assert found[0].weight_of(np.zeros((1, 4, 6)), weight).dtype == np.float16


def test_no_subnormal_number_is_installed() -> None:
    """Processors take many times as long for them; what float32 has as a normal number stays as it is."""
    found = analyze(parse("(float[N,4] x) => (float[N,3] y) <float[4,3] w, float[3] b> { y = Gemm(x, w, b) }"))
    (reader,), model = readers_of(found), found.model.copy()
    matrix = matrix_of(reader, model).astype(np.float64)
    matrix[0, 0, 0], matrix[0, 1, 1], matrix[0, 4, 2], matrix[0, 2, 2] = 1e-45, -1e-39, 1e-40, 1.2e-38
    install(model, reader, matrix)
    written = matrix_of(reader, model)
    expected = np.where(np.abs(matrix) < np.finfo(np.float32).tiny, 0, matrix).astype(np.float32)
    np.testing.assert_array_equal(written, expected)
    assert (written == 0).sum() == 3
