"""Decoders as they are written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import parser

from codec import empty
from onnxprune.ir.model import Model
from onnxprune.sparse.encoding.decoder import Chain, pack, packed_bytes
from onnxprune.sparse.encoding.recognize import Decoders


@given(st.integers(1, 8), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_packed_codes_are_read_back(width: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << width, count)
    packed = pack(codes, width)
    assert sum(part.size for part in packed) == packed_bytes(count, width)
    if not count:
        return
    model = empty(kind="int32")
    chain = Chain(model)
    chain.summed(chain.codes(packed, width, count))
    chain.finish("w")
    model.graph.node.extend(chain.nodes)
    model.weights |= chain.weights
    assert Decoders(model).weights["w"].array().tolist() == np.cumsum(codes).tolist()


def test_small_constants_and_tables_are_shared() -> None:
    chain = Chain(empty(kind="int32"))
    assert chain.constant(3) == chain.constant(3)
    assert chain.constant(3) != chain.constant(3, np.int64)
    assert chain.sizes(1, 2) != chain.sizes(1, 2, 3)
    chain.codes(pack(np.arange(4), 2), 2, 4)
    before = len(chain.nodes)
    chain.codes(pack(np.arange(4), 2), 2, 4)
    assert len(chain.nodes) - before == 4


@pytest.mark.parametrize(("opset", "inputs"), [(11, 1), (12, 1), (13, 2), (21, 2)])
def test_sizes_of_a_split_are_where_the_operator_set_wants_them(opset: int, inputs: int) -> None:
    chain = Chain(empty(opset, "int32"))
    assert chain.pieces("row", [5]) == ["row"]
    assert len(chain.pieces("row", [2, 3])) == 2
    assert len(chain.nodes[-1].input) == inputs


def test_names_of_the_model_are_not_taken() -> None:
    model = Model.of(
        parser.parse_model('<ir_version: 8, opset_import: ["" : 13]> g (float[2] sp0) => (float[2] y) { y = Neg(sp0) }')
    )
    assert Chain(model).payload(np.zeros(1)) != "sp0"
