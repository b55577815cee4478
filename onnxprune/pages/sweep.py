"""The page of a sweep: the Pareto front of each model, every run, and what failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.options.documents import strict
from onnxprune.options.version import version
from onnxprune.pages.page import drawing, renderer, templates

__all__ = ["COSTS", "QUALITIES", "Axis", "axes", "sweep_page"]

Row = Mapping[str, Any]
"""A run, see `sweep_page`."""

_LITTLE = 0.01
"""A drop of the score, or a share of other answers, that many users accept; the overview of the models has a column for it."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A number of a run that pictures have along an axis.

    Attributes:
        key: of the number in a row.
        name: as people say it.
    """

    key: str
    name: str


QUALITIES = (Axis("score", "score"), Axis("agreement", "agreement with the original"))
"""What should be high; the first that a sweep has is that of its fronts."""
COSTS = (
    Axis("latency_ratio", "latency"),
    Axis("bytes_ratio", "size of the file"),
    Axis("macs_ratio", "MACs"),
    Axis("params_ratio", "parameters"),
)
"""What should be low, each as a fraction of the original's; the first that a sweep has is that of its fronts."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table of runs: its heading, the key of its numbers, and how a number is written, for `format`."""

    name: str
    key: str
    form: str
    factor: float = 1.0

    def text(self, row: Row) -> str:
        value = row.get(self.key)
        return "" if value is None else format(self.factor * value, self.form)


_COLUMNS = (
    _Column("score", "score", ".1%"),
    _Column("drop, points", "drop", ".2f", 100),
    _Column("agreement", "agreement", ".1%"),
    _Column("ms", "latency_ms", ".3g"),
    _Column("latency", "latency_ratio", ".3f"),
    _Column("kB", "bytes", ".0f", 1e-3),
    _Column("size", "bytes_ratio", ".3f"),
    _Column("MACs", "macs_ratio", ".3f"),
    _Column("parameters", "params_ratio", ".3f"),
    _Column("seconds", "seconds", ".1f"),
)


@dataclass(frozen=True, slots=True)
class _Select:
    """A choice of the reader: the name of its element, what is written beside it, and what may be chosen, by value."""

    id: str
    label: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Overview:
    """A model: how its runs ended, and the one of least cost that loses little."""

    model: str
    runs: int
    failed: int
    front: int
    best: Row | None


def axes(rows: Sequence[Row], choices: Sequence[Axis]) -> list[Axis]:
    """Those of some axes that any run has a number for."""
    return [axis for axis in choices if any(_number(row, axis.key) is not None for row in rows)]


def sweep_page(rows: Sequence[Row], *, title: str, asked: Mapping[str, Any]) -> str:
    """All runs of a sweep as one HTML page, which loads nothing from elsewhere.

    Args:
        rows: a run each. ``model`` and ``key`` name it; ``state`` is "done", "failed", or how else it stands; ``settings`` are
            its options as text. ``score``, ``agreement`` and ``drop`` are fractions of 1; ``latency_ms`` is in milliseconds,
            ``bytes`` those of its file; ``latency_ratio``, ``bytes_ratio``, ``macs_ratio`` and ``params_ratio`` are fractions of
            the original's; ``seconds`` is what it took. Any of these may be ``None``. ``error`` says why it failed, ``report`` is
            the address of its report, from where the page is, or empty. ``front`` says that no other run of its model has a
            better first one of `QUALITIES` at the same or a lower first one of `COSTS`.
        title: of the page.
        asked: what the sweep was asked for, by name.
    """
    rows = [strict(row) for row in rows]
    named = [name for name, several in _settings(rows).items() if several]
    qualities, costs = axes(rows, QUALITIES), axes(rows, COSTS)
    picture = _fronts() if qualities and costs else None
    return (
        templates()
        .get_template("sweep.html")
        .render(
            document={"title": title, "asked": strict(asked), "rows": rows},
            verdict=_verdict(rows),
            models=_overviews(rows, costs),
            little=_LITTLE,
            named=named,
            columns=[column for column in _COLUMNS if any(row.get(column.key) is not None for row in rows)],
            reports=any(row["report"] for row in rows),
            failures=_failures(rows),
            seconds=sum(row["seconds"] or 0 for row in rows),
            costs=costs,
            selects=_selects(rows, qualities, costs),
            picture=picture,
            renderer=renderer(len(rows)),
            programs=drawing() if picture else "",
            version=version(),
        )
    )


def _number(row: Row, key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _settings(rows: Iterable[Row]) -> dict[str, bool]:
    """The options of the runs, each with whether it has several values."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row["settings"])
    return {name: len({row["settings"].get(name) for row in rows}) > 1 for name in names}


def _verdict(rows: Sequence[Row]) -> tuple[str, str]:
    """The colour of the band, and a sentence."""
    done, failed = (len([row for row in rows if row["state"] == state]) for state in ("done", "failed"))
    left = len(rows) - done - failed
    level = "bad" if rows and not done else "warn" if failed or left else "good"
    said = [f"{done} of {len(rows)} runs are done"]
    said += [f"{failed} failed"] if failed else []
    said += [f"{left} are left"] if left else []
    return level, ", ".join(said)


def _overviews(rows: Sequence[Row], costs: Sequence[Axis]) -> list[_Overview]:
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    return [
        _Overview(
            model,
            len(runs),
            len([row for row in runs if row["state"] == "failed"]),
            len([row for row in runs if row["front"]]),
            _best(runs, costs[0].key) if costs else None,
        )
        for model, runs in by_model.items()
    ]


def _best(runs: Iterable[Row], cost: str) -> Row | None:
    """The run of least cost among those that lose little."""
    good = [row for row in runs if row["state"] == "done" and _loss(row) <= _LITTLE and _number(row, cost) is not None]
    return min(good, key=lambda row: float(row[cost]), default=None)


def _loss(row: Row) -> float:
    """What a run lost: the drop of its score, or else the share of answers that are others."""
    drop, agreement = _number(row, "drop"), _number(row, "agreement")
    if drop is not None:
        return drop
    return math.inf if agreement is None else 1 - agreement


def _failures(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """The errors, the most frequent first, each with the runs that it ended."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["state"] == "failed":
            found.setdefault(row["error"] or "it said nothing", []).append(row)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _selects(rows: Iterable[Row], qualities: Sequence[Axis], costs: Sequence[Axis]) -> Iterator[_Select]:
    """What the reader may choose: which runs are shown, and what the picture has along its axes."""
    models = dict.fromkeys(row["model"] for row in rows)
    states = {"": "all runs", "front": "those on the front", "done": "those that are done", "failed": "those that failed"}
    if len(models) > 1:
        yield _Select("model", "model", {"": "all models", **{name: name for name in models}})
    yield _Select("show", "show", states)
    if qualities and costs:
        yield _Select("quality", "up", {axis.key: axis.name for axis in qualities})
        yield _Select("cost", "across", {axis.key: axis.name for axis in costs})


def _fronts() -> dict[str, Any]:
    from onnxprune.pages import charts

    return charts.fronts()
