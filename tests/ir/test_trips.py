"""Loops that no user waits for are refused; those that a condition ends are not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from nets import parse
from onnxprune import ModelError
from onnxprune.ir.model import Model
from onnxprune.ir.trips import demand_ends

HUGE = 2**63 - 1
PASSED = "d = Identity(c)"
COMPUTED = "s = ReduceSum<keepdims = 0>(v) z = Constant<value_float: float = 0.0>() d = Less(s, z)"
TRUE = "d = Constant<value = bool {1}>()"


TEXT = """(float[N,4] x, bool go) => (float[N,4] y) <int64 m = {{{m}}}, bool yes = {{1}}> {{
  k = Constant<value = int64 {{{m}}}>()
  [loop] y = Loop({count}, {condition}, x) <body = b (int64 i, bool c, float[N,4] v) => (bool d, float[N,4] w) {{
    {body} w = Tanh(v)
  }}>
}}"""


def net(*, count: str = "m", condition: str = '""', body: str = PASSED, m: int = HUGE) -> Model:
    return Model.of(parse(TEXT.format(m=m, count=count, condition=condition, body=body)))


@pytest.mark.parametrize("count", ["m", "k"])
@pytest.mark.parametrize("condition", ['""', "yes"])
@pytest.mark.parametrize("body", [PASSED, TRUE, "e = Cast<to = 9>(c) d = Identity(e)"])
def test_a_loop_that_nothing_ends_is_refused(count: str, condition: str, body: str) -> None:
    with pytest.raises(ModelError, match=re.escape(f"Loop node 'loop' runs {HUGE} times, and nothing in its body ends it")):
        net(count=count, condition=condition, body=body)


@pytest.mark.parametrize(
    "made", ["n = Identity(m)", f"n = Constant<value_int: int = {HUGE}>()", "e = Cast<to = 7>(m) n = Identity(e)"]
)
def test_a_number_that_nodes_pass_on_is_seen(made: str) -> None:
    text = TEXT.format(m=HUGE, count="n", condition='""', body=PASSED).replace("[loop]", f"{made} [loop]")
    with pytest.raises(ModelError, match=f"runs {HUGE} times"):
        Model.of(parse(text))


def test_a_number_beside_the_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = parse(TEXT.format(m=HUGE, count="m", condition='""', body=PASSED))
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(HUGE), "m"))
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert onnx.load(path, load_external_data=False).graph.initializer[0].data_location == onnx.TensorProto.EXTERNAL
    with pytest.raises(ModelError, match=f"runs {HUGE} times"):
        Model.of(path)


def test_a_loop_without_a_number_is_refused() -> None:
    with pytest.raises(ModelError, match="Loop node 'loop' runs without end"):
        net(count='""')


@pytest.mark.parametrize("body", ["d = Identity(e) e = Identity(d)", "d = Cast<to = 9>(d)"])
def test_a_condition_in_a_circle_ends_the_search(body: str) -> None:
    text = TEXT.format(m=HUGE, count="m", condition='""', body=body)
    demand_ends(parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> g {text}').graph)  # whoever sorts it refuses it


@pytest.mark.parametrize(
    "count", [np.array(np.nan, np.float32), np.array(1e30), np.array("many", object), np.array([HUGE, HUGE])], ids=str
)
def test_what_is_no_whole_number_says_nothing(count: np.ndarray) -> None:
    proto = parse(TEXT.format(m=1, count="m", condition='""', body=PASSED))
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(count, "m"))
    demand_ends(proto.graph)


@pytest.mark.parametrize(
    "given",
    [
        {"body": COMPUTED},
        {"condition": "go"},  # the caller may say that it never runs
        {"m": 10**9},
        {"count": '""', "condition": "go"},
        {"count": '""', "body": COMPUTED},
    ],
    ids=str,
)
def test_what_may_end_passes(given: dict[str, str]) -> None:
    assert net(**given).graph.node  # type: ignore[arg-type]
