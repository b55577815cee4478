"""An ONNX graph as a module: forward, names, modes, gradients."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from onnxprune import InputError, ModelError
from onnxprune.ir.model import Model
from onnxprune.torch import GraphModule, initializer_name, to_module
from onnxprune.torch.roles import Role
from reference import check_forward, feeds_of
from trainable import graph

DIGITS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("name", ["digits", "digits__bn", "digits__ts"])
def test_digits(name: str) -> None:
    for size in (1, 5):  # the batch is open
        check_forward(DIGITS / f"{name}.onnx", size)


@pytest.mark.parametrize("name", ["resnet20-cifar10", "resnet20-cifar10-bn"])
def test_resnet20(shared: Any, name: str) -> None:
    check_forward(shared(f"models/{name}.onnx"))


def test_parameters_carry_the_names_of_the_file() -> None:
    model = Model.of(DIGITS / "digits__bn.onnx")
    module = to_module(model)
    assert {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()} <= set(model.weights)
    statistics = {name for name in model.weights if "running" in name}
    assert statistics
    assert {name for name, _ in module.named_buffers()} == statistics
    assert set(module.state_dict()) == set(dict(module.named_parameters())) | statistics


@pytest.mark.parametrize(
    "name", ["a", "a.b", "a.b.c", ".", "a..b", "forward", "training", "x.half", "50%", "%25", "/a/b:0", "a.", "T"]
)
def test_every_name_can_be_told(name: str) -> None:
    others = ["a", "a.b", "a.b.c"]
    tensors = [onnx.numpy_helper.from_array(np.full(2, at, np.float32), one) for at, one in enumerate([*others, name][::-1])]
    tensors = list({tensor.name: tensor for tensor in tensors}.values())
    proto = graph("(float[2] x0) => (float[2] y) { y = Neg(x0) }")
    total = "x0"
    del proto.graph.node[:]
    for at, tensor in enumerate(tensors):
        proto.graph.initializer.append(tensor)
        proto.graph.node.append(onnx.helper.make_node("Add", [total, tensor.name], [f"x{at + 1}"]))
        total = f"x{at + 1}"
    proto.graph.output[0].name = total
    module = check_forward(proto)
    found = {initializer_name(known): value for known, value in module.named_parameters()}
    assert found.keys() == {tensor.name for tensor in tensors}
    assert all(module.value_of(known) is value for known, value in found.items())


def test_names_of_parametrized_weights_are_told() -> None:
    module = to_module(DIGITS / "digits.onnx")

    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    before = module.weights()["stem.0.weight"].detach().clone()
    torch.nn.utils.parametrize.register_parametrization(*module.holder_of("stem.0.weight"), Half())
    assert torch.equal(module.value_of("stem.0.weight"), before / 2)
    assert {initializer_name(name) for name, _ in module.named_parameters()} == set(module.weights())


LAYER = """(float[N,2] x) => (float[N,2] y)
    <float[2] scale = {1, 2}, float[2] bias = {0, 1}, float[2] mean = {0, 0}, float[2] var = {1, 1}>
    { y = BatchNormalization(x, scale, bias, mean, var) }"""


def test_train_mode_moves_statistics_as_pytorch_does() -> None:
    module, reference = to_module(graph(LAYER)).train(), torch.nn.BatchNorm1d(2)
    reference.load_state_dict({"weight": torch.tensor([1.0, 2]), "bias": torch.tensor([0.0, 1])}, strict=False)
    x = torch.randn(7, 2) * 3 + 1
    assert torch.equal(module(x), reference(x))
    moved = reference.state_dict()
    assert torch.equal(module.value_of("mean"), moved["running_mean"])
    assert torch.equal(module.value_of("var"), moved["running_var"])
    module.eval()
    reference.eval()
    assert torch.equal(module(x), reference(x))


def test_statistics_that_another_layer_reads_stay() -> None:
    module = to_module(graph(LAYER.replace("scale, bias, mean, var)", "var, bias, mean, var)"))).train()
    x = torch.randn(7, 2) * 3 + 1
    before = module.value_of("var").clone()
    assert module.constants["var"].role is Role.CONSTANT
    assert torch.equal(module(x), module.eval()(x))
    assert torch.equal(module.value_of("var"), before)


def test_dropout_drops_in_train_mode_alone() -> None:
    source = "(float[1000] x) => (float[1000] y) <float ratio = {0.25}> { y = Dropout(x, ratio) }"
    module, x = to_module(graph(source)).train(), torch.ones(1000)
    y = module(x)
    assert 0.65 < float((y != 0).float().mean()) < 0.85
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(module.eval()(x), x)


@pytest.mark.parametrize(("opset", "kind"), [(9, "float"), (11, "bool")])
def test_masks_of_older_dropouts(opset: int, kind: str) -> None:
    proto = graph(f"(float[1000] x) => (float[1000] y, {kind}[1000] mask) {{ y, mask = Dropout <ratio = 0.25> (x) }}")
    proto.opset_import[0].version = opset
    results = check_forward(proto).train().compute({"x": torch.ones(1000)})
    assert torch.equal(results["mask"].bool(), results["y"] != 0)


def test_intermediate_values_can_be_asked_for() -> None:
    module = to_module(graph("(float[2] x) => (float[2] y) { a = Relu(x) b = Neg(a) y = Exp(b) }"))
    found = module.compute({"x": torch.tensor([-1.0, 2])}, ["a", "y"])
    assert found["a"].tolist() == [0, 2]
    assert list(found) == ["a", "y"]


def pickled(module: GraphModule) -> GraphModule:
    again: GraphModule = pickle.loads(pickle.dumps(module))  # noqa: S301 - our own
    return again


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_trains_on_its_own(copied: Callable[[GraphModule], GraphModule]) -> None:
    module = to_module(DIGITS / "digits__bn.onnx")
    other = copied(module)
    assert "weight [" in repr(other)
    with torch.no_grad():
        other.value_of("stem.0.weight").zero_()
    assert module.value_of("stem.0.weight").any()
    x = torch.randn(2, *[d.dim_value for d in Model.of(DIGITS / "digits__bn.onnx").inputs[0].type.tensor_type.shape.dim][1:])
    assert not torch.equal(module.eval()(x), other.eval()(x))


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "'x' is missing"),
        ((1, 2), {}, "give each once"),
        ((1,), {"x": 1}, "give each once"),
        ((), {"x": 1, "z": 1}, "no input 'z'"),
    ],
)
def test_wrong_inputs_are_named(args: tuple[Any, ...], kwargs: dict[str, Any], words: str) -> None:
    module = to_module(graph("(float[2] x) => (float[2] y) { y = Relu(x) }"))
    with pytest.raises(InputError, match=words):
        module(*args, **kwargs)


def test_unknown_operators_are_named() -> None:
    proto = graph("(float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.graph.node[0].op_type = "Wobble"
    proto.graph.node[0].name = "n1"
    with pytest.raises(
        ModelError, match=r"ai.onnx::Wobble \(node 'n1', operator set 21\) cannot be computed .* docs/torch_ops.md"
    ):
        to_module(proto)


def test_errors_name_the_node() -> None:
    module = to_module(graph("(float[a,b] x, float[c,d] z) => (float[e,f] y) { y = MatMul(x, z) }"))
    with pytest.raises(RuntimeError) as caught:
        module(torch.ones(2, 3), torch.ones(2, 3))
    assert "'MatMul(y)' (ai.onnx::MatMul) with inputs of shapes [2, 3], [2, 3]" in caught.value.__notes__[0]


def test_gradients_by_finite_differences() -> None:
    """Along a random direction of all weights of the digits model, in float64: the slope is the gradient's."""
    module = to_module(DIGITS / "digits__bn.onnx").double().train()
    for constant in module.constants.values():
        if constant.role is Role.STATISTIC:
            module.value_of(constant.key).requires_grad_(False)
    torch.manual_seed(0)
    shape = Model.of(DIGITS / "digits__bn.onnx").inputs[0].type.tensor_type.shape.dim
    x = torch.randn(4, *[d.dim_value for d in shape][1:], dtype=torch.float64)
    weights = list(module.weights().values())
    directions = [torch.randn_like(w) for w in weights]

    def loss() -> torch.Tensor:
        out: torch.Tensor = module(x)
        return out.square().mean()

    loss().backward()
    slope = sum(float((w.grad * d).sum()) for w, d in zip(weights, directions, strict=True) if w.grad is not None)
    assert all(w.grad is not None and torch.isfinite(w.grad).all() for w in weights)
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for w, d in zip(weights, directions, strict=True):
                w += sign * step * d
            values.append(float(loss()))
            for w, d in zip(weights, directions, strict=True):
                w -= sign * step * d
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)


