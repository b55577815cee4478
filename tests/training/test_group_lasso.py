"""Norms of channels: every weight that goes with a channel counts, wherever it lies; and how they shrink."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from onnxprune.driver.prune import analyze
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning.criteria import SQUARE, GroupView, Magnitudes
from onnxprune.torch.module import to_module
from onnxprune.training import masks
from onnxprune.training.group_lasso import GroupNorms
from trainable import filled, graph

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"


def network() -> onnx.ModelProto:
    """Two convolutions side by side, concatenated, flattened to pixels and read by a matrix: axes that are sums and products."""
    return filled(
        "(float[N,2,4,4] x) => (float[N,3] y) "
        "{ a = Conv(x, u, p) b = Conv(x, v) c = Concat<axis=1>(a, b) r = Relu(c) f = Flatten(r) y = MatMul(f, w) }",
        u=(5, 2, 3, 3), p=(5,), v=(3, 2, 3, 3), w=(32, 3),
    )  # fmt: skip


def norms(source: onnx.ModelProto | Path) -> tuple[GroupNorms, Analysis]:
    found = analyze(source)
    return GroupNorms(to_module(found.model), found.coupling), found


def test_filters_and_slices_count() -> None:
    measured, _ = norms(network())
    w = {tensor.name: numpy_helper.to_array(tensor) for tensor in network().graph.initializer}
    reads = np.square(w["w"]).reshape(8, 4, 3).sum((1, 2))
    expected = [np.square(w["u"]).sum((1, 2, 3)) + reads[:5], np.square(w["v"]).sum((1, 2, 3)) + reads[5:]]
    assert measured.sizes == {"u:0": 5, "v:0": 3}
    assert measured.squared().numpy() == pytest.approx(np.concatenate(expected), rel=1e-5)


@pytest.mark.parametrize("source", ["digits.onnx", "digits__ts.onnx", "digits__bn.onnx"])
def test_it_is_what_the_criterion_measures_and_scales_of_normalisations(source: str) -> None:
    measured, found = norms(DIGITS.with_name(source))
    magnitudes, expected, normalised = Magnitudes(found.model, found.coupling), [], 0
    for group in found.coupling.groups:
        scales = [m.value for m in group.members if (m.op, m.position) == ("BatchNormalization", 1)]
        normalised += len(scales)
        counted = tuple(m for m in group.members if len(found.model.weights[m.value].shape) > 1 or m.value in scales)
        expected.append(GroupView(group, counted, magnitudes, found.coupling.axes, 0).total(counted, SQUARE))
    assert (normalised > 0) == ("bn" in source)
    assert list(measured.sizes) == [group.id for group in found.coupling.groups]
    assert measured.squared().numpy() == pytest.approx(np.concatenate(expected), rel=1e-4)


def test_the_weakest_shrinks_sixteen_times_as_fast_as_the_strongest() -> None:
    measured, _ = norms(network())
    own = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.5, 7.0, 7.0, 7.0])
    factors = measured.pull(own).tolist()
    assert factors == pytest.approx([16, 4, 1, 4, 2**3, 1, 1, 1])  # 2^(4 (3 - own) / 2); channels that are alike are alike


def test_weights_shrink_with_every_channel_they_go_with() -> None:
    found = analyze(network())
    module = to_module(found.model)
    measured = GroupNorms(module, found.coupling)
    before = {name: weight.detach().clone() for name, weight in module.weights().items()}
    a, b = torch.exp(-0.1 * measured.pull(measured.squared())).split([5, 3])
    measured.shrink(0.1)
    expected = {
        "u": a[:, None, None, None],
        "v": b[:, None, None, None],
        "w": torch.cat([a, b]).repeat_interleave(4)[:, None],
        "p": torch.ones(()),  # a bias is no part of what is scored
    }
    for name, weight in module.weights().items():
        assert torch.allclose(weight, before[name] * expected[name], rtol=1e-5), name


def test_a_weight_between_two_groups_shrinks_with_both() -> None:
    text = "(float[N,6] x) => (float[N,3] y) { a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) d = Relu(c) y = MatMul(d, w) }"
    found = analyze(filled(text, u=(6, 4), v=(4, 5), w=(5, 3)))
    module = to_module(found.model)
    measured = GroupNorms(module, found.coupling)
    a, b = torch.exp(-0.1 * measured.pull(measured.squared())).split([4, 5])
    before = module.value_of("v").detach().clone()
    measured.shrink(0.1)
    assert torch.allclose(module.value_of("v"), before * a[:, None] * b, rtol=1e-5)


def test_masked_weights_shrink_behind_their_masks() -> None:
    found = analyze(network())
    module = to_module(found.model)
    keep = torch.ones(5, 2, 3, 3, dtype=torch.bool)
    keep[0] = False
    masks.apply_masks(module, {"u": keep})
    before = module.value_of("u").detach().clone()
    GroupNorms(module, found.coupling).shrink(0.1)
    after = module.value_of("u").detach()
    assert (after[0] == 0).all()
    assert (after[1:].abs() < before[1:].abs()).all()


def test_without_groups_it_is_nothing() -> None:
    proto = graph("(float[N,6] x) => (float[N,6] y) { y = MatMul(x, u) }")
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(6, dtype=np.float32), "u"))
    measured, _ = norms(proto)
    assert (measured.sizes, len(measured.squared())) == ({}, 0)
    measured.shrink(1.0)
