from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from nets import parse
from onnxprune.driver.fault import explained, refused, unsuitable
from onnxprune.driver.quantize import quantize
from onnxprune.errors import ContractError, ModelError, OptionError, PassError

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


MULTIPLES = '<ir_version: 9, opset_import: ["" : 18]> g (float[n, m] x) => (y) <int64[2] s = {0, 4}> { [cut] y = Reshape (x, s) }'


@pytest.mark.parametrize(("width", "runs"), [(4, True), (5, False)])
def test_samples_that_a_model_does_not_run_on_are_at_fault(tmp_path: Path, width: int, runs: bool) -> None:
    path = written(tmp_path, MULTIPLES)
    samples = tmp_path / "calib.npz"
    np.savez(samples, x=np.ones((3, width), np.float32))
    assert (unsuitable(path, "--calib", str(samples)) is None) == runs
    found = explained(IndexError("list index out of range"), [path], {"--calib": str(samples)})
    assert isinstance(found, ContractError if runs else OptionError)
    assert runs or f"--calib {samples}: {path} does not run on these samples (x [3, 5]): " in str(found)
    assert runs or "cut" in str(found)


FRAMES = """<ir_version: 9, opset_import: ["" : 18]> g (float[time, 4] x) => (y) <float[1,1,3,4] w> {
    [look] c = Unsqueeze (x, axes) y = Conv (c, w)
}"""


def test_a_first_axis_that_counts_no_samples_is_told_of(tmp_path: Path) -> None:
    """All of them together are long enough for a kernel of three, and two are not."""
    text = FRAMES.replace("<float[1,1,3,4] w>", "<float[1,1,3,4] w = {1,1,1,1,1,1,1,1,1,1,1,1}, int64[2] axes = {0, 1}>")
    path, samples = written(tmp_path, text), tmp_path / "calib.npz"
    np.savez(samples, x=np.ones((9, 4), np.float32))
    fault = unsuitable(path, "--calib", str(samples))
    assert fault is not None
    assert "does not run on these samples (x [2, 4])" in str(fault)
    assert "as --shape x=Nx4 with a number for N" in str(fault)


NAMED = """(float[batch,5] x, float[1,batch,3] state) => (float[1,batch,3] y)
<float[1,12,5] w, float[1,12,3] r, float[5,5] a, int64[1] front = {0}> {
  h = MatMul(x, a) g = Relu(h) t = Unsqueeze(g, front) s, y, c = LSTM<hidden_size = 3>(t, w, r, "", "", state)
}"""


def test_samples_that_lie_on_another_axis_too_are_given_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, state = rng.random((6, 5), np.float32), np.zeros((1, 1, 3), np.float32)
    onnx.save(parse(NAMED), tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=x, state=state)
    with pytest.raises(OptionError, match=r"not run on these samples .*; else give each sample as an \.npz of its own, in a"):
        quantize(tmp_path / "m.onnx", samples=str(tmp_path / "calib.npz"))
    (tmp_path / "apart").mkdir()
    for at, row in enumerate(x):
        np.savez(tmp_path / "apart" / f"{at}.npz", x=row[None], state=state)
    assert quantize(tmp_path / "m.onnx", samples=str(tmp_path / "apart")).report.weights


def test_what_the_standard_forbids_is_at_fault_even_where_onnx_runtime_runs_it(tmp_path: Path) -> None:
    """A reshape that drops the sizes of an image is fused to one that does not."""
    text = """<ir_version: 9, opset_import: ["" : 18]> g (float[n, 8, 6, 6] x) => (y) <int64[1] i = {0}, int64[1] zero = {0}> {
        r = Relu (x) s = Shape (r) g = Gather (s, i) t = Concat <axis = 0> (g, zero) [drop] y = Reshape (r, t)
    }"""
    path, samples = written(tmp_path, text), tmp_path / "calib.npz"
    np.savez(samples, x=np.ones((9, 8, 6, 6), np.float32))
    assert "drop" in str(unsuitable(path, "--calib", str(samples)))


def test_what_fails_when_it_is_looked_for_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise RuntimeError(path)

    monkeypatch.setattr("onnxprune.driver.fault.refused", refused)
    defect = explained(IndexError("list index out of range"), [written(tmp_path, RUNS)])
    assert "IndexError: list index out of range; this is a defect of onnxprune" in str(defect)


def test_too_little_memory_is_no_defect() -> None:
    assert explained(MemoryError(), []).exit_status == 2
