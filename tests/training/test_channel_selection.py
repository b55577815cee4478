"""Channels chosen by scores of weights: all that goes with one goes, and what is asked of the whole model holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser

from onnxprune import TargetError, apply
from onnxprune.driver import prune
from onnxprune.driver.costs import price
from onnxprune.options.targets import Align
from onnxprune.torch.module import GraphModule, to_module
from onnxprune.training import masks
from onnxprune.training.channel_selection import ChannelSelection

SHAPES = {"u": (6, 2, 1, 1), "p": (6,), "v": (4, 2, 1, 1), "w": (3, 10, 1, 1), "s": (3, 3, 1, 1)}


def network(text: str = "", **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """Two convolutions side by side, concatenated, and read by a third; nothing can go of what is put out."""
    proto = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[N,2,4,4] x) => (float[N,3,4,4] y) {{ {text} }}'
        if text
        else '<ir_version: 10, opset_import: ["" : 21]> g (float[N,2,4,4] x) => (float[N,3,4,4] y) '
        "{ a = Conv(x, u, p) b = Conv(x, v) c = Concat<axis=1>(a, b) r = Relu(c) t = Conv(r, w) y = Conv(t, s) }"
    )
    rng = np.random.default_rng(0)
    for name, shape in (shapes or SHAPES).items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return proto


def selection(proto: onnx.ModelProto | None = None, **options: Any) -> tuple[ChannelSelection, GraphModule]:
    found = prune.analyze(proto or network())
    module = to_module(found.model)
    settings = {"metric": "params", "scope": "global", "align": Align(1), **options}
    return ChannelSelection(module, found.model, found.coupling, found.shapes.batch, **settings), module


def ranked(module: GraphModule) -> dict[str, torch.Tensor]:
    """Scores by which the later filters of each weight are worth more."""
    order = {"u": torch.tensor([1.0, 2, 3, 4, 5, 6]), "v": torch.tensor([1.0, 9, 9, 9])}
    scores = {"w": torch.zeros_like(module.value_of("w")), "s": torch.ones_like(module.value_of("s"))}
    return scores | {name: one[:, None, None, None].expand_as(module.value_of(name)) for name, one in order.items()}


def test_before_anything_is_chosen_everything_is_masked_without_a_zero() -> None:
    _, module = selection()
    known = masks.masks_of(module)
    assert known.keys() == {"u", "p", "v", "w", "s"}
    assert all(bool(keep.all()) for keep in known.values())


def test_all_that_goes_with_a_channel_goes() -> None:
    choose, module = selection()
    kept = choose(ranked(module), 0.25)
    u, v = (kept[name].reshape(kept[name].shape[0], -1) for name in ("u", "v"))
    assert torch.equal(kept["p"], u[:, 0])
    assert torch.equal(u[:, 0], u[:, 1])
    assert u[:, 0].tolist() == sorted(u[:, 0].tolist())  # the later are worth more
    assert v[:, 0].tolist() == [False, True, True, True]
    assert torch.equal(kept["w"].any(0).reshape(-1), torch.cat([u[:, 0], v[:, 0]]))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_the_share_of_the_metric_goes_and_the_plan_cuts_what_is_masked(share: float) -> None:
    choose, module = selection()
    masks.apply_masks(module, choose(ranked(module), share))
    found = prune.analyze(network())
    plan = choose.plan({name: module.value_of(name) for name in ("u", "v", "w", "s")})
    obtained = price(found, plan)[2]["params"]
    assert 1 - share - 0.2 <= obtained <= 1 - share
    small = apply(network(), plan)
    assert small.weights["w"].shape[1] == sum(int(masks.masks_of(module)[name].any((1, 2, 3)).sum()) for name in ("u", "v"))


def test_groups_may_be_left_whole() -> None:
    choose, module = selection(whole=("u:0",))
    kept = choose(ranked(module), 0.2)
    assert "u" not in kept
    assert "p" not in kept
    assert not all(bool(one.all()) for one in kept.values())


def test_uniform_takes_the_same_of_every_group() -> None:
    choose, module = selection(scope="uniform", metric="channels")
    kept = choose(ranked(module), 0.5)
    counts = {name: int(kept[name].any((1, 2, 3)).sum()) for name in ("u", "v")}
    assert counts == {"u": 3, "v": 2}


def test_where_no_channel_can_go_it_says_so() -> None:
    with pytest.raises(TargetError, match="no group of channels can be masked"):
        selection(network("y = Conv(x, u)", u=(3, 2, 1, 1)))
