from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnxprune.driver.fault import explained, refused
from onnxprune.errors import ContractError, ModelError, PassError

RUNS = '<ir_version: 9, opset_import: ["" : 18]> g (float[n, 4] x) => (y) { y = Relu (x) }'
REFUSED = '<ir_version: 9, opset_import: ["" : 18]> g (float[n, 4] x) => (y) { [turn] y = Transpose <perm = [0, 9]> (x) }'
FAILS = '<ir_version: 9, opset_import: ["" : 18]> g (float[n, 4] x) => (y) <int64[2] s = {3, 3}> { [cut] y = Reshape (x, s) }'


def written(folder: Path, text: str) -> Path:
    path = folder / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.mark.parametrize(("text", "node"), [(REFUSED, "turn"), (FAILS, "cut")])
def test_a_model_that_does_not_run_is_at_fault(tmp_path: Path, text: str, node: str) -> None:
    path = written(tmp_path, text)
    fault = explained(IndexError("list index out of range"), [path])
    assert isinstance(fault, ModelError)
    assert str(path) in str(fault)
    assert node in str(fault)


def test_a_model_that_runs_is_not(tmp_path: Path) -> None:
    path = written(tmp_path, RUNS)
    assert refused(path) is None
    defect = explained(IndexError("list index out of range"), [path])
    assert isinstance(defect, ContractError)
    assert "IndexError: list index out of range; this is a defect of onnxprune" in str(defect)
    failed = PassError("Couple() failed")
    assert explained(failed, [path]) is failed


def test_too_little_memory_is_no_defect() -> None:
    assert explained(MemoryError(), []).exit_status == 2
