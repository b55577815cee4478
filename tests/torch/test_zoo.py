"""Graphs of real architectures: equal to ONNX Runtime, and written back byte by byte, where the optional local data is there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from models.test_zoo import ALL, load
from onnxprune.ir.model import Model
from onnxprune.ir.node import every_node
from onnxprune.ir.precision import retyped
from onnxprune.runtime import session
from onnxprune.torch import GraphModule, to_module, write_back
from onnxprune.torch.program import CallContext, ValueScope
from reference import TOLERANCE, check_forward, difference, feeds_of

SMALL = [
    "hand_convlstm__ts", "hand_crnn", "hand_edsr", "hand_einsum_attn", "hand_gru_tagger__ts", "hand_packed_qkv", "hand_siamese",
    "hand_unet__bn", "resnet18", "hf_llama__op23",
]  # fmt: skip
TOGETHER = 50
"""Nodes whose values are held at a time: all of those of a large transformer take 22 GB."""
Shared = Callable[[str], Path]


def tensors(x: Any, *, wide: bool = False) -> Any:
    if isinstance(x, list):
        return [tensors(one, wide=wide) for one in x]
    return torch.tensor(x).double() if wide and x.dtype.kind == "f" else torch.tensor(x)


def computed(module: GraphModule, at: int, given: dict[str, Any], *, wide: bool = False) -> list[Any]:
    """The outputs of one node of the main graph for given values."""
    step, context = module.program.steps[at], CallContext(module.value_of, training=False)
    values = ValueScope(module.program, context, None)
    read = {*step.inputs, *step.captured} - {""}
    values.update((name, tensors(given[name], wide=wide)) for name in read if name in given)
    with torch.no_grad():
        step.compute(values, context)
    return [values[name] for name in filter(None, step.outputs)]


def check_nodes(proto: Any) -> None:
    """Every node of the graph computes what ONNX Runtime does from the same inputs: errors cannot hide or grow on the way.

    Where PyTorch's own kernel rounds a long sum of float32 to a larger difference, the node is compared in float64.
    """
    model = Model.of(proto)
    module, feeds = to_module(model), feeds_of(model)
    proto, steps = model.to_proto(), module.program.steps
    made = {name for step in steps for name in step.outputs if name}
    double = None
    for at, step in enumerate(steps):
        if at % TOGETHER == 0:
            part = steps[at : at + TOGETHER]
            names = sorted(made & {name for one in part for name in (*one.inputs, *one.captured, *one.outputs)})
            del proto.graph.output[:]
            proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
            found = session.inference_session(proto, "reference", optimize=False).run(None, feeds)
            given = feeds | dict(zip(names, found, strict=True))
        outputs = [given[name] for name in filter(None, step.outputs)]
        wrong = [difference(x, y) for x, y in zip(computed(module, at, given), outputs, strict=True)]
        if max(wrong, default=0) >= TOLERANCE and step.node.op in {"Conv", "Gemm", "MatMul"}:
            double = double or copy.deepcopy(module).double()
            exact = computed(double, at, given, wide=True)
            wrong = [difference(x.to(torch.float32), y) for x, y in zip(exact, outputs, strict=True)]
        assert max(wrong, default=0) < TOLERANCE, str(step.node)
    back = write_back(module, model).to_proto()
    assert back.SerializeToString(deterministic=True) == model.to_proto().SerializeToString(deterministic=True)


def check_outputs(proto: Any) -> None:
    """The outputs are those of ONNX Runtime, as far as float32 tells them.

    Random weights make some networks amplify the last bit of a sum until no digit of an output is left. Those are they whose
    output in ONNX Runtime is off what float64 gives; there nodes alone are compared, and so where boxes are chosen by scores.
    """
    model = Model.of(proto)
    if any(node.op_type == "NonMaxSuppression" for node in every_node(model.graph)):
        return
    feeds = feeds_of(model)
    wide = {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in feeds.items()}
    expected = session.inference_session(proto, "reference", optimize=False).run(None, feeds)
    with torch.no_grad():
        ours = to_module(model).compute(feeds)
        exact = to_module(retyped(model, TensorProto.DOUBLE)).compute(wide)
    for name, theirs in zip(ours, expected, strict=True):
        true = exact[name].to(ours[name].dtype).numpy()
        if difference(torch.tensor(theirs), true) < TOLERANCE:
            assert difference(ours[name], theirs) < 5 * TOLERANCE, name


@pytest.mark.parametrize("name", SMALL)
def test_small(shared: Shared, name: str) -> None:
    proto = load(shared, name)
    check_nodes(proto)
    check_forward(proto)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_whole_zoo(shared: Shared, name: str) -> None:
    proto = load(shared, name)
    check_nodes(proto)
    check_outputs(proto)
