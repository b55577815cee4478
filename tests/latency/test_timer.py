"""What the stopwatch loads, runs and compares; nothing here depends on how fast the machine is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from nets import NETS, parse
from onnxprune.errors import ModelError, OptionError, ProviderError
from onnxprune.ir.model import Model
from onnxprune.latency import timer
from onnxprune.latency.interleave import TimedRun
from onnxprune.latency.timer import OrtTimer, measure_ratio, measure_ratios, yardstick


def sum_of(size: int, kind: int = TensorProto.FLOAT, op: str = "Add") -> ModelProto:
    """x + w, with a constant that has no data and a dynamic first axis."""
    node = helper.make_node(op, ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", kind, ["d0", size])
    weight = TensorProto(name="w", data_type=kind, dims=[size])
    graph = helper.make_graph([node], "g", [x], [helper.make_tensor_value_info("y", kind, None)], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"d0": "3"})
    return model


def test_times_come_in_the_order_of_the_models_and_what_fails_has_none() -> None:
    nonsense = sum_of(4, op="Nonsense")
    unsized = sum_of(4)
    del unsized.metadata_props[:]
    times = OrtTimer()([yardstick(), nonsense, sum_of(4), unsized])
    assert [ms is None for ms in times] == [False, True, False, True]
    assert all(0 < ms < 1e4 for ms in times if ms is not None)


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "DOUBLE", "INT64", "INT8", "BFLOAT16"])
@pytest.mark.parametrize("size", [0, 4, 4096])
def test_constants_are_given_data(kind: str, size: int) -> None:
    model = sum_of(size, getattr(TensorProto, kind))
    model.graph.initializer.append(numpy_helper.from_array(np.array([7.0]), "given"))
    proto, weights = timer._furnish(model)
    assert [tensor.name for tensor in proto.graph.initializer] == ["given"]
    (weight,) = weights
    assert (weight.name, weight.shape, weight.dtype) == ("w", (size,), getattr(TensorProto, kind))
    values = weight.array().astype(np.float64)
    assert ((values > 0) & (values < 1)).all() if weight.is_float else not values.any()
    assert not model.graph.initializer[0].raw_data


# Two models


def net(name: str = "flatten") -> Model:
    return Model.of(parse(NETS[name]))


def test_a_ratio_is_the_candidates_time_over_the_originals(monkeypatch: pytest.MonkeyPatch) -> None:
    def interleave(runs: Sequence[TimedRun], **options: Any) -> list[list[float]]:
        for run in runs:
            run(1)
        return [[2.0, 4.0, 2.0], [1.0, 1.0, 1.0]]

    monkeypatch.setattr(timer, "interleave", interleave)
    assert measure_ratio(net(), net()) == 0.5


def test_several_candidates_take_turns_with_one_original(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []

    def interleave(runs: Sequence[TimedRun], **options: Any) -> list[list[float]]:
        loaded.append(len(runs))
        return [[2.0, 4.0, 2.0], [1.0, 1.0, 1.0], [4.0, 8.0, 8.0]]

    monkeypatch.setattr(timer, "interleave", interleave)
    assert measure_ratios(net(), [net(), net()]) == [0.5, 2.0]
    assert loaded == [3]


def test_models_are_really_run() -> None:
    ratio = measure_ratio(net(), net(), seconds=0)
    assert 0 < ratio < 1e4


def test_open_sizes_are_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Mapping[str, Sequence[int]]] = []
    bound = timer._bound

    def spy(session: Any, slots: Any, shapes: Mapping[str, Sequence[int]], *rest: Any) -> TimedRun:
        seen.append(shapes)
        return bound(session, slots, shapes, *rest)

    monkeypatch.setattr(timer, "_bound", spy)
    measure_ratio(net("attention"), net("attention"), seconds=0, batch=3, shapes={"x": (-1, 5, 8)})
    assert seen == [{"x": (3, 5, 8)}] * 2
    seen.clear()
    known = Model.of(net("attention").to_proto(), ("x=?x7x8",))
    measure_ratio(known, net("attention"), seconds=0)
    assert seen == [{"x": (1, 7, 8)}] * 2  # at the sizes that the original was given


def test_weights_need_not_be_in_the_protobuf() -> None:
    model = net()
    assert not model.graph.initializer
    measure_ratio(model, model, seconds=0)
    assert not model.graph.initializer


@pytest.mark.parametrize(("options", "said"), [({"threads": 0}, "threads"), ({"seconds": -1.0}, "seconds")])
def test_options_without_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        measure_ratio(net(), net(), **options)


def test_a_model_that_does_not_load_is_named() -> None:
    broken = net()
    broken.graph.node[0].op_type = "Nonsense"
    broken.name = "broken.onnx"
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        measure_ratio(net(), broken)


def test_a_model_that_does_not_run_is_named() -> None:
    text = "(float[N,4] x) => (float[N,3] y) <int64[2] shape = {-1,3}> { y = Reshape(x, shape) }"
    broken = Model.of(parse(text))
    broken.name = "broken.onnx"
    with pytest.raises(ModelError, match=r"broken\.onnx.*on cpu"):
        measure_ratio(broken, net())


def test_a_provider_that_is_not_there_is_refused() -> None:
    if "TensorrtExecutionProvider" in ort.get_available_providers():
        pytest.skip("this machine has TensorRT")
    with pytest.raises(ProviderError, match="tensorrt"):
        measure_ratio(net(), net(), provider="tensorrt")


def test_cuda_compares_models() -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    assert measure_ratio(net(), net(), seconds=0.1, provider="cuda") > 0
