"""Which layers may be sparse."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.driver.sparsify import sparsify
from onnxprune.errors import ModelError, OptionError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.passes import Couple, Normalize
from onnxprune.sparse.layers import Layer, find_layers
from onnxprune.sparse.patterns import NofM, Pattern
from sparse_nets import layers


def test_matrices_are_layers_and_the_ends_are_marked() -> None:
    assert [(layer.name, layer.end) for layer in layers()[1]] == [
        ("first", True), ("inner", False), ("depth", False), ("skip", False), ("last", True),
    ]  # fmt: skip


def test_protected_layers_are_left_out() -> None:
    assert [layer.name for layer in layers("*r*", "skip")[1]] == ["depth", "last"]
    with pytest.raises(OptionError, match="nothing can be sparse: all 5 layers are protected"):
        layers("*")


def test_a_model_without_layers_says_so() -> None:
    found = Couple().run(Normalize().run(Model.of(parse("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"))))
    with pytest.raises(OptionError, match="there is no layer with a constant weight"):
        find_layers(found.model, found.coupling)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("data", [True, False])
def test_weights_that_are_not_finite_are_named(value: float, *, data: bool) -> None:
    model, _ = layers()
    array = model.weights["inner"].array().copy()
    array.flat[3] = value
    model.weights["inner"] = Weight("inner", None, array)
    samples = {"x": np.random.default_rng(0).standard_normal((8, 4, 8, 8)).astype(np.float32)} if data else None
    with pytest.raises(ModelError, match=r"initializer 'inner' of .* has NaN or infinite weights: .* --protect 'inner'"):
        sparsify(model, SparseRecipe("sparsity=0.5"), samples=samples)
    assert sparsify(model, SparseRecipe("sparsity=0.5", protect=("inner",)), agreement=False).report.zeros


def test_weights_are_seen_by_channel_tap_and_output() -> None:
    model, (first, _, depth, _, last) = layers()
    w = model.weights["first"].array()
    assert np.array_equal(first.array(model), w.reshape(8, 4, 9).transpose(1, 2, 0)[None])
    assert depth.array(model).shape == (8, 1, 9, 1)
    assert last.array(model).shape == (1, 8, 1, 10)


def test_patterns_are_looked_at_as_hardware_does() -> None:
    """Four input channels, at each tap and output by itself."""
    model, (_, inner, *_) = layers()
    w = np.ones((8, 8, 3, 3), np.float32)
    w[:, ::2] = 0
    model.weights["inner"] = Weight("inner", None, w)
    assert inner.obeys(model, NofM(2, 4))
    assert inner.zeros(model) == 288
    w[5, 2, 1, 1] = 1
    assert not inner.obeys(model, NofM(2, 4))


SHARED = """(float[N,32] x) => (float[N,8] y) <float[32,48] i, float[48,48] w, float[48,8] o> {
  a = MatMul(x, i)
  ra = Relu(a)
  b = MatMul(ra, w)
  rb = Relu(b)
  %s
  y = MatMul(c, o)
}"""
READERS = {
    "name": "c = MatMul(rb, w)",
    "identity": "w2 = Identity(w)\n c = MatMul(rb, w2)",
    "transpose": "w2 = Transpose(w)\n c = MatMul(rb, w2)",
    "other side": "c = Gemm<transB = 1>(rb, w)",
    "table": "ids = ArgMax<axis = 1, keepdims = 0>(rb)\n e = Gather(w, ids)\n c = Add(rb, e)",
}
ALIKE = ("name", "identity")


def shared(how: str, pattern: Pattern | None = None) -> tuple[list[Layer], dict[str, str]]:
    found = Couple().run(Normalize().run(Model.of(parse(SHARED % READERS[how]))))
    return find_layers(found.model, found.coupling, pattern=pattern)


@pytest.mark.parametrize("how", READERS)
def test_a_matrix_that_layers_share_is_one_layer_that_samples_do_not_show(how: str) -> None:
    layers, left = shared(how)
    if how == "table":
        assert left == {"w": "is read by Gather, which is no layer"}
    else:
        assert not left
        assert [(layer.name, layer.end, layer.seen) for layer in layers] == [
            ("i", True, True), ("w", False, False), ("o", True, True),
        ]  # fmt: skip


@pytest.mark.parametrize("how", [how for how in READERS if how != "table"])
def test_a_pattern_fits_layers_that_see_a_matrix_alike(how: str) -> None:
    layers, left = shared(how, NofM(2, 4))
    assert ("w" in {layer.name for layer in layers}) == (how in ALIKE)
    assert left == ({} if how in ALIKE else {"w": "is shared by layers that see it in different forms, of which 2:4 fits one"})


@pytest.mark.parametrize("how", READERS)
@pytest.mark.parametrize("data", [False, True])
def test_a_shared_matrix_becomes_sparse_for_all_who_read_it(how: str, *, data: bool) -> None:
    samples = {"x": np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)} if data else None
    model = parse(SHARED % READERS[how])
    if how == "table":
        with pytest.raises(OptionError, match=r"--ends to make them sparse, too; 'w' is read by Gather, which is no layer"):
            sparsify(model, SparseRecipe(target="sparsity=0.8"), samples=samples)
        return
    result = sparsify(model, SparseRecipe(target="sparsity=0.8"), samples=samples)
    report = result.report
    assert report.sparsity == pytest.approx(0.8, abs=0.01)
    assert result.model.graph.ByteSize() <= model.graph.ByteSize()
    assert any("samples do not show what reads w" in note for note in report.notes) == data


def test_layers_in_bodies_are_sparse_and_their_ends_are_known() -> None:
    branch = """{
      b{0} = MatMul(a, w{0})
      r{0} = Relu(b{0})
      d{0} = MatMul(r{0}, v{0})
    }"""
    text = f"""(float[N,8] x, bool c) => (float[N,4] y)
    <float[8,16] i, float[16,16] w1, float[16,16] v1, float[16,16] w2, float[16,16] v2, float[16,4] o> {{
      a = MatMul(x, i)
      e = If (c) <
        then_branch = t () => (float[N,16] d1) {branch.replace("{0}", "1")},
        else_branch = f () => (float[N,16] d2) {branch.replace("{0}", "2")}>
      y = MatMul(e, o)
    }}"""
    model = parse(text)
    found = Couple().run(Normalize().run(Model.of(model)))
    layers, left = find_layers(found.model, found.coupling)
    assert not left
    assert {layer.name: (layer.end, layer.seen) for layer in layers} == {
        "i": (True, True), "o": (True, True), **dict.fromkeys(("w1", "v1", "w2", "v2"), (False, False)),
    }  # fmt: skip
    report = sparsify(model, SparseRecipe(target="sparsity=0.75")).report
    assert report.sparsity == pytest.approx(0.75, abs=0.01)
    assert report.verification
    assert report.verification.ok


def test_a_body_that_is_the_whole_network_has_its_ends_inside() -> None:
    text = """(float[N,8] x, bool c) => (float[N,4] y) <float[8,16] i, float[16,16] w, float[16,4] o, float[8,4] s> {
      y = If (c) <
        then_branch = t () => (float[N,4] y1) { a = MatMul(x, i) b = MatMul(a, w) y1 = MatMul(b, o) },
        else_branch = f () => (float[N,4] y2) { y2 = MatMul(x, s) }>
    }"""
    found = Couple().run(Normalize().run(Model.of(parse(text))))
    ends = {layer.name: layer.end for layer in find_layers(found.model, found.coupling)[0]}
    assert ends == {"i": True, "w": False, "o": True, "s": True}


def test_matrices_of_other_operators_are_named() -> None:
    text = """(float[T,N,8] x) => (float[T,1,N,6] y) <float[8,8] w, float[1,24,8] k, float[1,24,6] r> {
      a = MatMul(x, w)
      y = LSTM<hidden_size = 6>(a, k, r)
    }"""
    found = Couple().run(Normalize().run(Model.of(parse(text))))
    left = find_layers(found.model, found.coupling)[1]
    assert left == dict.fromkeys(("k", "r"), "is read by LSTM, which is no layer")
