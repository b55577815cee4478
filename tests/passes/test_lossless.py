"""Before and Expected: weights move into others and into biases, and what they leave is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from nets import NETS, assert_same_graph, assert_same_values, parse
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.options.targets import Align
from onnxprune.passes import Couple, Lossless, Normalize, PruneChannels
from onnxprune.passes.analysis import Analysis
from onnxprune.shapes.probes import probe
from pruning.lossless.test_search import ROWS
from pruning.lossless.test_value_numbering import copy, edited, fill


def analyzed(model: Model | ModelProto) -> Analysis:
    return Couple().run(Normalize().run(Model.of(model)))


def check(before: ModelProto, expected: ModelProto) -> Model:
    """The pass and a cut give the expected graph; so far rewritten or cut, the model computes what it did."""
    original = Model.of(before)
    found = Lossless().run(analyzed(original))
    assert_same_values(found.model, original)
    rewritten = replace(Normalize().run(original), model=found.model, shapes=probe(found.model))
    pruned = PruneChannels().run(Couple().run(rewritten), found.plan)
    assert_same_graph(pruned, expected)
    assert_same_values(pruned, original)
    return pruned


def weights(model: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_columns_of_duplicates_are_summed() -> None:
    before = edited(parse(NETS["chain"]), **ROWS)
    expected = parse(NETS["chain"].replace("[8", "[6").replace("6,8", "6,6"))
    pruned = check(before, expected)
    columns = weights(before)["w2"]
    np.testing.assert_allclose(pruned.weights["w2"].array()[:, 1], columns[:, [1, 4, 6]].sum(1), rtol=1e-6)
    np.testing.assert_array_equal(pruned.weights["w2"].array()[:, 2], columns[:, 2])


BIAS = """(float[N,3,4,4] x) => (float[N,4,4,4] y) <float[{c},3,1,1] w, float[{c}] b, float[4,{c},1,1] v{declared}> {{
  a = Conv(x, w, b)
  s = Sigmoid(a)
  y = Conv(s, v{given})
}}"""


@pytest.mark.parametrize("given", ["", ", c"])
def test_a_constant_goes_into_a_bias(given: str) -> None:
    declared = ", float[4] c" if given else ""
    before = edited(parse(BIAS.format(c=8, declared=declared, given=given)), w=fill([2, 5]), b=fill([2, 5], 0.75))
    names = {"declared": declared, "given": given} if given else {"declared": ", float[4] v__bias", "given": ", v__bias"}
    pruned = check(before, parse(BIAS.format(c=6, **names)))
    constants = weights(before)
    added = constants["v"][:, [2, 5]].sum((1, 2, 3)) / (1 + np.exp(-0.75))
    bias = pruned.weights["c" if given else "v__bias"].array()
    np.testing.assert_allclose(bias, added + (constants["c"] if given else 0), rtol=1e-5)


ZERO_COLUMN = {"w": fill((slice(None), [1]))}
GEMM = """(float[N,3] x) => (float[N,4] y) <float[3,{k}] w, float[{k}] b, float[{k},4] v, float{shape} c> {{
  a = Gemm(x, w, b)
  s = Sigmoid(a)
  y = Gemm<alpha = 0.5, beta = {beta}>(s, v, c)
}}"""


@pytest.mark.parametrize(("shape", "becomes"), [("[4]", "[4]"), ("[1,4]", "[1,4]"), ("[1]", "[4]"), ("", "[4]")])
def test_factors_and_shapes_of_the_bias_of_a_gemm(shape: str, becomes: str) -> None:
    before = edited(parse(GEMM.format(k=6, shape=shape, beta=2.0)), **ZERO_COLUMN)
    check(before, parse(GEMM.format(k=5, shape=becomes, beta=2.0)))


def test_a_gemm_that_ignores_its_bias_gets_a_sum() -> None:
    before = edited(parse(GEMM.format(k=6, shape="[4]", beta=0.0)), **ZERO_COLUMN)
    expected = GEMM.format(k=5, shape="[4]", beta=0.0).replace("c>", "c, float[4] v__bias>").replace("y = G", "y__sum = G")
    check(before, parse(expected.replace("c)", "c)\n  y = Add(y__sum, v__bias)")))


def test_a_bias_of_rows_or_one_with_other_readers_gets_a_sum() -> None:
    text = """(float[2,3] x) => (float[2,4] y) <float[3,{k}] w, float[{k}] b, float[{k},4] v, float[2,{n}] c{declared}> {{
      a = Gemm(x, w, b)
      s = Sigmoid(a)
      {rest}
    }}"""
    summed = "p__sum = Gemm(s, v, c)\n  p = Add(p__sum, v__bias)\n  "
    for n, rest in ((1, "y = Relu(p)"), (4, "y = Add(p, c)")):
        before = text.format(k=6, n=n, declared="", rest=f"p = Gemm(s, v, c)\n  {rest}")
        expected = text.format(k=5, n=n, declared=", float[4] v__bias", rest=summed + rest)
        check(edited(parse(before), **ZERO_COLUMN), parse(expected))


MATMUL = """(float[N,3] x) => (float[N,4] y) <float[3,{k}] w, float[{k}] b, float[{k},4] v{declared}> {{
  a = MatMul(x, w)
  d = Add(a, b)
  s = Sigmoid(d)
  {rest}
}}"""


def test_the_sum_behind_a_product_takes_the_constant() -> None:
    rest = {"declared": ", float[4] c", "rest": "p = MatMul(s, v)\n  y = Add(c, p)"}
    check(edited(parse(MATMUL.format(k=6, **rest)), **ZERO_COLUMN), parse(MATMUL.format(k=5, **rest)))


@pytest.mark.parametrize("rest", ["p = MatMul(s, v)\n  y = Relu(p)", "y = MatMul(s, v)"])
def test_a_product_without_a_sum_gets_one(rest: str) -> None:
    before = MATMUL.format(k=6, declared="", rest=rest)
    product = rest.splitlines()[0]
    name = product[0]
    summed = rest.replace(product, f"{name}__sum = MatMul(s, v)\n  {name} = Add({name}__sum, v__bias)")
    check(edited(parse(before), **ZERO_COLUMN), parse(MATMUL.format(k=5, declared=", float[4] v__bias", rest=summed)))


def test_a_sum_that_others_read_stays_as_it_is() -> None:
    """The constant is added behind the product, where both of its readers see it."""
    rest = "p = MatMul(s, v)\n  q = Add(p, c)\n  y = Mul(p, q)"
    before = edited(parse(MATMUL.format(k=6, declared=", float[4] c", rest=rest)), **ZERO_COLUMN)
    summed = rest.replace("p = MatMul(s, v)", "p__sum = MatMul(s, v)\n  p = Add(p__sum, v__bias)")
    check(before, parse(MATMUL.format(k=5, declared=", float[4] c, float[4] v__bias", rest=summed)))


def test_rows_of_data_get_a_column() -> None:
    text = """(float[3,N] x) => (float[4,N] y) <float[{k},3] w, float[{k},1] b, float[4,{k}] v{declared}> {{
      a = MatMul(w, x)
      d = Add(a, b)
      s = Sigmoid(d)
      {rest}
    }}"""
    before = edited(parse(text.format(k=6, declared="", rest="y = MatMul(v, s)")), w=fill([1]))
    summed = "y__sum = MatMul(v, s)\n  y = Add(y__sum, v__bias)"
    check(before, parse(text.format(k=5, declared=", float[4,1] v__bias", rest=summed)))


def test_a_bias_that_is_computed_stays() -> None:
    text = """(float[N,3,4,4] x, float[4] z) => (float[N,4,4,4] y) <float[{c},3,1,1] w, float[4,{c},1,1] v{declared}> {{
      a = Conv(x, w)
      s = Sigmoid(a)
      {rest}
    }}"""
    before = edited(parse(text.format(c=8, declared="", rest="y = Conv(s, v, z)")), w=fill([2]))
    summed = "y__sum = Conv(s, v, z)\n  y = Add(y__sum, v__bias)"
    check(before, parse(text.format(c=7, declared=", float[4,1,1] v__bias", rest=summed)))


def test_zeros_stay_where_alignment_wants_a_width() -> None:
    before = edited(parse(NETS["chain"]), w2=fill((slice(None), [1, 2, 5])))
    found = Lossless(Align(2)).run(analyzed(before))
    assert found.removal.gone["w1:0"].tolist() == [1, 2, 5]
    assert found.plan.keep["w1:0"].tolist() == [0, 1, 3, 4, 6, 7]
    assert not found.model.weights["w1"].array()[[1, 2, 5]].any()
    assert not Lossless(Align(8)).run(analyzed(before)).plan.keep


def test_a_model_that_needs_everything_is_returned() -> None:
    analysis = analyzed(parse(NETS["chain"]))
    found = Lossless().run(analysis)
    assert found.model is analysis.model
    assert not found.plan.keep


def test_the_weights_it_was_given_stay_as_they_were() -> None:
    before = edited(parse(NETS["chain"]), **ROWS)
    analysis = analyzed(before)
    model = analysis.model
    data = {name: weight.array().tobytes() for name, weight in model.weights.items()}
    rewritten = Lossless().run(analysis).model
    assert all(weight.array().shape == weight.shape for weight in rewritten.weights.values())
    assert {name: weight.array().tobytes() for name, weight in model.weights.items()} == data


def test_weights_that_are_not_finite() -> None:
    model = edited(parse(NETS["chain"]), w2=fill((0, 0), np.nan))
    with pytest.raises(ModelError, match="'w2' of <model> has NaN or infinite weights: export the model again"):
        Lossless().run(analyzed(model))


def test_what_alignment_leaves_of_duplicates() -> None:
    copies = dict.fromkeys(ROWS, copy([0, 1, 2, 4, 5], [3, 3, 3, 3, 3]))
    found = Lossless(Align(4)).run(analyzed(edited(parse(NETS["chain"]), **copies)))
    assert found.removal.counts["duplicated"] == 5
    assert len(found.plan.keep["w1:0"]) == 4
