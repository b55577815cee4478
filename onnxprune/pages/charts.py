"""The pictures of a page, as Vega-Lite: data with rules of drawing, which the page draws where it is opened.

Needs Altair, which is an extra.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import altair as alt

from onnxprune.pages.contents import Layer, Tried

__all__ = ["fronts", "latencies", "network", "search", "sensitivity", "shares"]

_WIDE = 40
"""Layers from which names no longer fit below the bars."""
_ROW = 22
"""Height of a row of names, in pixels."""
_BETTER = "!isValid(datum.before) || datum.quality > datum.before"
"""A run is on the front if it is better than all that cost less."""
_MARK = "#2f7fd1"
_GREY = "#9aa3af"


def network(layers: Sequence[Layer], unit: str) -> dict[str, Any]:
    """A bar for each layer in the order of the graph: what it had as an outline, what it has as a filled bar.

    Args:
        layers: of one kind.
        unit: what is counted.
    """
    rows = [{"place": place, "share": layer.after / max(layer.before, 1), **asdict(layer)} for place, layer in enumerate(layers)]
    few = len(layers) <= _WIDE
    named = alt.Axis(labelAngle=-60, labelLimit=110, title=None)
    name = named if few else alt.Axis(labels=False, ticks=False, title=f"{len(layers)} layers")
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("name:N", sort=None, axis=name),
        tooltip=[
            alt.Tooltip("name:N"),
            alt.Tooltip("kind:N"),
            alt.Tooltip("before:Q", title="was"),
            alt.Tooltip("after:Q", title="is"),
            alt.Tooltip("share:Q", format=".1%", title="left"),
            alt.Tooltip("note:N", title="also"),
        ],
    )
    was = base.mark_bar(fillOpacity=0.08, fill=_GREY, stroke=_GREY).encode(y=alt.Y("before:Q", title=unit))
    now = base.mark_bar(color=_MARK).encode(y="after:Q")
    return _finished(alt.layer(was, now), "Each layer in graph order: what it had as an outline, what is left filled.")


def search(points: Sequence[Tried]) -> dict[str, Any]:
    """Everything that was tried: its cost against its score; the chosen one is ringed."""
    base = alt.Chart(alt.InlineData(values=[asdict(point) for point in points])).encode(
        x=alt.X("cost:Q", title="latency, as a fraction of the original's", scale=alt.Scale(zero=False, padding=14)),
        y=alt.Y("score:Q", title="score", scale=alt.Scale(zero=False, padding=14)),
        tooltip=[
            alt.Tooltip("name:N", title="tried"),
            alt.Tooltip("cost:Q", format=".3f", title="latency"),
            alt.Tooltip("score:Q", format=".4f"),
            alt.Tooltip("holds:N", title="as asked for"),
        ],
    )
    dots = base.mark_circle(size=70).encode(
        color=alt.Color("holds:N", title="as asked for", scale=alt.Scale(domain=[True, False], range=[_MARK, _GREY]))
    )
    ring = base.transform_filter("datum.chosen").mark_point(size=260, strokeWidth=2, color="#d9822b")
    return _finished(alt.layer(dots, ring), "Latency against score of every model that was tried; the chosen one is ringed.")


def sensitivity(curves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far the outputs move when a group keeps less: a row for each group, a column for each share that was measured.

    Args:
        curves: groups as `sensitivity` prints them, with ``id``, ``size`` and ``measured``.
    """
    rows = [
        {"group": group["id"], "kept": f"{share:.0%}", "share": share, "divergence": one["divergence"]}
        for group in curves
        for one in group["measured"]
        for share in [one["kept"] / group["size"]]
    ]
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("kept:O", title="positions kept", sort=alt.SortField("share", "descending")),
            y=alt.Y("group:N", sort=None, title=None, axis=alt.Axis(labelLimit=320)),
            color=alt.Color("divergence:Q", title="divergence", scale=alt.Scale(type="symlog", scheme="blues")),
            tooltip=[alt.Tooltip("group:N"), alt.Tooltip("kept:N"), alt.Tooltip("divergence:Q", format=".4g")],
        )
    )
    return _finished(chart, "Divergence of the outputs by group and share of positions kept.", height=_ROW * len(curves))