def test_four_bits_are_refused_where_they_are_written() -> None:
    source = "(float[2] x) => (int4[2] y) <float s = {1}> { y = QuantizeLinear <output_dtype = 22> (x, s) }"
    with pytest.raises(ModelError, match=r"less than eight bits, .* train the model before it is quantised"):
        to_module(graph(source))


def test_values_go_after_their_last_reader() -> None:
    source = "(float[2] x) => (float[2] b, float[2] y) { a = Relu(x) b = Neg(a) c = Exp(a) d = Abs(c) y = Add(b, d) }"
    module = to_module(graph(source))
    assert [set(step.last) for step in module.program.steps] == [{"x"}, set(), {"a"}, {"c"}, {"d"}]


FLOW = {
    "if": "(bool c, float[2] x) => (float[2] y) "
    "{ y = If (c) <then_branch = t () => (float[2] a) { a = Exp(x) }, else_branch = e () => (float[2] b) { b = Sin(x) }> }",
    "loop": "(float[2] x) => (float[2] y, float[n,2] z) <int64 n = {3}, bool c = {1}> "
    "{ y, z = Loop (n, c, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] so, float[2] r) "
    "{ co = Identity(ci) f = CastLike(i, s) t = Add(s, f) so = Sin(t) r = Mul(so, x) }> }",
    "no rows": "(float[2] x) => (float[2] y, float[n,2] z) <int64 n = {0}, bool c = {1}> "
    "{ y, z = Loop (n, c, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] so, float[2] r) "
    "{ co = Identity(ci) so = Sin(s) r = Mul(so, x) }> }",
    "scan": "(float[2] x, float[3,2] w) => (float[2] y, float[2,3] z) "
    "{ y, z = Scan <num_scan_inputs = 1, scan_input_directions = [1], scan_output_axes = [1], "
    "body = b (float[2] s, float[2] v) => (float[2] so, float[2] r) { t = Mul(s, v) so = Sin(t) r = Add(so, x) }> (x, w) }",
}


