"""Trained weights are written into the file, and everything else stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from onnxprune import ModelError
from onnxprune.ir.model import Model
from onnxprune.torch import to_module, write_back
from reference import check_forward
from trainable import graph

DIGITS = Path(__file__).resolve().parents[2] / "models"


def same(one: Model, other: Model) -> bool:
    return bool(one.to_proto().SerializeToString(deterministic=True) == other.to_proto().SerializeToString(deterministic=True))


@pytest.mark.parametrize("name", ["digits", "digits__bn", "digits__ts"])
def test_untrained_round_trip_is_byte_equal(name: str) -> None:
    model = Model.of(DIGITS / f"{name}.onnx")
    assert same(write_back(to_module(model), model), model)


@pytest.mark.parametrize("kind", ["float", "double", "float16", "bfloat16"])
def test_types_are_kept(kind: str) -> None:
    proto = graph(f"({kind}[N,2] x) => ({kind}[N,3] y) {{ y = MatMul(x, w) }}")
    elem_type = proto.graph.input[0].type.tensor_type.elem_type
    values = np.arange(1, 7).reshape(2, 3).astype(helper.tensor_dtype_to_np_dtype(elem_type))
    proto.graph.initializer.append(numpy_helper.from_array(values, "w"))
    model = Model.of(proto)
    module = to_module(model)
    assert same(write_back(module, model), model)
    with torch.no_grad():
        module.value_of("w").mul_(2)
    back = write_back(module, model)
    assert back.weights["w"].dtype == model.weights["w"].dtype
    assert back.weights["w"].array().astype(np.float32).reshape(-1).tolist() == [2, 4, 6, 8, 10, 12]
    assert [node.op_type for node in back.graph.node] == ["MatMul"]
    assert list(back.weights) == ["w"]


def test_training_changes_weights_and_nothing_else(tmp_path: Path) -> None:
    path = DIGITS / "digits__bn.onnx"
    module, model = to_module(path).train(), Model.of(path)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    x = torch.randn(8, *[d.dim_value for d in model.inputs[0].type.tensor_type.shape.dim][1:])
    module(x).square().mean().backward()
    optimizer.step()
    write_back(module, path, tmp_path / "out.onnx")

    back = Model.of(tmp_path / "out.onnx")
    assert back.proto.SerializeToString(deterministic=True) == model.proto.SerializeToString(deterministic=True)
    assert list(back.weights) == list(model.weights)
    kept = [name for name in model.weights if np.array_equal(back.weights[name].array(), model.weights[name].array())]
    assert set(kept) <= {name for name, constant in module.constants.items() if constant.role.value == "constant"}
    module.eval()
    again = to_module(back).eval()
    assert torch.equal(module(x), again(x))
    check_forward(back)


def test_parametrized_values_are_written() -> None:
    class Mask(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (x > 0)

    path = DIGITS / "digits.onnx"
    module = to_module(path)
    torch.nn.utils.parametrize.register_parametrization(*module.holder_of("stem.0.weight"), Mask())
    back, model = write_back(module, path), Model.of(path)
    old = model.weights["stem.0.weight"].array()
    assert np.array_equal(back.weights["stem.0.weight"].array(), old * (old > 0))
    assert back.proto == model.proto
    assert list(back.weights) == list(model.weights)


BODY = """(bool c, float[2] x) => (float[2] y) {
    w = Constant <value = float[2] {1, 2}> ()
    y = If (c) <then_branch = t () => (float[2] a) <float[2] v = {3, 4}> { b = Mul(x, w) a = Add(b, v) },
                else_branch = e () => (float[2] d) <float[2] v = {5, 6}> { d = Mul(x, v) }>
}"""


def test_constants_of_nodes_and_of_bodies_are_trained() -> None:
    model = Model.of(graph(BODY))
    module = to_module(model)
    assert set(module.weights()) == {"w", "v", "v__1"}
    assert same(write_back(module, model), model)
    with torch.no_grad():
        for weight in module.weights().values():
            weight.mul_(10)
    back = write_back(module, model)
    node = next(node for node in back.graph.node if node.op_type == "Constant")
    assert numpy_helper.to_array(node.attribute[0].t).tolist() == [10, 20]
    branches = [attribute.g for attribute in back.graph.node[1].attribute]
    assert [numpy_helper.to_array(branch.initializer[0]).tolist() for branch in branches] == [[30, 40], [50, 60]]
    for condition in (True, False):
        given = torch.tensor(condition), torch.tensor([1.0, -1])
        assert torch.equal(to_module(back)(*given), module(*given))


def test_external_data_comes_back_whole(tmp_path: Path) -> None:
    proto = onnx.load(DIGITS / "digits.onnx")
    onnx.save(proto, tmp_path / "in.onnx", save_as_external_data=True, size_threshold=0, location="in.data")
    module = to_module(tmp_path / "in.onnx")
    with torch.no_grad():
        module.value_of("stem.0.weight").add_(1)
    write_back(module, tmp_path / "in.onnx", tmp_path / "out.onnx")
    onnx.checker.check_model(tmp_path / "out.onnx")
    new, old = Model.of(tmp_path / "out.onnx"), Model.of(DIGITS / "digits.onnx")
    for name, weight in new.weights.items():
        assert np.array_equal(weight.array(), old.weights[name].array() + (name == "stem.0.weight"))


def test_another_model_is_refused() -> None:
    module = to_module(DIGITS / "digits.onnx")
    with pytest.raises(ModelError, match=r"there is no constant 'stem\.0\.weight'"):
        write_back(module, DIGITS / "digits__ts.onnx")
    model: Any = Model.of(DIGITS / "digits.onnx")
    weight = model.weights["stem.0.weight"]
    model.weights["stem.0.weight"] = weight.derived((1, *weight.shape[1:]), lambda w: w[:1])
    with pytest.raises(ModelError, match="pass the model that the module was made from"):
        write_back(module, model)
