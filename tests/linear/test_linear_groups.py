"""The groups that only linear maps touch; `test_rotation` tries their bases."""

from __future__ import annotations

import pytest

from nets import parse
from onnxprune.driver.prune import analyze
from onnxprune.linear.linear_groups import linear_groups


@pytest.mark.parametrize(("between", "sides"), [("Identity", {"w": False, "v": True}), ("Relu", None)])
def test_a_rectifier_between_is_not_linear(between: str, sides: dict[str, bool] | None) -> None:
    found = analyze(
        parse(f"""(float[N,4] x) => (float[N,4] y) <float[4,6] w, float[6,4] v> {{
  h = MatMul(x, w)
  a = {between}(h)
  y = MatMul(a, v)
}}""")
    )
    groups = linear_groups(found.model, found.coupling)
    assert [{name: second for (name, _), second in group.constants.items()} for group in groups] == ([sides] if sides else [])
