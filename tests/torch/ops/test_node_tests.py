"""Operators pass the node tests of the onnx package, and docs/torch_ops.md lists them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from onnx import parser

from onnxprune import ModelError
from onnxprune.torch import to_module

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "benchmarks"))  # last, as it holds names of packages
import torch_ops  # noqa: E402

_DRAWN, _HALF, _NOISE = (
    "NumPy draws it",
    "half precision rounds in another order",
    "the reference rounds zeros to other numbers",
)
KNOWN = {
    "Dropout test_training_dropout_default": _DRAWN,
    "Dropout test_training_dropout_default_mask": _DRAWN,
    "Dropout test_training_dropout": _DRAWN,
    "Dropout test_training_dropout_mask": _DRAWN,
    "RoiAlign test_roialign_mode_max": "not implemented",
    "DFT test_dft_inverse": _NOISE,
    "DFT test_dft_inverse_opset19": _NOISE,
    "Attention test_attention_4d_causal_bf16": _HALF,
    "Attention test_attention_4d_causal_bf16_expanded": _HALF,
    "Attention test_attention_4d_causal_fp16": _HALF,
    "Attention test_attention_4d_causal_fp16_expanded": _HALF,
    "Attention test_attention_4d_padded_kv_bf16": _HALF,
    "Attention test_attention_4d_causal_padded_kv_bf16": _HALF,
}
"""Node tests that fail, and why."""


@pytest.fixture(scope="module")
def table() -> tuple[str, dict[tuple[str, str], torch_ops.Count], list[str]]:
    return torch_ops.table()


def test_node_tests_pass(table: tuple[str, dict[tuple[str, str], torch_ops.Count], list[str]]) -> None:
    _, counts, failures = table
    failed = {line.partition(":")[0]: line for line in failures}
    assert {name: line for name, line in failed.items() if name not in KNOWN and "uint64" not in name} == {}
    floating = [passed for count in counts.values() for passed in count.floating]
    assert len(floating) > 1000
    assert sum(floating) / len(floating) > 0.99


def test_the_page_is_up_to_date(table: tuple[str, dict[tuple[str, str], torch_ops.Count], list[str]]) -> None:
    assert (ROOT / "docs" / "torch_ops.md").read_text("utf-8") == table[0], "run python benchmarks/torch_ops.py"


def test_forms_that_are_not_there_are_errors_of_the_model() -> None:
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 16]> g (float[1,1,4,4] x, float[1,4] b) => (float[1,1,1,1] y)'
        ' <int64[1] i = {0}> { [roi] y = RoiAlign <mode = "max"> (x, b, i) }'
    )
    with pytest.raises(ModelError, match=r"roi.* cannot be computed in PyTorch: mode=max: write the node with mode=avg"):
        to_module(proto)(torch.ones(1, 1, 4, 4), torch.ones(1, 4))
