"""Sparse tensors of the standard."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from onnx import TensorProto, numpy_helper

from codec import BFLOAT16, Array, same, sparse
from onnxprune.ir.weights import densify
from onnxprune.sparse.encoding.coo import coo, coo_bytes


@given(sparse())
def test_it_is_read_back_bit_for_bit(array: Array) -> None:
    assert same(densify(coo("w", array)), array)


def test_it_is_what_the_specification_wants() -> None:
    array = np.zeros((3, 4), np.float32)
    array[0, 1], array[2, 3] = 5, -0.0
    tensor = coo("w", array)
    onnx.checker.check_sparse_tensor(tensor)
    assert tensor.values.name == "w"
    assert tensor.indices.data_type == TensorProto.INT64
    assert numpy_helper.to_array(tensor.indices).tolist() == [1, 11]
    assert list(tensor.dims) == [3, 4]
    assert coo_bytes(array) == 2 * 12


def test_bfloat16() -> None:
    array = np.array([[0, 1], [2, 0]], BFLOAT16)
    assert same(densify(coo("w", array)), array)
