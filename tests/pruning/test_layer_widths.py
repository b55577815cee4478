"""Groups by the names of the layers that output them."""

from __future__ import annotations

import pytest

from nets import NETS, parse
from onnxprune.axes.coupling import Coupling
from onnxprune.driver.prune import analyze
from onnxprune.errors import OptionError
from onnxprune.pruning.layer_widths import shares_of


def coupling(name: str) -> Coupling:
    proto = parse(NETS[name])
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type.lower()}_{number}"
    return analyze(proto).coupling


def test_a_layer_is_named_by_its_node_its_weight_or_the_group() -> None:
    found = coupling("residual")
    for name in ("conv_1", "w1", "w1:0", "?onv_1"):
        assert shares_of(found, [(name, 0.5)]) == {"w1:0": 0.5}


def test_what_a_layer_reads_is_not_its_own() -> None:
    with pytest.raises(OptionError, match="--layer 'w3': no layer of this name outputs channels that can be pruned"):
        shares_of(coupling("residual"), [("w3", 0.5)])


def test_layers_of_one_sum_have_one_width() -> None:
    found = coupling("residual")
    assert shares_of(found, [("w2", 0.5)]) == shares_of(found, [("w0", 0.5)]) == {"w0:0": 0.5}


def test_the_first_that_fits_counts() -> None:
    assert shares_of(coupling("residual"), [("w1", 0.25), ("*", 0.75)]) == {"w1:0": 0.25, "w0:0": 0.75}


def test_a_depthwise_layer_has_the_channels_that_it_reads() -> None:
    assert shares_of(coupling("depthwise"), [("dw", 0.5)]) == {"w1:0": 0.5}


def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(OptionError, match="did you mean 'conv_1'"):
        shares_of(coupling("residual"), [("conv_11", 0.5)])
