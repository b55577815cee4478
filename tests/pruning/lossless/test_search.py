"""What can go without loss is found, and nothing else: by kind, through every sort of graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from nets import NETS, parse
from onnxprune.ir.model import Model
from onnxprune.passes import Couple, Lossless, Normalize, PruneChannels
from onnxprune.pruning.lossless.search import Removal, search
from onnxprune.shapes import probes
from onnxprune.verify import law
from pruning.lossless.test_value_numbering import copy, edited, fill

# --- Shared helpers --------------------------------------------------------------------------------------------------


def without_loss(model: ModelProto | Model) -> tuple[Model, Removal]:
    """The model without what it does not need, and what that was."""
    normal = Normalize().run(Model.of(model))
    found = Lossless().run(Couple().run(normal))
    rewritten = Couple().run(replace(normal, model=found.model, shapes=probes.probe(found.model)))
    return PruneChannels().run(rewritten, found.plan), found.removal


def found(model: ModelProto) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Which positions go, and how many of each kind; the result is equal to the original."""
    pruned, removal = without_loss(model)
    outcome = law.compare(pruned, Model.of(model), rounded=True)
    assert outcome.ok, outcome.text
    assert outcome.runs == 2
    counts = {kind: count for kind, count in removal.counts.items() if count}
    return {name: gone.tolist() for name, gone in removal.gone.items()}, counts


def both(*rows: int) -> tuple[slice, list[int]]:
    """An index of columns."""
    return (slice(None), list(rows))


# --- Each kind -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
def test_nothing_goes_from_a_net_that_needs_everything(net: str) -> None:
    assert found(parse(NETS[net])) == ({}, {})


def test_a_channel_that_nobody_reads_is_dead() -> None:
    assert found(edited(parse(NETS["chain"]), w2=fill(both(1, 4)))) == ({"w1:0": [1, 4]}, {"dead": 2})


def test_what_only_the_dead_read_is_dead() -> None:
    gone, counts = found(edited(parse(NETS["chain"]), w3=fill(both(1, 4)), w2=fill(np.ix_([0, 2, 3, 5], [2, 7]))))
    assert gone == {"w1:0": [2, 7], "w2:0": [1, 4]}
    assert counts == {"dead": 4}


def test_one_position_of_a_dead_group_stays() -> None:
    assert found(edited(parse(NETS["chain"]), w2=fill(slice(None)))) == (
        {"w1:0": [1, 2, 3, 4, 5, 6, 7], "w2:0": [1, 2, 3, 4, 5]},
        {"dead": 7, "constant": 5},
    )


def test_a_zero_through_relu_is_constant() -> None:
    dead = edited(parse(NETS["chain"]), scale=fill([2, 5]), bias=fill([2, 5], -1))
    assert found(dead) == ({"w1:0": [2, 5]}, {"constant": 2})


CONSTANT = """(float[N,3,8,8] x) => (float[N,4,H,W] y)
<float[8,3,1,1] w1, float[8] b1, float[4,8,{k},{k}] w2{declared}> {{
  a = Conv(x, w1, b1)
  s = Sigmoid(a)
  y = Conv<pads = [{p},{p},{p},{p}]>(s, w2{given})
}}"""


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "pad", "goes"), [(1, 0, True), (3, 0, True), (3, 1, False), (1, 1, False)])
def test_a_number_goes_to_the_bias_unless_the_border_is_padded(kernel: int, pad: int, *, goes: bool, bias: bool) -> None:
    more = {"declared": ", float[4] b2", "given": ", b2"} if bias else {"declared": "", "given": ""}
    model = edited(parse(CONSTANT.format(k=kernel, p=pad, **more)), w1=fill([3]))
    assert found(model) == (({"w1:0": [3]}, {"constant": 1}) if goes else ({}, {}))


def test_equal_numbers_behind_a_padded_border_are_duplicates() -> None:
    model = edited(parse(CONSTANT.format(k=3, p=1, declared="", given="")), w1=fill([3, 6]), b1=fill([3, 6], 0.25))
    assert found(model) == ({"w1:0": [6]}, {"duplicated": 1})


def test_an_average_over_a_padded_border_is_no_number() -> None:
    text = """(float[N,3,8,8] x) => (float[N,4,8,8] y) <float[8,3,1,1] w1, float[8] b1, float[4,8,1,1] w2> {{
      a = Conv(x, w1, b1)
      p = AveragePool<kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = {count}>(a)
      y = Conv(p, w2)
    }}"""
    assert found(edited(parse(text.format(count=1)), w1=fill([3]))) == ({}, {})
    assert found(edited(parse(text.format(count=0)), w1=fill([3]))) == ({"w1:0": [3]}, {"constant": 1})


