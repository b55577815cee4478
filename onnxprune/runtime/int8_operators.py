"""What ONNX Runtime's quantizer does with operators. It is imported only when something is quantised."""

from __future__ import annotations

__all__ = ["LINEAR", "is_direct", "is_removable", "operators"]

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose products int8 makes cheaper. Constant, their second input takes int8, the third the integers of sums."""


def operators() -> frozenset[str]:
    """Operators that the quantizer may put into int8."""
    from onnxruntime.quantization import registry

    return frozenset(registry.QDQRegistry) | frozenset(registry.QLinearOpsRegistry)


def is_direct(operator: str) -> bool:
    """Whether it moves integers as they are: it computes in int8 where what it reads does, as ``MaxPool`` and ``Reshape``."""
    from onnxruntime.quantization.operators.direct_q8 import QDQDirect8BitOp

    return _is(operator, QDQDirect8BitOp)


def is_removable(operator: str) -> bool:
    """Whether the range of integers can do the same: ``Relu`` and ``Clip``."""
    from onnxruntime.quantization.operators.activation import QDQRemovableActivation

    return _is(operator, QDQRemovableActivation)


def _is(operator: str, kind: type) -> bool:
    from onnxruntime.quantization import registry

    return issubclass(registry.QDQRegistry.get(operator, object), kind)
