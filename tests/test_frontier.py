from __future__ import annotations

import numpy as np

from onnxprune.frontier import dtypes, frontier
from onnxprune.model import Model
from onnxprune.verify import compare
from onnxprune.weights import Weight
from test_coupling import parse

TEXT = """
(float[16, 2] x) => (int64[16, 1] choice, float[16, 2] score)
<float[2, {h}] a, float[{h}, 2] b> {{
  hidden = MatMul(x, a)
  score = MatMul(hidden, b)
  choice = ArgMax<axis = 1>(score)
}}
"""


def model(width: int, second: float) -> Model:
    """Two scores that are equal but for a factor; hidden units beyond the first two are masked."""
    a, b = np.zeros((2, width), np.float32), np.zeros((width, 2), np.float32)
    a[:, :2] = [[1, 2], [3, 4]]
    b[:2] = [[1, second], [1, second]]
    result = Model.of(parse(TEXT.format(h=width)))
    result.weights |= {name: Weight(name, None, value) for name, value in (("a", a), ("b", b))}
    return result


def test_what_goes_into_a_choice_and_what_lies_behind() -> None:
    found = frontier(model(4, 1), ["a"])
    assert found.entering == ("score",)
    assert found.behind == {"choice"}


def test_choices_that_do_not_depend_on_what_changed() -> None:
    assert frontier(model(4, 1), []).entering == ()


def test_a_choice_that_rounding_tips_is_compared_where_it_is_made() -> None:
    outcome = compare(model(2, 1 + 1e-6), model(4, 1))
    assert outcome.ok, outcome.text
    assert outcome.behind == 1


def test_a_choice_by_other_scores_is_caught() -> None:
    outcome = compare(model(2, 1.5), model(4, 1))
    assert not outcome.ok
    assert "'score'" in outcome.text


def test_types_of_constants_and_values() -> None:
    """What no operator set describes has none."""
    text = """(float[N,4] x) => (float[N,4] y) <float16[4] w, int8[2] i> {
      a = mine.Op(x)
      h = Cast<to = 10>(a)
      m = Mul(h, w)
      y = Cast<to = 1>(m)
    }"""
    found = dtypes(Model.of(parse(text, domains=["mine"])))
    assert {name: str(kind) for name, kind in found.items() if name != "a"} == {
        "x": "float32", "y": "float32", "h": "float16", "m": "float16", "w": "float16", "i": "int8"
    }  # fmt: skip