def test_a_filter_that_never_fires_is_constant() -> None:
    """Nothing but negative weights, of what is never negative."""
    text = """(float[N,3,8,8] x) => (float[N,4,8,8] y)
    <float[8,3,1,1] w1, float[6,8,3,3] w2, float[6] b2, float[4,6,1,1] w3> {
      a = Conv(x, w1)
      r = Relu(a)
      c = Conv<pads = [1,1,1,1]>(r, w2, b2)
      f = Clip(c, low, high)
      y = Conv(f, w3)
    }""".replace("w3>", "w3, float low = {0.0}, float high = {6.0}>")
    never = edited(parse(text), w2=lambda w: np.negative(np.abs(w[[2, 5]]), out=w[[2, 5]]), b2=fill([2, 5], -0.5))
    never = edited(never, w2=lambda w: w.__setitem__([2, 5], -np.abs(w[[2, 5]])))
    assert found(never) == ({"w2:0": [2, 5]}, {"constant": 2})
    assert found(edited(never, b2=fill([2], 0.5))) == ({"w2:0": [5]}, {"constant": 1})


ROWS = dict.fromkeys(("w1", "b1", "scale", "bias", "mean", "var"), copy([4, 6], [1, 1]))


def test_a_copy_through_normalisation_is_a_duplicate() -> None:
    assert found(edited(parse(NETS["chain"]), **ROWS)) == ({"w1:0": [4, 6]}, {"duplicated": 2})


@pytest.mark.parametrize("name", ROWS)
def test_a_copy_that_differs_anywhere_is_none(name: str) -> None:
    model = edited(parse(NETS["chain"]), **ROWS)
    assert found(edited(model, **{name: fill([4], 0.75)}))[0] == {"w1:0": [6]}


def test_copies_of_copies_and_weights_that_cancel() -> None:
    changes = {**ROWS, "w2": lambda w: (w.__setitem__(3, w[2]), w[0].__setitem__(4, -w[0, 1] - w[0, 6]))}
    model = edited(parse(NETS["chain"]), **changes)
    assert found(model) == ({"w1:0": [4, 6], "w2:0": [3]}, {"duplicated": 3})


def test_copies_whose_weights_cancel_are_dead() -> None:
    model = edited(parse(NETS["chain"]), **ROWS, w2=lambda w: (w.__setitem__(both(4), -w[:, [1]]), fill(both(6))(w)))
    assert found(model) == ({"w1:0": [1, 4, 6]}, {"dead": 3})


# --- Through every sort of graph --------------------------------------------------------------------------------------


def test_residual_sums() -> None:
    """Equal before the sum is not enough; equal on both sides is."""
    copies = copy(4, 1)
    assert found(edited(parse(NETS["residual"]), w0=copies))[0] == {}
    assert found(edited(parse(NETS["residual"]), w0=copies, w2=copies, b2=copies)) == ({"w0:0": [4]}, {"duplicated": 1})
    dead = edited(parse(NETS["residual"]), w1=fill(both(2)), w3=fill(both(2)))
    assert found(dead) == ({"w0:0": [2]}, {"dead": 1})
    assert found(edited(parse(NETS["residual"]), w3=fill(both(2))))[0] == {}  # the block still reads it


def test_depthwise_convolutions() -> None:
    copies = copy([5], [2])
    assert found(edited(parse(NETS["depthwise"]), w1=copies, dw=copies, db=copies)) == ({"w1:0": [5]}, {"duplicated": 1})
    assert found(edited(parse(NETS["depthwise"]), dw=fill([1]))) == ({"w1:0": [1]}, {"constant": 1})


def test_grouped_convolutions_and_shuffles() -> None:
    """A channel of a grouped convolution goes from every group or from none."""
    copies = copy([1, 5, 9], [3, 7, 11])
    assert found(edited(parse(NETS["shuffle"]), w1=copies)) == ({"w1:0.1": [3]}, {"duplicated": 1})
    assert found(edited(parse(NETS["shuffle"]), w1=copy([1, 5], [3, 7])))[0] == {}
    assert found(edited(parse(NETS["shuffle"]), g1=fill(both(2)))) == ({"w1:0.1": [2]}, {"dead": 1})


