"""Graphs of real architectures: equal to ONNX Runtime, and written back byte by byte, where the optional local data is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from models.test_zoo import ALL, load
from onnxprune import runtime
from onnxprune.model import Model
from onnxprune.node import every_node
from onnxprune.precision import retyped
from onnxprune.torch import to_module, write_back
from onnxprune.torch.program import Run, Values
from reference import TOLERANCE, check_forward, difference, feeds_of

SMALL = [
    "hand_convlstm__ts", "hand_crnn", "hand_edsr", "hand_einsum_attn", "hand_gru_tagger__ts", "hand_packed_qkv", "hand_siamese",
    "hand_unet__bn", "resnet18", "hf_llama__op23",
]  # fmt: skip
Shared = Callable[[str], Path]


def tensors(x: Any) -> Any:
    return [tensors(one) for one in x] if isinstance(x, list) else torch.tensor(x)


def check_nodes(proto: Any) -> None:
    """Every node of the graph computes what ONNX Runtime does from the same inputs: errors cannot hide or grow on the way."""
    model = Model.of(proto)
    module, feeds = to_module(model), feeds_of(model)
    proto = model.to_proto()
    computed = [name for step in module.program.steps for name in step.outputs if name]
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in computed)
    theirs = dict(zip(computed, runtime.session(proto, "reference", optimize=False).run(None, feeds), strict=True))
    given = feeds | theirs
    run = Run(module.value_of, training=False)
    for step in module.program.steps:
        values = Values(module.program, run, None)
        read = {*step.inputs, *step.captured} - {""}
        values.update((name, tensors(given[name])) for name in read if name in given)
        with torch.no_grad():
            step.compute(values, run)
        for name in filter(None, step.outputs):
            assert difference(values[name], theirs[name]) < TOLERANCE, f"{step.node}: {name}"
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
    expected = runtime.session(proto, "reference", optimize=False).run(None, feeds)
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
