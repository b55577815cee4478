"""Which layers may be sparse."""

from __future__ import annotations

import numpy as np
import pytest

from nets import parse
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes import Couple, Normalize
from onnxprune.sparse.layers import find_layers
from onnxprune.sparse.patterns import NofM
from sparse_nets import layers


def test_matrices_are_layers_and_the_ends_are_marked() -> None:
    assert [(layer.name, layer.end) for layer in layers()[1]] == [
        ("first", True), ("inner", False), ("depth", False), ("skip", False), ("last", True),
    ]  # fmt: skip


def test_protected_layers_are_left_out() -> None:
    assert [layer.name for layer in layers("*r*", "skip")[1]] == ["depth", "last"]
    with pytest.raises(OptionError, match="nothing can be sparse: all 5 layers are protected"):
        layers("*")


def test_a_model_without_layers_says_so() -> None:
    found = Couple().run(Normalize().run(Model.of(parse("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"))))
    with pytest.raises(OptionError, match="there is no layer with a constant weight of its own"):
        find_layers(found.model, found.coupling)


def test_weights_are_seen_by_channel_tap_and_output() -> None:
    model, (first, _, depth, _, last) = layers()
    w = model.weights["first"].array()
    assert np.array_equal(first.array(model), w.reshape(8, 4, 9).transpose(1, 2, 0)[None])
    assert depth.array(model).shape == (8, 1, 9, 1)
    assert last.array(model).shape == (1, 8, 1, 10)


def test_patterns_are_looked_at_as_hardware_does() -> None:
    """Four input channels, at each tap and output by itself."""
    model, (_, inner, *_) = layers()
    w = np.ones((8, 8, 3, 3), np.float32)
    w[:, ::2] = 0
    model.weights["inner"] = Weight("inner", None, w)
    assert inner.obeys(model, NofM(2, 4))
    assert inner.zeros(model) == 288
    w[5, 2, 1, 1] = 1
    assert not inner.obeys(model, NofM(2, 4))