def test_concatenation() -> None:
    """Equal channels of two branches, and of one."""
    model = parse(NETS["concat_split"])
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert found(edited(model, wa=fill(1, weights["wb"][2]))) == ({"wa:0": [1]}, {"duplicated": 1})
    assert found(edited(parse(NETS["concat_split"]), wb=copy(3, 1))) == ({"wb:0.0": [3]}, {"duplicated": 1})
    assert found(edited(parse(NETS["concat_split"]), wb=copy(6, 1)))[0] == {}  # other readers
    assert found(edited(parse(NETS["concat_split"]), wr=fill(both(0)))) == ({"wb:0.1": [0]}, {"dead": 1})


def test_flattened_axes() -> None:
    copies = copy([4], [1])
    assert found(edited(parse(NETS["flatten"]), w1=copies)) == ({"w1:0": [4]}, {"duplicated": 1})
    columns = fill(np.arange(16, 32))
    assert found(edited(parse(NETS["flatten"]), w2=columns)) == ({"w1:0": [1]}, {"dead": 1})
    assert found(edited(parse(NETS["flatten"]), w2=fill(np.arange(16, 31))))[0] == {}


def test_repeated_sizes_are_duplicates_one_axis_after_the_other() -> None:
    text = """(float[N,3] x) => (float[N,2] y)
    <float[3,6] w, int64[2] ends = {2,3}, int64[4] sizes = {1,6,4,3}, float[72,2] o> {
      a = MatMul(x, w)
      u = Unsqueeze(a, ends)
      e = Expand(u, sizes)
      f = Flatten(e)
      y = MatMul(f, o)
    }"""
    assert found(parse(text)) == ({"o:0.1": [1, 2, 3], "o:0.2": [1, 2]}, {"duplicated": 5})


def test_squeeze_and_excite() -> None:
    copies = copy(4, 1)
    assert found(edited(parse(NETS["gate"]), w1=copies, up=copies, ub=copies)) == ({"w1:0": [4]}, {"duplicated": 1})
    assert found(edited(parse(NETS["gate"]), w1=copies))[0] == {}
    shut = edited(parse(NETS["gate"]), down=fill(0), db=fill(0, -1))
    assert found(shut) == ({"down:0": [0]}, {"constant": 1})


def test_pixel_shuffle() -> None:
    copies = copy([4, 5, 6, 7], [0, 1, 2, 3])
    assert found(edited(parse(NETS["depth_to_space"]), w1=copies, b1=copies)) == ({"w1:0.0": [1]}, {"duplicated": 1})


def test_attention_loses_dead_widths_and_constants_but_no_duplicates() -> None:
    """Where activations meet in a product no constant takes over; a width of zeros adds nothing to it."""
    text = """(float[N,4,8] x) => (float[N,4,8] y)
    <float[8,6] q, float[8,6] k, float[8,5] v, float[5,8] o> {
      a = MatMul(x, q)
      b = MatMul(x, k)
      t = Transpose<perm = [0,2,1]>(b)
      s = MatMul(a, t)
      p = Softmax<axis = -1>(s)
      c = MatMul(x, v)
      m = MatMul(p, c)
      y = MatMul(m, o)
    }"""
    assert found(edited(parse(text), q=fill(both(2)))) == ({"q:1": [2]}, {"dead": 1})
    both_sides = {name: (lambda w: w.__setitem__(both(4), w[:, [1]])) for name in ("q", "k")}
    assert found(edited(parse(text), **both_sides))[0] == {}
    assert found(edited(parse(text), v=lambda w: w.__setitem__(both(4), w[:, [1]]))) == ({"v:1": [4]}, {"duplicated": 1})


LSTM = """(float[T,N,3] x) => (float[T,1,N,2] y)
<float[1,16,3] w, float[1,16,4] r, float[1,32] b, float[4,2] o> {
  h = LSTM<hidden_size = 4>(x, w, r, b)
  y = MatMul(h, o)
}"""


def test_a_unit_of_a_recurrent_layer_is_read_by_the_others() -> None:
    model = edited(parse(LSTM), o=fill([2]))
    assert found(model)[0] == {}  # the state still feeds back
    units = [2, 6, 10, 14]
    still = edited(parse(LSTM), w=fill((0, units)), r=fill((0, units)), b=fill((0, [*units, *(u + 16 for u in units)])))
    assert found(still)[0] == {"w:1.1": [2]}


def test_layer_normalisation_keeps_its_width() -> None:
    text = """(float[N,8] x) => (float[N,4] y) <float[8,6] w1, float[6] s, float[6] b, float[6,4] w2> {
      a = MatMul(x, w1)
      n = LayerNormalization(a, s, b)
      y = MatMul(n, w2)
    }"""
    assert found(edited(parse(text), w2=fill([1]))) == ({}, {})