def shares(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What part of the MACs and of the parameters each layer has, in the order of the graph.

    Args:
        layers: as `inspect` prints them, with ``node``, ``op``, ``macs`` and ``params``.
    """
    totals = {key: max(sum(layer[key] for layer in layers), 1) for key in ("macs", "params")}
    rows = [
        {"place": place, "node": layer["node"], "op": layer["op"], "of": name, "share": layer[key] / totals[key]}
        for place, layer in enumerate(layers)
        for key, name in (("macs", "MACs"), ("params", "parameters"))
    ]
    named = alt.Axis(labelAngle=-60, labelLimit=110, title=None)
    axis = named if len(layers) <= _WIDE else alt.Axis(labels=False, ticks=False, title=f"{len(layers)} layers")
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("node:N", sort=alt.SortField("place"), axis=axis),
            xOffset="of:N",
            y=alt.Y("share:Q", title="share of the model", axis=alt.Axis(format="%")),
            color=alt.Color("of:N", title=None, scale=alt.Scale(range=[_MARK, _GREY])),
            tooltip=[alt.Tooltip("node:N"), alt.Tooltip("op:N"), alt.Tooltip("of:N"), alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return _finished(chart, "The share of MACs and parameters that each layer has, in graph order.")


def latencies(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of each model that was timed as a bar, and the quartiles as a line on it.

    Args:
        rows: as `benchmark` prints them.
    """
    values = [
        {
            "model": row["label"],
            "setting": f"{row['provider']}, batch {row['batch']}, {row['threads']} thread{'s' * (row['threads'] != 1)}",
            **{key: row["latency"][key] for key in ("median_ms", "q1_ms", "q3_ms")},
        }
        for row in rows
    ]
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("model:N", sort=None, title=None, axis=alt.Axis(labelLimit=320)),
        yOffset=alt.YOffset("setting:N", sort=None),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("setting:N"),
            alt.Tooltip("median_ms:Q", title="median ms", format=".3g"),
            alt.Tooltip("q1_ms:Q", title="first quartile", format=".3g"),
            alt.Tooltip("q3_ms:Q", title="third quartile", format=".3g"),
        ],
    )
    bars = base.mark_bar().encode(x=alt.X("median_ms:Q", title="ms"), color=alt.Color("setting:N", title=None, sort=None))
    spread = base.mark_rule(strokeWidth=2, color=_GREY).encode(x="q1_ms:Q", x2="q3_ms:Q")
    return _finished(
        alt.layer(bars, spread), "The median latency of each model, with its quartiles.", height=_ROW * (len(rows) + 1)
    )


def fronts() -> dict[str, Any]:
    """Each run of a sweep as a point, and the Pareto front of each model as a line.

    The page puts the data, ``runs``, in: ``cost`` should be low and is a fraction of the original's, ``quality`` should be high
    and is a fraction of 1. It also puts their names where ``cost`` and ``quality`` are titles.
    """
    base = alt.Chart().encode(
        x=alt.X("cost:Q", title="cost", scale=alt.Scale(zero=False, padding=14)),
        y=alt.Y("quality:Q", title="quality", scale=alt.Scale(zero=False, padding=14), axis=alt.Axis(format="%")),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("what:N", title="settings"),
            alt.Tooltip("quality:Q", format=".2%", title="quality"),
            alt.Tooltip("cost:Q", format=".3f", title="cost"),
        ],
    )
    front = base.transform_filter(_BETTER).encode(color=alt.Color("model:N", legend=None))
    rest = base.transform_filter(f"!({_BETTER})").mark_circle(size=30, opacity=0.5, color=_GREY).encode(href="report:N")
    line = front.mark_line(interpolate="step-after", strokeWidth=1.5)
    dots = front.mark_circle(size=40, opacity=1).encode(href="report:N")
    by_cost: list[alt.SortField | dict[str, str]] = [alt.SortField("cost", "ascending"), alt.SortField("quality", "descending")]
    layers = (
        alt.layer(rest, line, dots, data=alt.NamedData("runs"))
        .transform_window(best="max(quality)", frame=[None, 0], groupby=["model"], sort=by_cost)
        .transform_window(before="lag(best)", groupby=["model"], sort=by_cost)
    )
    said = "Every run, cost against quality; a line joins the Pareto front of each model. The table below has the numbers."
    return _finished(layers, said, height=360)


def _finished(chart: alt.Chart | alt.LayerChart | alt.FacetChart, said: str, height: int = 260) -> dict[str, Any]:
    """The whole, as wide as the page, with a description for those who do not see it."""
    made = chart.properties(description=said, width="container", height=height).configure(
        background="transparent", font="system-ui"
    )
    return dict(made.to_dict())
