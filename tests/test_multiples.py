"""Graphs that take batches of multiples of some number alone, with samples: every command gives them such batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import onnxprune
from nets import parse
from onnxprune.data.samples import open_samples, sized
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.options.quantize import QuantRecipe
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.options.train import Sparse, Training
from onnxprune.runtime.session import inference_session
from onnxprune.shapes.probes import batch_multiple

X = np.random.default_rng(0).standard_normal((64, 1, 8, 8)).astype(np.float32)


def views(count: int = 4, batch: str = "n") -> ModelProto:
    """Scores [batch / count, 7] of samples [batch, 1, 8, 8], the mean over so many views of each."""
    return parse(
        f"""(float[{batch},1,8,8] x) => (float[m,7] y)
    <float[16,1,3,3] w1, float[7,16,3,3] w2, int64[2] views = {{{count}, -1}}, int64[2] scores = {{-1, 7}}> {{
      a = Conv(x, w1) b = Relu(a) d = Conv(b, w2) e = GlobalAveragePool(d) f = Reshape(e, views)
      t = Transpose<perm = [1, 0]>(f) k = ReduceMean<keepdims = 0, axes = [1]>(t) y = Reshape(k, scores)
    }}""",
        opset=14,
    )


def trained(recipe: Sparse | None) -> Callable[[ModelProto, dict[str, Any]], Any]:
    def run(model: ModelProto, samples: dict[str, Any]) -> Any:
        pytest.importorskip("torch", reason="PyTorch is not installed")
        from onnxprune.training.finetune import finetune
        from onnxprune.training.inputs import TrainingInputs
        from onnxprune.training.train import train

        inputs, options = TrainingInputs(samples, model, samples), Training(epochs=1, batch=10, device="cpu", metric="mse")
        return finetune(model, inputs, options) if recipe is None else train(model, inputs, recipe, options)

    return run


COMMANDS: dict[str, Callable[[ModelProto, dict[str, Any]], Any]] = {
    "prune": lambda model, x: onnxprune.prune(model, Recipe(target="channels=0.5", align="1"), samples=x),
    "sparsify": lambda model, x: onnxprune.sparsify(model, SparseRecipe(target="sparsity=0.5", ends=True), samples=x),
    "quantize": lambda model, x: onnxprune.quantize(model, QuantRecipe(), samples=x),
    "finetune": trained(None),
    "train": trained(Sparse(sparsity=0.5)),
    "train --target": trained(Sparse(target="channels=0.8")),
}


@pytest.mark.parametrize("count", [30, 8])
@pytest.mark.parametrize("command", COMMANDS)
def test_batches_are_multiples(command: str, count: int) -> None:
    """30 samples are seven batches of four, and two that are left over."""
    result = COMMANDS[command](views(), {"x": X[:count]})
    (y,) = inference_session(result.model).run(None, {"x": X[:16]})
    assert y.shape == (4, 7)


@pytest.mark.parametrize("command", COMMANDS)
def test_fewer_samples_are_refused(command: str) -> None:
    with pytest.raises(OptionError, match="has 3 samples, the model takes multiples of 4: give more"):
        COMMANDS[command](views(), {"x": X[:3]})


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 8, 10, 12])
def test_the_smallest_multiple_is_found(count: int) -> None:
    model = Model.of(views(count))
    assert batch_multiple(model) == count
    samples = open_samples({"x": X[:31]}, model.inputs)
    sized(model, samples)
    sizes = [batch.size for batch in samples.batches(16)]
    assert sizes[0] == 16 - 16 % count
    assert sum(sizes) == 31 - 31 % count
    assert not any(size % count for size in sizes)


def test_a_graph_that_does_not_take_one_sample_takes_three() -> None:
    text = """(float[n,4] x) => (float[2,m] y) <float[2,4] w> {
      a = Squeeze(x)
      b = Transpose<perm = [1, 0]>(a)
      y = MatMul(w, b)
    }"""
    assert batch_multiple(Model.of(parse(text))) == 1


def test_a_fixed_batch_needs_no_multiple() -> None:
    model = Model.of(views(4, "8"))
    samples = open_samples({"x": X[:31]}, model.inputs)
    sized(model, samples)
    assert [batch.size for batch in samples.batches(16)] == [8, 8, 8]


RECURRENT = """(float[N,5,4] x, float[1,1,8] state) => (float[N,8] y) <float[1,24,4] w, float[1,24,8] r, int64[1] zero = {0}> {
  t = Transpose<perm = [1, 0, 2]>(x) o, l = GRU<hidden_size = 8>(t, w, r, , , state) q = Squeeze(l, zero) y = Relu(q)
}"""


def test_a_graph_that_takes_one_sample_at_a_time() -> None:
    """Its first state is that of one sample."""
    model = Model.of(parse(RECURRENT))
    samples = open_samples({"x": np.ones((3, 5, 4)), "state": np.zeros((1, 1, 8))}, model.inputs)
    sized(model, samples)
    assert [batch.size for batch in samples.batches(16)] == [1, 1, 1]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_batch_of_one_that_is_spelled_out(command: str) -> None:
    one = parse("""(float[n,1,8,8] x) => (float[1,7] y) <float[16,1,3,3] w1, float[7,16,3,3] w2, int64[2] scores = {1, 7}> {
      a = Conv(x, w1) b = Relu(a) d = Conv(b, w2) e = GlobalAveragePool(d) y = Reshape(e, scores)
    }""")
    result = COMMANDS[command](one, {"x": X[:24]})
    (y,) = inference_session(result.model).run(None, {"x": X[:1]})
    assert y.shape == (1, 7)


def test_a_graph_that_takes_one_sample_at_a_time_is_quantised() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    made = parse(RECURRENT.replace("y = Relu(q)", "y = MatMul(q, v)").replace("<float[1,24,4]", "<float[8,8] v, float[1,24,4]"))
    result = onnxprune.quantize(made, QuantRecipe(), samples={"x": x, "state": np.zeros((1, 1, 8), np.float32)})
    assert "DequantizeLinear" in {node.op_type for node in result.model.graph.node}
