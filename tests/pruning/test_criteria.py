"""Criteria against the same definitions written as loops."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from onnx import numpy_helper

from nets import NETS, parse
from onnxprune.axes.coupling import CouplingGroup
from onnxprune.axes.factors import index
from onnxprune.driver.prune import analyze
from onnxprune.errors import ModelError, OptionError
from onnxprune.ir.weights import Array
from onnxprune.passes.analysis import Analysis
from onnxprune.pruning.criteria import score_groups

PLAIN = ["chain", "residual", "shuffle", "concat_split", "flatten", "attention"]
"""Nets of plain axes, axes with a group's digit first and in the middle, and sums."""


def weights_per_position(found: Analysis, group: CouplingGroup) -> Iterator[list[Array]]:
    """For each position the weights that go with it, one array for each matrix that the group runs along."""
    matrices = [m for m in group.members if len(found.model.weights[m.value].shape) > 1] or group.members
    for position in range(group.size):
        parts = []
        for member in matrices:
            axis = found.coupling.axes[member.value][member.axis]
            others = index(axis, {group.factor: np.array([p for p in range(group.size) if p != position], np.int64)})
            at = np.setdiff1d(np.arange(axis.size), others)
            parts.append(np.take(found.model.weights[member.value].array(), at, member.axis).astype(np.float64).ravel())
        yield parts


def by_loops(criterion: str, found: Analysis, group: CouplingGroup) -> Array:
    positions = list(weights_per_position(found, group))
    if criterion == "l1":
        scores = [sum(float(np.abs(part).sum()) for part in parts) for parts in positions]
    elif criterion == "l2":
        scores = [sum(float((part**2).sum()) for part in parts) ** 0.5 for parts in positions]
    elif criterion == "linf":
        scores = [max(float(np.abs(part).max()) for part in parts) for parts in positions]
    else:
        scores = [
            sum(float(np.linalg.norm(np.concatenate(mine) - np.concatenate(other))) for other in positions) for mine in positions
        ]
    return np.asarray(scores, np.float64) / float(np.mean(scores))


@pytest.mark.parametrize("net", PLAIN)
@pytest.mark.parametrize("criterion", ["l1", "l2", "linf", "fpgm"])
def test_values(net: str, criterion: str) -> None:
    found = analyze(parse(NETS[net]))
    scores = score_groups(found.model, found.coupling, criterion)
    for group in found.coupling.groups:
        expected = by_loops(criterion, found, group)
        rtol = 1e-3 if criterion == "fpgm" else 1e-5  # distances are square roots of differences of float32 sums
        np.testing.assert_allclose(scores[group.id], expected, rtol, err_msg=f"{net} {group.id}")


@pytest.mark.parametrize("criterion", ["l1", "l2", "linf", "fpgm", "random"])
def test_scores_have_a_mean_of_one(criterion: str) -> None:
    for net in NETS.values():
        found = analyze(parse(net))
        for name, scores in score_groups(found.model, found.coupling, criterion).items():
            assert scores.mean() == pytest.approx(1), name
            assert scores.dtype == np.float64


def test_dead_positions_score_lowest_and_a_dead_group_scores_zero() -> None:
    model = parse(NETS["residual"])
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name == "w1":
            array[3] = 0
        if tensor.name == "w2":
            array[:, 3] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    found = analyze(model)
    for criterion in ("l1", "l2", "linf"):
        scores = score_groups(found.model, found.coupling, criterion)["w1:0"]
        assert scores[3] == 0
        assert np.delete(scores, 3).min() > 0
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    found = analyze(model)
    assert not score_groups(found.model, found.coupling, "l2")["w1:0"].any()


def test_bn_scale_is_the_scale_where_there_is_one_and_l2_elsewhere() -> None:
    found = analyze(parse(NETS["chain"]))
    scores = score_groups(found.model, found.coupling, "bn_scale")
    scale = np.abs(found.model.weights["scale"].array())
    np.testing.assert_allclose(scores["w1:0"], scale / scale.mean(), rtol=1e-6)
    np.testing.assert_array_equal(scores["w2:0"], score_groups(found.model, found.coupling, "l2")["w2:0"])


def test_bn_scale_without_any_batch_normalisation() -> None:
    found = analyze(parse(NETS["residual"]))
    with pytest.raises(OptionError, match=r"'bn_scale' says nothing about <model>.*use --criterion l2"):
        score_groups(found.model, found.coupling, "bn_scale")


def test_random_is_seeded_and_differs_between_groups() -> None:
    found = analyze(parse(NETS["shuffle"]))
    one, again, other = (score_groups(found.model, found.coupling, "random", seed) for seed in (1, 1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
        assert not np.array_equal(one[name], other[name])
    assert not np.array_equal(one["g1:0.1"], one["g1:0.2"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("criterion", ["l1", "l2", "linf", "fpgm"])
def test_weights_that_are_not_finite(criterion: str, value: float) -> None:
    model = parse(NETS["residual"])
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "w2")
    array = numpy_helper.to_array(tensor).copy()
    array[1, 2, 0, 0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, "w2"))
    found = analyze(model)
    with pytest.raises(ModelError, match=r"initializer 'w2' of <model>, which node .* reads, has NaN .*--protect 'w2'"):
        score_groups(found.model, found.coupling, criterion)


def test_a_mask_with_infinite_entries_weighs_nothing() -> None:
    text = """(float[N,4] x, int64[N] i) => (float[N,3] y) <float[4,6] w, float[5,6] table, float[6,3] v> {
      a = MatMul(x, w) b = Gather(table, i) c = Add(a, b) d = Relu(c) y = MatMul(d, v)
    }"""
    model = parse(text)
    for tensor in model.graph.initializer:
        if tensor.name == "table":
            array = numpy_helper.to_array(tensor).copy()
            array[0] = -np.inf
            tensor.CopyFrom(numpy_helper.from_array(array, "table"))
            spoilt = numpy_helper.from_array(np.full_like(array, np.nan), "table")
    found = analyze(model)
    weights = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    expected = np.sqrt(np.square(weights["w"]).sum(0) + np.square(weights["v"]).sum(1))
    (scores,) = score_groups(found.model, found.coupling, "l2").values()
    np.testing.assert_allclose(scores, expected / expected.mean(), rtol=1e-6)
    for tensor in model.graph.initializer:
        if tensor.name == "table":
            tensor.CopyFrom(spoilt)
    found = analyze(model)
    with pytest.raises(ModelError, match="initializer 'table'"):
        score_groups(found.model, found.coupling, "l2")


def test_half_precision_does_not_overflow() -> None:
    model = parse(NETS["residual"].replace("float[", "float16["))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor) * np.float16(1000)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    found = analyze(model)
    assert all(np.isfinite(scores).all() for scores in score_groups(found.model, found.coupling, "l2").values())
