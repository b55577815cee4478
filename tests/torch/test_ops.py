"""Every operator: the node tests of the onnx package, and the page that says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnxprune.torch.registry import find, op

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))  # last, as it holds names of packages
import torch_ops  # noqa: E402

_DRAWN, _ROUNDED, _UNSIGNED = "NumPy draws it", "half precision rounds in another order", "PyTorch does not compute in uint64"
KNOWN = {
    "Dropout test_training_dropout_default": _DRAWN,
    "Dropout test_training_dropout_default_mask": _DRAWN,
    "Dropout test_training_dropout": _DRAWN,
    "Dropout test_training_dropout_mask": _DRAWN,
    "RoiAlign test_roialign_mode_max": "not implemented",
    "Attention test_attention_4d_causal_bf16": _ROUNDED,
    "Attention test_attention_4d_causal_bf16_expanded": _ROUNDED,
    "Attention test_attention_4d_causal_fp16": _ROUNDED,
    "Attention test_attention_4d_causal_fp16_expanded": _ROUNDED,
    "Attention test_attention_4d_padded_kv_bf16": _ROUNDED,
    "Attention test_attention_4d_causal_padded_kv_bf16": _ROUNDED,
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


def test_versions_choose_the_function() -> None:
    old, new = find("", "Softmax", 12), find("", "Softmax", 13)
    assert old is not None
    assert new is not None
    assert old.function is not new.function
    assert find("", "GroupNormalization", 17) is None
    assert find("somebody.else", "Softmax", 13) is None


def test_two_functions_for_one_version_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ai.onnx::Softmax has a function already in versions 12 to 12"):
        op("Softmax", since=12, until=12)(find)
