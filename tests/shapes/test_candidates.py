"""Which sizes are tried, and in which order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper

from onnxprune.ir.model import Model
from onnxprune.ir.sizes import GivenSizes
from onnxprune.ir.types import Shape
from onnxprune.shapes.candidates import binding_candidates, bindings, larger, one_sample


def model_of(inputs: list[ValueInfoProto], given: GivenSizes | None = None) -> Model:
    """A graph that does nothing."""
    graph = helper.make_graph([], "g", inputs, [])
    return Model(helper.make_model(graph), {}, "<model>", sizes=given)


def value(name: str, *dims: str | int | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def trials(inputs: list[ValueInfoProto], given: GivenSizes | None = None) -> list[list[dict[str, Shape]]]:
    return list(binding_candidates(model_of(inputs, given)))


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (("N", 3, 8, 8), [(2, 3, 8, 8), (3, 3, 8, 8)]),
        ((4, 3, 8, 8), [(4, 3, 8, 8)]),
        (("N", 3, "H", "W"), [(2, 3, 64, 64), (3, 3, 95, 95)]),
        ((1, "T", 8), [(1, 16, 8), (1, 31, 8)]),
        ((None, 5), [(2, 5), (3, 5)]),
        ((), [()]),
    ],
)
def test_open_sizes_get_definite_values(dims: tuple[str | int | None, ...], expected: list[tuple[int, ...]]) -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims))
    assert [found["x"] for found in bindings([info])] == expected


def test_sizes_with_one_name_stay_equal_and_others_differ() -> None:
    infos = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["N", length])
        for name, length in (("a", "T"), ("b", "S"), ("c", "T"))
    ]
    for found in bindings(infos):
        assert found["a"] == found["c"] != found["b"]


def test_trials_differ_and_end() -> None:
    infos = [value(name, name, f"{name} length") for name in ("a", "b")]
    plain, even, alike, both, *fixed = trials(infos)
    assert plain == bindings(infos) == [{"a": (2, 24), "b": (2, 40)}, {"a": (3, 47), "b": (3, 79)}]
    assert even == [{"a": (2, 24), "b": (2, 40)}, {"a": (3, 48), "b": (3, 80)}]
    assert alike == [{"a": (2, 24), "b": (2, 24)}, {"a": (3, 47), "b": (3, 47)}]
    assert both == [{"a": (2, 24), "b": (2, 24)}, {"a": (3, 48), "b": (3, 48)}]
    equal = [trial for trial in fixed if trial[0]["a"] == trial[0]["b"] == (2, trial[1]["a"][1])]
    assert len({first["a"] for first, _ in equal}) == len(equal) > 3
    longer = [first["a"] for first, _ in fixed if first["a"][0] == 2 and first["a"] != first["b"]]
    assert longer == [(2, 24 * 8), (2, 24 * 64), (2, 24 * 1024)]
    assert {first["a"][0] for first, _ in fixed} == {2, 4, 8, 16, 6, 10}
    assert len(trials([value("x", 1, 4)])) == 1


def test_one_name_has_one_size_in_every_trial() -> None:
    """The state of a recurrent network has its batch on the second axis; samples are on the second axis of the other input."""
    infos = [
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, "batch", 8]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "samples"]),
    ]
    tried = [found for trial in trials(infos) for found in trial]
    assert all(found["state"] == (2, found["x"][0], 8) for found in tried)
    assert (2, 512) in {found["x"] for found in tried}


def test_the_batch_of_a_recurrent_state() -> None:
    """Neither has a name."""
    tried = trials([value("x", None, None), value("state", 2, None, 8)])
    assert any(first["state"][1] == first["x"][0] and first["x"][1] == 224 for first, *_ in tried)
    (first, *_) = larger(model_of([value("x", None, None), value("state", 2, None, 8)]), {"x": (1, 24), "state": (2, 1, 8)})
    assert first == {"x": (1, 1008), "state": (2, 1, 8)}
    alone = trials([value("x", 1, None, 80)])
    assert all(first["x"][1] > 4 for first, *_ in alone)


def test_a_negative_size_is_open() -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [-1, 3])
    assert bindings([info]) == [{"x": (2, 3)}, {"x": (3, 3)}]


def test_longer_inputs_have_a_limit() -> None:
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", "S"])
    assert all(np.prod(found["x"]) <= 1 << 22 for trial in trials([info]) for found in trial)


def test_sizes_that_the_model_fixes_are_tried_however_large_they_are() -> None:
    assert trials([value("x", "N", 3, 2048, 2048)])[0][0] == {"x": (2, 3, 2048, 2048)}


def test_nothing_to_feed() -> None:
    assert bindings([]) == [{}]


def test_before_one_value_for_both_probes_there_are_two() -> None:
    """A graph that takes multiples alone must not be taken for one of a single size."""
    firsts = [[found["x"][1] for found in trial] for trial in trials([value("x", "N", "T")])]
    assert firsts.index([224, 448]) < firsts.index([224, 224])


def test_names_that_are_arithmetic() -> None:
    infos = [value("past", "N", "past"), value("mask", "N", "past + 1"), value("two", "N", "2*total"), value("s", "N", "total")]
    for found in bindings(infos):
        assert found["mask"][1] == found["past"][1] + 1
        assert found["two"][1] == 2 * found["s"][1]


def test_given_sizes_are_in_every_trial() -> None:
    tried = trials([value("x", "N", 3, "H", "W")], GivenSizes(fixed={"N": 1, "H": 40}))
    assert all(found["x"][:3] == (1, 3, 40) for trial in tried for found in trial)
    assert [found["x"][3] for found in tried[0]] == [64, 95]


def test_where_all_sizes_are_given_there_is_one_trial() -> None:
    assert trials([value("x", "N", "T")], GivenSizes(fixed={"N": 1, "T": 40})) == [[{"x": (1, 40)}]]


def test_sizes_of_samples_come_first_with_others_beside_them() -> None:
    tried = trials([value("x", "N", "T", 4)], GivenSizes(seen={"T": 300}))
    assert [[found["x"] for found in trial] for trial in tried[:4]] == [
        [(2, 300, 4), (3, 151, 4)],
        [(2, 300, 4), (3, 150, 4)],
        [(2, 300, 4), (3, 600, 4)],
        [(2, 300, 4), (3, 300, 4)],
    ]
    assert tried[4] == bindings([value("x", "N", "T", 4)])


def test_larger_sizes() -> None:
    infos = [value("x", "N", "T"), value("mask", "N", "T + 1")]
    (first, *_) = larger(model_of(infos), {"x": (1, 24), "mask": (1, 25)})
    assert first == {"x": (1, 1008), "mask": (1, 1009)}
    assert list(larger(model_of(infos, GivenSizes(fixed={"N": 1, "T": 24})), {"x": (1, 24), "mask": (1, 25)})) == []


def test_a_large_batch_keeps_its_multiple() -> None:
    *_, last = larger(model_of([value("x", "N", 4)]), {"x": (7, 4)})
    assert last == {"x": (35, 4)}


def test_inputs_whose_rank_is_a_guess_grow_along_the_axes_that_were_tried() -> None:
    unranked = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    model = model_of([unranked, value("state", "N", 8)])
    found = list(larger(model, {"x": (2, 24), "state": (2, 8)}))
    assert found
    assert all(len(shapes["x"]) == 2 for shapes in found)
    assert max(shapes["x"][1] for shapes in found) > 24
    assert one_sample(model, {"x": (2, 24), "state": (2, 8)}) == {"x": (1, 24), "state": (1, 8)}


def test_what_samples_are_is_no_reason_to_try_sizes_that_are_many_times_as_large() -> None:
    inputs = [value("x", 4, "n", "t")]
    for given in (GivenSizes(seen={"n": 5, "t": 4}), GivenSizes(fixed={"n": 5}, seen={"t": 4}), None):
        sizes = [math.prod(shapes["x"]) for trial in trials(inputs, given) for shapes in trial]
        assert max(sizes) <= 1 << 22
    seen = GivenSizes(seen={"n": 4096, "t": 4096})
    assert {"x": (4, 4096, 4096)} in [shapes for trial in trials(inputs, seen) for shapes in trial]
    assert (4, 8192, 8192) in [shapes["x"] for trial in trials(inputs, seen) for shapes in trial]
