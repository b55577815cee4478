"""Models that onnxruntime.quantization writes: pruned whole, weights sliced with their scales and zero points."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import digits
from onnxprune import Recipe, prune

MODELS = Path(__file__).resolve().parents[3] / "models"
HALF = Recipe(target="channels=0.5", align="1")
STATIC = {
    "operators": {"quant_format": "QOperator", "per_channel": True},
    "per tensor": {},
    "per axis": {"per_channel": True},
    "unsigned": {"weight_type": "QUInt8", "activation_type": "QUInt8"},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("options", STATIC.values(), ids=STATIC)
def test_static_quantisation(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime import quantization

    monkeypatch.setattr(logging.root, "level", logging.CRITICAL)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            images = digits.load().train_x
            self.feeds = iter([{"image": images[start : start + 16]} for start in (0, 16)])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    kinds = {key: quantization.QuantType[value] if key.endswith("type") else value for key, value in options.items()}
    kinds["quant_format"] = quantization.QuantFormat[options.get("quant_format", "QDQ")]
    path = tmp_path / "int8.onnx"
    quantization.quantize_static(MODELS / "digits.onnx", path, Reader(), **kinds)
    report = prune(path, HALF, agreement=False).report
    assert not report.frozen
    assert len(report.groups) == 13
    assert report.obtained["macs"] < 0.3
    assert report.verification is not None
    assert report.verification.ok


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dynamic_quantisation(tmp_path: Path) -> None:
    from onnxruntime import quantization

    path = tmp_path / "int8.onnx"
    # Without the reduced range, products saturate on processors that lack VNNI, whichever weights are neighbours.
    quantization.quantize_dynamic(MODELS / "digits__ts.onnx", path, reduce_range=True)
    report = prune(path, HALF, agreement=False).report
    assert not report.frozen
    assert report.obtained["macs"] < 0.3


def _nbits(name: str, data: str, sizes: tuple[int, int], rng: np.random.Generator, **form: Any) -> tuple[Any, list[Any]]:
    """A node ``MatMulNBits`` of (inputs, outputs) and its constants."""
    (inner, rows), bits, block = sizes, form["bits"], form["block_size"]
    count = -(-inner // block)
    constants = [
        rng.integers(0, 256, (rows, count, block * bits // 8), np.uint8),
        rng.uniform(0.01, 0.02, (rows, count)).astype(np.float32),
        rng.integers(0, 256, (rows, -(-count * bits // 8)), np.uint8),
    ]
    tensors = [numpy_helper.from_array(value, f"{name}.{at}") for at, value in enumerate(constants)]
    inputs = [data, *(tensor.name for tensor in tensors)]
    return helper.make_node("MatMulNBits", inputs, [name], name, domain="com.microsoft", K=inner, N=rows, **form), tensors


def _blocks(hidden: int, first: dict[str, int], *readers: dict[str, int]) -> Any:
    """A hidden layer of weights quantised in blocks, and those that read it."""
    rng = np.random.default_rng(0)
    made = [_nbits("hidden", "x", (64, hidden), rng, **first)]
    made += [_nbits(f"y{at}", "active", (hidden, 7), rng, **reader) for at, reader in enumerate(readers)]
    nodes = [made[0][0], helper.make_node("Relu", ["hidden"], ["active"]), *(node for node, _ in made[1:])]
    outputs = [helper.make_tensor_value_info(f"y{at}", TensorProto.FLOAT, ["n", 7]) for at in range(len(readers))]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [tensor for _, tensors in made for tensor in tensors])
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def _form(bits: int, block_size: int) -> dict[str, int]:
    return {"bits": bits, "block_size": block_size}


@pytest.mark.parametrize(
    ("hidden", "readers", "size", "step"),
    [
        (256, [_form(4, 32)], 4, 64),  # two blocks share a byte of zero points
        (256, [_form(8, 32)], 8, 32),
        (256, [_form(2, 16)], 4, 64),
        (256, [_form(4, 16), _form(8, 64)], 4, 64),  # the coarser border
        (224, [_form(4, 32)], 3, 64),  # the seventh block stays
        (200, [_form(8, 32)], 6, 32),  # so do the eight channels of a short one
    ],
)
def test_hidden_width_goes_in_whole_blocks(hidden: int, readers: list[dict[str, int]], size: int, step: int) -> None:
    model = _blocks(hidden, _form(4, 16), *readers)
    made = prune(model, Recipe(target="channels=0.5", align="1"), agreement=False)
    (group,) = made.report.groups
    assert group.size == size
    assert made.report.verification is not None
    assert made.report.verification.ok
    widths = {a.i for node in made.model.graph.node for a in node.attribute if a.name in {"K", "N"}} - {64, 7}
    assert widths == {hidden - (size - group.kept) * step}
    params = 64 * hidden + sum(7 * -(-hidden // form["block_size"]) * form["block_size"] for form in readers)
    scales = hidden * 4 + sum(7 * -(-hidden // form["block_size"]) for form in readers)
    assert made.report.before.params == params + scales


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int8"])
@pytest.mark.parametrize("axis", [0, 1])
def test_dequantised_blocks_of_an_odd_number_of_half_bytes(dtype: str, axis: int) -> None:
    rng = np.random.default_rng(0)
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    nodes, constants = [], []
    for name, shape in (("v", (5, 96)), ("w", (96, 5))):
        blocks = [-(-size // 32) if at == axis else size for at, size in enumerate(shape)]
        constants += [
            numpy_helper.from_array(rng.integers(0, 8, shape).astype(kind), name),
            numpy_helper.from_array(rng.uniform(0.1, 0.2, blocks).astype(np.float32), f"{name}.scale"),
            numpy_helper.from_array(rng.integers(0, 8, blocks).astype(kind), f"{name}.point"),
        ]
        inputs = [name, f"{name}.scale", f"{name}.point"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}.real"], axis=axis, block_size=32))
    nodes.insert(1, helper.make_node("MatMul", ["x", "v.real"], ["h"]))
    nodes.append(helper.make_node("MatMul", ["h", "w.real"], ["y"]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 5]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    made = prune(model, Recipe(target="channels=0.34", align="1"), agreement=False)
    assert made.report.verification is not None
    assert made.report.verification.ok
    assert {tuple(tensor.dims) for tensor in made.model.graph.initializer if tensor.name in "vw"} == {(5, 32), (32, 5)}