@pytest.mark.parametrize("name", FLOW)
def test_control_flow(name: str) -> None:
    """Equal to ONNX Runtime, and to the slope in float64."""
    module = check_forward(graph(FLOW[name])).double()
    given = [torch.tensor(data=True)] if name == "if" else []
    given += [torch.randn(2, dtype=torch.float64, requires_grad=True)]
    given += [torch.randn(3, 2, dtype=torch.float64, requires_grad=True)] if name == "scan" else []
    torch.autograd.gradcheck(module, given)


@pytest.mark.parametrize("name", ["digits", "digits__bn", "digits__ts"])
def test_sizes_need_no_look_at_the_device(name: str) -> None:
    """On a device without data, where reading one number would fail, shapes come out right."""
    module, model = to_module(DIGITS / f"{name}.onnx").to("meta"), Model.of(DIGITS / f"{name}.onnx")
    feeds = {name: torch.as_tensor(x, device="meta") for name, x in feeds_of(model, 3).items()}
    assert {y.device.type for y in module.compute(feeds).values()} == {"meta"}
    assert module(*feeds.values()).shape == to_module(model)(*feeds_of(model, 3).values()).shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["digits__bn", "digits__ts"])
def test_cuda_computes_the_same(name: str) -> None:
    path = DIGITS / f"{name}.onnx"
    feeds = feeds_of(Model.of(path))
    ours = to_module(path).to("cuda")(*feeds.values())
    assert ours.is_cuda
    torch.testing.assert_close(ours.cpu(), to_module(path)(*feeds.values()), rtol=1e-3, atol=1e-4)


def test_mixed_precision_trains() -> None:
    path = DIGITS / "digits__bn.onnx"
    module = to_module(path).train()
    with torch.autocast("cpu", torch.bfloat16):
        y = module(*feeds_of(Model.of(path), 4).values())
        y.float().square().mean().backward()
    assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in module.parameters())


def test_without_pytorch_the_way_out_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None\nimport onnxprune\ntry:\n    import onnxprune.torch\n"
    code += "except onnxprune.OptionError as error:\n    print(error)"
    run = subprocess.run([sys.executable, "-c", code], cwd=DIGITS.parent, capture_output=True, text=True, check=True)
    assert run.stdout == "this needs PyTorch: run pip install 'onnxprune[torch]'\n"
