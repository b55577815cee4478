"""A model that one command takes, every command takes: valid files of unusual form, and commands on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

import onnxprune
from nets import parse
from onnxprune.driver.encode import describe
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.options.train import Sparse, Training
from onnxprune.runtime.session import inference_session
from onnxprune.torch import to_module, write_back
from onnxprune.training.finetune import finetune
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.train import train

BODY = """(float[N,16] x) => (float[N,4] y) <float[16,32] u, float[32,32] v, float[32,4] w, float[32] b>
  { h = MatMul(x, u) hb = Add(h, b) a = Relu(hb) i = MatMul(a, v) c = Relu(i) y = MatMul(c, w) }"""
DATA = {"x": np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)}

ODD: dict[str, Callable[[], ModelProto]] = {}
"""Models of unusual form. Each computes what the plain one does."""


def odd(make: Callable[[], ModelProto]) -> Callable[[], ModelProto]:
    ODD[make.__name__] = make
    return make


@odd
def nodes_in_reverse() -> ModelProto:
    model = parse(BODY)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _functions(opset: int) -> ModelProto:
    text = BODY.replace("i = MatMul(a, v) c = Relu(i)", "c = mine.block(a, v)")
    functions = f"""
      <domain: "mine", opset_import: ["": {opset}, "mine": 1]> block (p, q) => (r) {{ s = MatMul(p, q) r = mine.act(s) }}
      <domain: "mine", opset_import: ["": {opset}]> act (p) => (r) {{ r = Relu(p) }}"""
    return parse(text + functions, domains=["mine"])


@odd
def functions_in_functions() -> ModelProto:
    return _functions(18)


@odd
def functions_of_another_operator_set() -> ModelProto:
    return _functions(16)


@odd
def a_weight_in_a_function() -> ModelProto:
    model = parse(BODY)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "v")
    nodes = [
        helper.make_node("Constant", [], ["q"], value=weight),
        helper.make_node("MatMul", ["p", "q"], ["s"]),
    ]
    function = helper.make_function("mine", "block", ["p"], ["s"], nodes, [helper.make_opsetid("", 18)])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[3].CopyFrom(helper.make_node("block", ["a"], ["i"], domain="mine"))
    model.graph.initializer.remove(weight)
    return model


@odd
def weights_among_the_inputs() -> ModelProto:
    model = parse(BODY)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


@odd
def weights_in_constant_nodes() -> ModelProto:
    model = parse(BODY)
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes += list(model.graph.node)
    for field, items in ((model.graph.node, nodes), (model.graph.initializer, [])):
        del field[:]
        field.extend(items)
    return model


@odd
def a_sparse_weight() -> ModelProto:
    model = parse(BODY)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "v")
    array = numpy_helper.to_array(weight)
    values = numpy_helper.from_array(array.reshape(-1), "v")
    indices = numpy_helper.from_array(np.arange(array.size), "v_indices")
    model.graph.initializer.remove(weight)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, array.shape))
    return model


@odd
def what_nothing_reads() -> ModelProto:
    model = parse(BODY)
    model.opset_import.append(helper.make_opsetid("unused.domain", 3))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "unread"))
    model.graph.node.append(helper.make_node("Neg", ["x"], ["dead"]))
    return model


@odd
def the_standard_domain_by_its_long_name() -> ModelProto:
    model = parse(BODY)
    model.opset_import[0].domain = "ai.onnx"
    for node in model.graph.node:
        node.domain = "ai.onnx"
    return model


OPTIONS = Training(epochs=1, batch=16, restore_norms="no")
CHANNELS = onnxprune.Recipe(target="channels=0.5", align="1")


def _apply(path: Path) -> ModelProto:
    plan, _ = onnxprune.make_plan(path, CHANNELS)
    small = onnxprune.apply(path, plan)
    assert onnxprune.check(path, small, plan).ok
    return small.to_proto()


def _module(path: Path) -> ModelProto:
    module = to_module(path)
    expected = inference_session(onnx.load(path)).run(None, DATA)[0]
    np.testing.assert_allclose(module(**DATA).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    return write_back(module, path).to_proto()


COMMANDS: dict[str, Callable[[Path], ModelProto]] = {
    "prune": lambda path: onnxprune.prune(path, CHANNELS, agreement=False).model,
    "prune, with samples": lambda path: onnxprune.prune(path, CHANNELS, samples=DATA).model,
    "plan, apply, verify": _apply,
    "sparsify": lambda path: onnxprune.sparsify(path, SparseRecipe(sparsity=0.5), samples=DATA).model,
    "encode": lambda path: onnxprune.encode(path).model,
    "decode": lambda path: onnxprune.decode(path).model,
    "quantize": lambda path: onnxprune.quantize(path, samples=DATA).model,
    "to_module": _module,
    "finetune": lambda path: finetune(path, TrainingInputs(DATA, teacher=path), OPTIONS).model,
    "train": lambda path: train(path, TrainingInputs(DATA), Sparse(sparsity=0.5, method="oneshot"), OPTIONS).model,
    "train, with a target": lambda path: (
        train(path, TrainingInputs(DATA), Sparse(target="channels=0.7", align="1"), OPTIONS).model
    ),
}
"""Every command that makes a model, as a function from a file to it."""


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    onnx.save(ODD[request.param](), tmp_path / "odd.onnx")
    return tmp_path / "odd.onnx"


every_odd_model = pytest.mark.parametrize("path", ODD, indirect=True)


@every_odd_model
def test_it_is_the_plain_model_in_another_form(path: Path) -> None:
    (got,), (expected,) = (inference_session(model).run(None, DATA) for model in (onnx.load(path), parse(BODY)))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@every_odd_model
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_it(path: Path, command: str) -> None:
    made = COMMANDS[command](path)
    assert [value.name for value in inference_session(made).get_inputs()] == ["x"]
    assert inference_session(made).run(None, DATA)[0].shape == (32, 4)


@every_odd_model
def test_every_layer_is_seen(path: Path) -> None:
    assert len(onnxprune.analyze(path).coupling.groups) == 2
    sparse = onnxprune.sparsify(path, SparseRecipe(sparsity=0.5), agreement=False)
    assert len(sparse.report.layers) + len(sparse.report.dense) == 3
    assert len(to_module(path).weights()) == 4
    assert describe(path)["weights"]
