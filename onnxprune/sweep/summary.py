"""What came of a sweep, for people and machines: a row for each task, Pareto fronts, and the best result of each model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import TargetError
from onnxprune.options.gates import parse_drop, parse_share
from onnxprune.sweep.index import FILE, Index, Rows
from onnxprune.sweep.store import DONE, FAILED, Outcome, Store

if TYPE_CHECKING:
    from onnxprune.options.sweep import PickRecipe

__all__ = ["COSTS", "WAITING", "best", "counts", "marked", "outcome_row", "rows_of", "timed", "waiting_row"]

WAITING = "waiting"
"""The state of a task that nobody has finished."""
COSTS = {"latency": "latency_ratio", "size": "bytes_ratio", "macs": "macs_ratio", "params": "params_ratio"}
"""What a result may cost, with its column."""
_NUMBERS = (
    "score",
    "agreement",
    "drop",
    "latency_ms",
    "latency_ratio",
    "bytes",
    "bytes_ratio",
    "macs_ratio",
    "params_ratio",
    "seconds",
)
_PAIR = 2
_ROUNDING = 1e-9
"""By how much a score may be lower because it was rounded."""


def waiting_row(model: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """The row of a task that nobody has finished."""
    numbers = dict.fromkeys(_NUMBERS)
    told = {"error": "", "lasting": False, "report": "", "front": False}
    return {"model": model, "state": WAITING, "settings": dict(settings), **numbers, **told}


def outcome_row(outcome: Outcome, model: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """The row of a task that is done or failed; numbers that its step does not report are ``None``.

    The agreement is that of answers; where outputs are no scores of classes, it is their cosine with the original's.

    Args:
        outcome: what came of it.
        model: the file, as it is named in this sweep.
        settings: what differs between the tasks of the model.
    """
    told = {"state": outcome.state, "seconds": outcome.seconds, "error": outcome.error, "lasting": outcome.lasting}
    row = {**waiting_row(model, settings), **told}
    if outcome.state != DONE:
        return row
    report = outcome.report
    judged = _part(report, "judgement")
    score, drift = _part(judged, "score") or _part(report, "score"), _part(judged, "drift") or _part(report, "drift")
    before = _bytes_before(report)
    row |= {
        "score": _number(score.get("pruned")),
        "agreement": _number(drift.get("cosine" if drift.get("classes") == 0 else "agreement")),
        "bytes": outcome.nbytes,
        "bytes_ratio": outcome.nbytes / before if before else None,
        "report": f"results/{outcome.key[:2]}/{outcome.key}.json",
    }
    original = _number(score.get("original"))
    row["drop"] = None if original is None or row["score"] is None else original - row["score"]
    for name in ("macs", "params"):
        old, new = (_number(_part(report, side).get(name)) for side in ("before", "after"))
        row[f"{name}_ratio"] = new / old if old and new is not None else None
    return row


def _bytes_before(report: Mapping[str, Any]) -> float | None:
    """Bytes of the original: of steps that count costs, and of those that count bytes alone."""
    before = _number(_part(report, "before").get("size"))
    pair = report.get("size") or report.get("nbytes")
    if before is None and isinstance(pair, list) and len(pair) == _PAIR:
        return _number(pair[0])
    return before


def _part(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = report.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def timed(row: dict[str, Any], latency: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what was measured of the model, if anything was."""
    ms, ratio = _number(latency.get("ms")), _number(latency.get("ratio"))
    return row if ms is None else {**row, "latency_ms": ms, "latency_ratio": ratio}


def rows_of(store: Store) -> Rows:
    """The rows of a store: of its database, else of the files in it.

    Raises:
        OptionError: the store cannot be read.
    """
    rows = Index.read(store.own / FILE)
    if rows is None:
        rows = []
        for outcome in sorted(store.outcomes(), key=lambda one: (one.model, sorted(one.settings.items()))):
            row = {**outcome_row(outcome, outcome.model, outcome.settings), "key": outcome.key}
            rows.append(timed(row, store.latency(outcome.sha256) if outcome.sha256 else {}))
    return marked(rows)


def counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many tasks are done, failed and waiting."""
    found = dict.fromkeys((DONE, FAILED, WAITING), 0)
    for row in rows:
        found[row["state"]] += 1
    return found


def marked(rows: Rows) -> Rows:
    """The rows, with what is on the Pareto front of its model: no other is as good and cheaper, or better and as cheap.

    Good is a high score, or a high agreement where there is no score; cheap is a low latency where all of a model were timed,
    else few bytes, or MACs.
    """
    fronts: set[int] = set()
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row["state"] == DONE:
            groups.setdefault(row["model"], []).append(number)
    for group in groups.values():
        good, cheap = _measures([rows[number] for number in group])
        fronts |= _front(group, lambda number: (good(rows[number]), cheap(rows[number])))  # noqa: B023 - called at once
    return [{**row, "front": number in fronts} for number, row in enumerate(rows)]


Measure = Callable[[Mapping[str, Any]], float | None]


def _measures(rows: Rows) -> tuple[Measure, Measure]:
    """What is good and what is cheap, by what all of some rows have."""

    def every(*names: str) -> str:
        return next((name for name in names if all(row.get(name) is not None for row in rows)), names[-1])

    good, cheap = every("score", "agreement"), every("latency_ratio", "bytes_ratio", "macs_ratio")
    return lambda row: row.get(good), lambda row: row.get(cheap)


def _front(numbers: Iterable[int], of: Callable[[int], tuple[float | None, float | None]]) -> set[int]:
    known = [
        (cheap, -good, number) for number in numbers for good, cheap in [of(number)] if good is not None and cheap is not None
    ]
    front: set[int] = set()
    highest = float("inf")
    last: tuple[float, float] | None = None
    for cheap, negative, number in sorted(known):
        if negative < highest or (cheap, negative) == last:
            front.add(number)
            highest, last = negative, (cheap, negative)
    return front


def best(rows: Rows, recipe: PickRecipe) -> Rows:
    """The best result of each model that has one.

    Raises:
        TargetError: no result is as good as asked, or none was measured by what counts; says what is nearest.
    """
    column = COSTS[recipe.least]
    named = [row for row in rows if _is_named(row["model"], recipe.named)]
    done = [row for row in named if row["state"] == DONE]
    if not done:
        told = f"of {recipe.named!r} " if recipe.named else ""
        raise TargetError(f"no result {told}is done: {len(rows)} tasks are here; see sweep status")
    measured = [row for row in done if row[column] is not None]
    if not measured:
        remedy = ": run the sweep without --no-latency" if recipe.least == "latency" else ""
        raise TargetError(
            f"--min {recipe.least}: none of {len(done)} results has it{remedy}, or ask for the least of another one"
        )
    found: dict[str, dict[str, Any]] = {}
    for row in measured:
        if _holds(row, recipe):
            other = found.get(row["model"])
            if other is None or _rank(row, column) < _rank(other, column):
                found[row["model"]] = row
    if not found:
        raise TargetError(f"none of {len(measured)} results is as good as asked: {_nearest(measured)}")
    return list(found.values())


def _is_named(model: str, glob: str) -> bool:
    return not glob or any(fnmatchcase(text, glob) for text in (model, Path(model).name, Path(model).stem))


def _holds(row: Mapping[str, Any], recipe: PickRecipe) -> bool:
    drop, score, agreement = row["drop"], row["score"], row["agreement"]
    if recipe.max_drop and (drop is None or drop > parse_drop(recipe.max_drop) + _ROUNDING):
        return False
    if recipe.min_score and (score is None or score < parse_share(recipe.min_score, "--min-score", "")):
        return False
    least = recipe.min_agreement and parse_share(recipe.min_agreement, "--min-agreement", "")
    return not least or (agreement is not None and agreement >= least)


def _rank(row: Mapping[str, Any], column: str) -> tuple[float, float, float]:
    """What is best first: the cheapest; of equals the best."""
    return row[column], -(row["score"] or 0.0), -(row["agreement"] or 0.0)


def _nearest(rows: Rows) -> str:
    drops = [row["drop"] for row in rows if row["drop"] is not None]
    if drops:
        return f"the least drop is {min(drops):.2%}; allow more, or sweep over larger targets"
    agreements = [row["agreement"] for row in rows if row["agreement"] is not None]
    least = f"the best agreement is {max(agreements):.1%}" if agreements else "none was judged: give samples with --eval"
    return f"{least}; there is no score"
