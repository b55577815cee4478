"""Loops that no user waits for are refused; those that a condition ends are not."""

from __future__ import annotations

import re

import pytest

from nets import parse
from onnxprune import ModelError
from onnxprune.ir.model import Model

HUGE = 2**63 - 1
PASSED = "d = Identity(c)"
COMPUTED = "s = ReduceSum<keepdims = 0>(v) z = Constant<value_float: float = 0.0>() d = Less(s, z)"
TRUE = "d = Constant<value = bool {1}>()"


def net(*, count: str = "m", condition: str = '""', body: str = PASSED, m: int = HUGE) -> Model:
    return Model.of(
        parse(f"""(float[N,4] x, bool go) => (float[N,4] y) <int64 m = {{{m}}}, bool yes = {{1}}> {{
          k = Constant<value = int64 {{{m}}}>()
          [loop] y = Loop({count}, {condition}, x) <body = b (int64 i, bool c, float[N,4] v) => (bool d, float[N,4] w) {{
            {body} w = Tanh(v)
          }}>
        }}""")
    )


@pytest.mark.parametrize("count", ["m", "k"])
@pytest.mark.parametrize("condition", ['""', "yes"])
@pytest.mark.parametrize("body", [PASSED, TRUE, "e = Cast<to = 9>(c) d = Identity(e)"])
def test_a_loop_that_nothing_ends_is_refused(count: str, condition: str, body: str) -> None:
    with pytest.raises(ModelError, match=re.escape(f"Loop node 'loop' runs {HUGE} times, and nothing in its body ends it")):
        net(count=count, condition=condition, body=body)


def test_a_loop_without_a_number_is_refused() -> None:
    with pytest.raises(ModelError, match="Loop node 'loop' runs without end"):
        net(count='""')


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
