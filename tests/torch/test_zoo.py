"""Graphs of real architectures: equal to ONNX Runtime, and written back byte by byte, where the optional local data is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import helper

from models.test_zoo import ALL, load
from onnxprune import runtime
from onnxprune.model import Model
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


@pytest.mark.parametrize("name", SMALL)
def test_small(shared: Shared, name: str) -> None:
    proto = load(shared, name)
    check_nodes(proto)
    check_forward(proto)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_whole_zoo(shared: Shared, name: str) -> None:
    check_nodes(load(shared, name))
