"""Int8 as a lever: which layers stay in float32."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from onnx import numpy_helper

from nets import parse
from onnxprune.data.samples import open_samples
from onnxprune.driver.judgement import Jury
from onnxprune.driver.levers.base import Made, Mixture
from onnxprune.driver.levers.precision import Precision
from onnxprune.driver.quantize import quantize
from onnxprune.ir.files import written_bytes
from onnxprune.ir.model import Model
from onnxprune.options.gates import Gates
from onnxprune.options.optimize import OptimizeRecipe
from onnxprune.options.quantize import QuantRecipe
from optimizable import X, clock, closed, ground, net

__all__ = ["closed"]

pytestmark = pytest.mark.usefixtures("closed")


def floats(model: Model) -> set[str]:
    """The weights of layers that are in floating point."""
    return {name for name, weight in model.weights.items() if weight.is_float and len(weight.shape) > 1}


def carried(lever: Precision, choice: str) -> Made:
    return lever.carry_out(Made(Mixture(), lever.ground.original), choice)


def test_the_boldest_choice_is_int8_as_quantize_writes_it() -> None:
    given = ground()
    samples = open_samples({"x": X[:64]}, given.original.inputs)
    learnt = Jury.of(Gates(), given.original, samples).learnt  # `quantize` holds samples out, as `optimize` has done before
    assert learnt
    lever = Precision(dataclasses.replace(given, samples=learnt))
    assert lever.choices()[0] == "int8"
    alone = quantize(given.original, QuantRecipe(), samples=samples, agreement=False)
    assert carried(lever, "int8").model.to_proto().graph == alone.model.graph


def test_milder_choices_keep_more_layers_and_those_of_the_others() -> None:
    lever = Precision(ground())
    kept = [floats(carried(lever, choice).model) for choice in lever.choices()]
    assert [len(names) for names in kept] == [0, 1, 2]
    assert all(before < after for before, after in itertools.pairwise(kept))


def test_slower_layers_stay_first_and_the_report_says_why() -> None:
    lever = Precision(ground(timed=clock(slow=["third"])))
    choice = lever.choices()[1]
    made = carried(lever, choice)
    assert floats(made.model) == {"w3"}
    why = {node["node"]: node["why"] for node in made.steps[0].kept}
    assert why["third"] == "slower in int8, with its neighbours"
    assert floats(carried(lever, lever.choices()[2]).model) > {"w3"}


def test_latencies_are_predicted_from_the_times_of_layers() -> None:
    lever = Precision(ground(timed=clock(int8=0.5, slow=["third"])))
    whole, kept, *_ = lever.choices()
    # four layers of 1 ms: three take 0.5 in int8, the third 2; borders of 0.01 ms for 4000 bytes, twice more around a float layer
    assert lever.expected(whole) == pytest.approx((3 * 0.5 + 2) / 4, abs=0.02)
    assert lever.expected(kept) == pytest.approx((3 * 0.5 + 1) / 4, abs=0.04)
    assert lever.expected(kept) < lever.expected(whole)


def test_where_size_is_the_goal_nothing_is_predicted() -> None:
    lever = Precision(ground(OptimizeRecipe(target="size=0.3")))
    assert {lever.expected(choice) for choice in lever.choices()} == {1.0}


def test_where_every_layer_is_slower_none_is_singled_out() -> None:
    lever = Precision(ground(timed=clock(int8=3.0)))
    assert floats(carried(lever, lever.choices()[1]).model) != {"w1", "w2", "w3", "w4"}


def test_where_size_is_wanted_time_does_not_count() -> None:
    lever = Precision(ground(OptimizeRecipe(target="size=0.3"), clock(slow=["third"])))
    assert "slower" not in str([node["why"] for node in carried(lever, lever.choices()[1]).steps[0].kept])


def test_what_is_protected_stays() -> None:
    lever = Precision(ground(OptimizeRecipe(protect=("w2", "no such thing"))))
    made = carried(lever, "int8")
    assert floats(made.model) == {"w2"}
    assert {node["node"]: node["why"] for node in made.steps[0].kept}["second"] == "protected"


def test_a_name_with_brackets_is_no_pattern() -> None:
    proto = net()
    proto.graph.node[0].name = "layer[0]*"
    lever = Precision(ground(timed=clock(slow=["layer[0]*"]), proto=proto))
    assert floats(carried(lever, lever.choices()[-1]).model)


def test_a_model_that_the_quantizer_does_not_take_has_no_choice() -> None:
    model = Model.of(parse("(float16[N,3,8,8] x) => (float16[N,3,8,8] y) <float16[3,3,1,1] w> { y = Conv(x, w) }"))
    samples = open_samples({"x": X.astype(np.float16)}, model.inputs)
    lever = Precision(dataclasses.replace(ground(), original=model, samples=samples))
    assert not lever.choices()
    assert "is in float16, which int8 kernels do not read" in lever.notes[0]


@pytest.mark.parametrize("count", [8, 64])
def test_ranges_are_measured_on_samples_of_all_kinds(count: int) -> None:
    place = ground()
    many = np.concatenate([X[:count]] * 40)
    samples = open_samples({"x": many}, place.original.inputs)
    lever = Precision(dataclasses.replace(place, samples=samples))  # with the stack of the other
    assert lever.choices()


def test_a_draft_has_the_layers_and_the_bytes_of_what_is_carried_out() -> None:
    lever = Precision(ground())
    for choice in lever.choices():
        draft = lever.draft(Made(Mixture(), lever.ground.original), choice).model
        found = carried(lever, choice).model
        assert [node.op_type for node in draft.graph.node] == [node.op_type for node in found.graph.node]
        assert written_bytes(draft) == pytest.approx(written_bytes(found), rel=0.01)


def test_products_of_matrices_may_be_alone_in_int8() -> None:
    text = """(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) <float[8,16] v, float[16,8] w> {
        a = MatMul (x, v) b = Relu (a) c = MatMul (b, w) d = Add (c, x) t = Tanh (d) y = Add (t, x)
    }"""
    lever = Precision(ground(proto=parse(text)))
    choice, milder = lever.choices()[-2:]
    assert (choice, milder) == ("int8, products alone", "int8, products alone, 1 of 2 layers in float32")
    (step,) = carried(lever, choice).steps
    kept = {node["op"]: node["why"] for node in step.kept}
    assert kept["Add"] == "lies between products"
    assert "MatMul" not in kept
    assert [node["why"] for node in carried(lever, milder).steps[0].kept if node["op"] == "MatMul"] == ["loses most in int8"]
    assert not any("alone" in one for one in Precision(ground()).choices())


def test_what_products_alone_read_is_made_smooth_and_proven() -> None:
    """One channel behind the normalisation is 50 times as large as the others."""
    text = """(float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) <float[8] scale, float[8] shift, float[8,16] v, float[16,8] w> {
        n = LayerNormalization (x, scale, shift) a = MatMul (n, v) b = Relu (a) c = MatMul (b, w) y = Add (c, n)
    }"""
    proto = parse(text)
    for tensor in proto.graph.initializer:
        if tensor.name == "scale":
            sizes = np.array([1, 1, 1, 50, 1, 1, 1, 1], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(sizes, "scale"))
    lever = Precision(ground(proto=proto))
    choice = "int8, products alone"
    (step,) = carried(lever, choice).steps
    assert list(step.models) == ["smooth", "rounded"]
    assert step.check is not None
    assert step.check.ok
    (whole,) = carried(lever, "int8").steps
    assert (list(whole.models), whole.check) == (["rounded"], None)
