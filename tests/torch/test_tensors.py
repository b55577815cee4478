"""Arrays and tensors, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from onnxprune import ModelError
from onnxprune.ir.weights import Weight
from onnxprune.torch.tensors import dtype_of, from_array, to_array, to_tensor

TYPES = [
    "FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL",
    "FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "UINT4",
]  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 2)])
def test_there_and_back(name: str, shape: tuple[int, ...]) -> None:
    elem_type = getattr(TensorProto, name)
    array: Any = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(helper.tensor_dtype_to_np_dtype(elem_type))
    tensor = to_tensor(Weight("w", None, array))
    assert (tensor.dtype, tuple(tensor.shape)) == (dtype_of(elem_type), shape)
    back = to_array(tensor, elem_type)
    assert back.dtype == array.dtype
    assert back.shape == shape
    assert back.tobytes() == array.tobytes()


def test_nan_payloads_survive() -> None:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001], np.uint32)
    tensor = to_tensor(Weight("w", None, bits.view(np.float32)))
    assert to_array(tensor, TensorProto.FLOAT).view(np.uint32).tolist() == bits.tolist()


def test_what_cannot_be_written_is_copied() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    tensor = from_array(array)
    tensor += 1
    assert array.tolist() == [0, 1, 2]
    assert from_array(np.arange(3, dtype=">i4")).tolist() == [0, 1, 2]


def test_constants_are_copies() -> None:
    array = np.zeros(3, np.float32)
    to_tensor(Weight("w", None, array)).add_(1)
    assert not array.any()


def test_text_is_refused() -> None:
    with pytest.raises(ModelError, match="constant 'w': PyTorch has no tensors of the type STRING"):
        to_tensor(Weight("w", None, np.array(["a"], object)))
    assert torch.float32 == dtype_of(TensorProto.FLOAT)
