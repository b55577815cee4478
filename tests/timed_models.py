"""Small models, and options with which a benchmark of them takes little time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

QUICK: dict[str, Any] = {"seconds": 0.0, "min_rounds": 3, "warmup": 1, "sessions": 1}


def model(text: str, **weights: np.ndarray) -> bytes:
    parsed = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]>\n' + text)
    for name, weight in weights.items():
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return bytes(parsed.SerializeToString())


def dense(width: int) -> bytes:
    weight = np.full((64, width), 0.01, np.float32)
    return model("g (float[N, 64] x) => (float[N, M] y) { y = MatMul(x, w) }", w=weight)


EXP = model("g (float[N, 4] x) => (float[N, 4] y) { y = Exp(x) }")
EXP_OF_ONE = model("g (float[1, 4] x) => (float[1, 4] y) { y = Exp(x) }")