def test_protected_and_public_channels_stay() -> None:
    model = edited(parse(NETS["chain"]), w2=fill(both(1)))
    protected = Couple(("w1",)).run(Normalize().run(Model.of(model)))
    assert search(protected.model, protected.coupling).gone == {}
    public = parse("""(float[N,3,4,4] x) => (float[N,6,4,4] a, float[N,2,4,4] y) <float[6,3,1,1] w1, float[2,6,1,1] w2> {
      a = Conv(x, w1)
      y = Conv(a, w2)
    }""")
    assert found(edited(public, w2=fill(both(1)))) == ({}, {})


def test_tied_weights_are_rewritten_once_for_all_readers() -> None:
    text = """(float[N,3,6,6] x, float[N,3,6,6] z) => (float[N,2,6,6] y)
    <float[8,3,1,1] w, float[8] b, float[8] c, float[5,8,1,1] v, float[2,5,1,1] o> {
      a = Conv(x, w, b)
      p = Relu(a)
      i = Conv(p, v)
      d = Conv(z, w, c)
      q = Sigmoid(d)
      j = Conv(q, v)
      s = Mul(i, j)
      y = Conv(s, o)
    }"""
    copies = copy(5, 2)
    assert found(edited(parse(text), w=copies, b=copies, c=copies)) == ({"w:0": [5]}, {"duplicated": 1})
    assert found(edited(parse(text), w=copies, b=copies))[0] == {}  # equal for one reader alone
    assert found(edited(parse(text), w=fill(3))) == ({"w:0": [3]}, {"constant": 1})
    assert found(edited(parse(text), v=fill(both(1)))) == ({"w:0": [1]}, {"dead": 1})


def test_a_matrix_that_others_read_otherwise_is_not_rewritten() -> None:
    """Where one reader could merge two columns, the other weighs them with other data."""
    text = """(float[N,3] x) => (float[N,2] y) <float[3,8] w, float[3,8] u, float[8,2] v> {
      a = MatMul(x, w)
      b = MatMul(x, u)
      p = MatMul(a, v)
      q = Einsum<equation = "nk,kc->nc">(b, v)
      y = Add(p, q)
    }"""
    model = edited(parse(text), w=lambda w: w.__setitem__(both(5), w[:, [2]]), u=fill(both(5)))
    assert found(model) == ({}, {})
    assert found(edited(model, v=fill(5))) == ({"w:1": [5]}, {"dead": 1})


@pytest.mark.parametrize("kind", ["float16", "float", "double"])
def test_types(kind: str) -> None:
    text = """(float[N,5] x) => (float[N,4] y) <float[5,8] w1, float[8] b1, float[4,8] w2, float[4] b2> {
      a = MatMul(x, w1)
      b = Add(a, b1)
      s = Sigmoid(b)
      y = Gemm<transB = 1>(s, w2, b2)
    }""".replace("float", kind)
    model = edited(parse(text), w1=fill(both(2)), b1=copy(6, 1), w2=fill(both(3)))
    model = edited(model, w1=lambda w: w.__setitem__(both(6), w[:, [1]]))
    assert found(model) == ({"w1:1": [2, 3, 6]}, {"dead": 1, "constant": 1, "duplicated": 1})


def test_weights_in_integers_lose_what_is_dead() -> None:
    text = """(float[N,3,4,4] x) => (float[N,2,4,4] y)
    <float[6,3,1,1] w1, int8[2,6,1,1] w2, float scale = {0.5}, int8 point = {3}> {
      a = Conv(x, w1)
      d = DequantizeLinear(w2, scale, point)
      y = Conv(a, d)
    }"""
    assert found(edited(parse(text), w2=lambda w: (w.__setitem__(slice(None), 7), w.__setitem__(both(4), 3)))) == (
        {"w1:0": [4]},
        {"dead": 1},
    )
    assert found(edited(parse(text), w2=lambda w: (w.__setitem__(slice(None), 7), w.__setitem__(both(4), 0))))[0] == {}


def test_channels_that_no_list_names_are_dead_and_copies_are_no_duplicates_of_others() -> None:
    text = """(float[N,3,4,4] x) => (float[N,2,4,4] y)
    <float[8,3,1,1] w, int64[6] list = { 6, 0, 2, 0, 4, 5 }, float[2,6,1,1] v> {
      a = Conv(x, w)
      p = Gather<axis = 1>(a, list)
      y = Conv(p, v)
    }"""
    found, removal = without_loss(parse(text))
    assert removal.counts["dead"] == 2  # of 1, 3 and 7, one of which stays for its group
    assert removal.counts["duplicated"] == 0
    assert {weight.shape for weight in found.weights.values()} == {(6, 3, 1, 1), (6,), (2, 6, 1, 1)}
