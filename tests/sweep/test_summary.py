"""Rows, fronts, and what is best."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import TargetError
from onnxprune.options.sweep import PickRecipe
from onnxprune.sweep.index import Rows
from onnxprune.sweep.store import DONE, FAILED, Outcome, Store
from onnxprune.sweep.summary import best, counts, marked, outcome_row, rows_of, timed, waiting_row

PRUNED = {
    "before": {"macs": 100, "params": 50, "size": 1000},
    "after": {"macs": 40, "params": 25, "size": 420},
    "score": None,
    "drift": None,
    "judgement": {"score": {"original": 0.99, "pruned": 0.98, "metric": "top1"}, "drift": {"agreement": 0.97}},
}
QUANTIZED = {"size": [1000, 300], "score": {"original": 0.99, "pruned": 0.985}, "judgement": None, "drift": {"agreement": 1}}
OPTIMIZED = {"nbytes": [1000, 300], "latency": 0.25, "score": {"original": 0.9, "pruned": 0.9}}


def outcome(report: dict[str, Any], **given: Any) -> Outcome:
    return Outcome(**{"key": "ab" * 32, "state": DONE, "report": report, "nbytes": 400, "seconds": 2.0, **given})


def row_of(report: dict[str, Any], **given: Any) -> dict[str, Any]:
    return outcome_row(outcome(report, **given), "m.onnx", {"target": "macs=0.5"})


def test_a_row_has_what_the_step_reports() -> None:
    row = row_of(PRUNED)
    assert row["drop"] == pytest.approx(0.01)
    assert row == {
        **waiting_row("m.onnx", {"target": "macs=0.5"}),
        "state": DONE,
        "score": 0.98,
        "agreement": 0.97,
        "drop": row["drop"],
        "bytes": 400,
        "bytes_ratio": 0.4,
        "macs_ratio": 0.4,
        "params_ratio": 0.5,
        "seconds": 2.0,
        "report": f"results/ab/{'ab' * 32}.json",
    }
    quantized = row_of(QUANTIZED)
    assert (quantized["score"], quantized["agreement"], quantized["bytes_ratio"], quantized["macs_ratio"]) == (
        0.985,
        1,
        0.4,
        None,
    )
    assert row_of(OPTIMIZED)["bytes_ratio"] == 0.4
    for classes, expected in ((10, 0.2), (0, 0.9)):  # the largest of some numbers is an answer only where they are scores
        assert row_of({"drift": {"agreement": 0.2, "cosine": 0.9, "classes": classes}})["agreement"] == expected
    assert row_of({"before": [], "score": "x", "size": "1000", "judgement": {"drift": {"agreement": True}}})["agreement"] is None
    failed = row_of({}, state=FAILED, error="no", lasting=True)
    assert (failed["error"], failed["lasting"], failed["report"], failed["seconds"]) == ("no", True, "", 2.0)
    assert timed(row, {"ms": 1.5, "ratio": 0.5})["latency_ratio"] == 0.5
    assert timed(row, {"ms": "x"}) == row


def row(model: str, **given: Any) -> dict[str, Any]:
    found = {**waiting_row(model, {"n": str(given)}), "state": DONE, "key": f"{model}{sorted(given.items())}", **given}
    if found["score"] is not None:
        found["drop"] = 1 - found["score"]
    return found


POINTS = [(0.9, 0.5), (0.8, 0.5), (0.95, 0.7), (0.95, 0.8), (0.7, 0.3), (0.7, 0.3), (0.6, 0.9)]


def test_nothing_on_the_front_is_beaten() -> None:
    for order in list(permutations(POINTS))[::500]:
        rows = [row("a", score=score, latency_ratio=cost) for score, cost in order]
        front = {(one["score"], one["latency_ratio"]) for one in marked(rows) if one["front"]}
        assert front == {(0.9, 0.5), (0.95, 0.7), (0.7, 0.3)}
        assert sum(one["front"] for one in marked(rows)) == 4  # both of two equals


def test_each_model_has_a_front_of_what_all_its_rows_have() -> None:
    rows: Rows = [
        row("a", score=0.9, latency_ratio=0.5, macs_ratio=0.9),
        row("a", score=0.8, latency_ratio=None, macs_ratio=0.5),
        row("a", score=0.8, latency_ratio=0.1, macs_ratio=0.95),
        row("b", agreement=0.5, macs_ratio=0.9),
        row("b", agreement=0.4, macs_ratio=0.9),
        row("c"),
        {**row("a", score=1.0, macs_ratio=0.1), "state": FAILED},
    ]
    assert [one["front"] for one in marked(rows)] == [True, True, False, True, False, False, False]
    assert counts(rows) == {"done": 6, "failed": 1, "waiting": 0}


ROWS: Rows = [
    row("m/a.onnx", score=0.99, latency_ratio=0.8, bytes_ratio=0.7),
    row("m/a.onnx", score=0.985, latency_ratio=0.6, bytes_ratio=0.9),
    row("m/a.onnx", score=0.5, latency_ratio=0.1, bytes_ratio=0.1),
    row("m/b.onnx", score=0.995, latency_ratio=0.9, bytes_ratio=0.5),
]


def test_the_best_is_the_cheapest_that_is_good_enough() -> None:
    assert best(ROWS, PickRecipe(max_drop="2%")) == [ROWS[1], ROWS[3]]
    assert best(ROWS, PickRecipe(max_drop="1.5%", least="size")) == [ROWS[0], ROWS[3]]
    assert best(ROWS, PickRecipe(max_drop="1%", named="b")) == [ROWS[3]]
    assert best(ROWS, PickRecipe(named="m/a*")) == [ROWS[2]]
    assert best(ROWS, PickRecipe(min_score="0.99")) == [ROWS[0], ROWS[3]]


@pytest.mark.parametrize(
    ("rows", "given", "words"),
    [
        (ROWS, {"max_drop": "0.1%"}, "none of 4 results is as good as asked: the least drop is 0.50%"),
        (ROWS, {"min_agreement": "50%"}, "none of 4 results is as good as asked"),
        (ROWS, {"named": "c"}, "no result of 'c' is done"),
        (ROWS, {"least": "macs"}, "--min macs: none of 4 results has it"),
        (
            [row("a", agreement=0.9, bytes_ratio=1)],
            {"max_drop": "1%", "least": "size"},
            "best agreement is 90.0%; there is no score",
        ),
        ([row("a", score=1, bytes_ratio=1)], {}, "run the sweep without --no-latency"),
        ([], {}, "no result is done"),
    ],
)
def test_where_none_is_it_says_what_there_is(rows: Rows, given: dict[str, str], words: str) -> None:
    with pytest.raises(TargetError, match=words):
        best(rows, PickRecipe(**given))


def test_rows_are_made_of_files_where_the_database_is_lost(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for key, share in (("ab" * 32, "0.5"), ("cd" * 32, "0.4")):
        settings = {"target": f"macs={share}"}
        store.publish(outcome(PRUNED, key=key, model="m.onnx", settings=settings, sha256=key))
    store.put_latency("ab" * 32, {"ms": 1.0, "ratio": 0.5})
    rows = rows_of(store)
    assert [(one["key"][:2], one["settings"]["target"], one["latency_ratio"]) for one in rows] == [
        ("cd", "macs=0.4", None),
        ("ab", "macs=0.5", 0.5),
    ]
