"""Models that onnxruntime.quantization writes: pruned whole, weights sliced with their scales and zero points."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

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
