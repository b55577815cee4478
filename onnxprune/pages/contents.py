"""What a page tells of a command, from the data that the command prints as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Card",
    "Layer",
    "Tried",
    "Verdict",
    "cards",
    "changed",
    "concludes",
    "ends",
    "layers",
    "listed",
    "outputs",
    "tried",
    "verdict",
    "whole",
]

Document = Mapping[str, Any]
"""What a command prints with ``--json``."""

_LEVELS = {"good": "good", "worse": "warn", "collapsed": "bad", "unknown": "warn"}
"""The colour of the band, by how good a result is (`onnxprune.driver.judgement.Level`)."""
_COSTS = ("latency", "size", "macs", "params")
"""In the order of the cards."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first line of a page.

    Attributes:
        level: ``good``, ``warn`` or ``bad``.
        accuracy: what became of it, in a sentence.
        surgery: what was proven, in a sentence; empty where nothing was.
    """

    level: str
    accuracy: str
    surgery: str


@dataclass(frozen=True, slots=True)
class Card:
    """A number that matters, before and after.

    Attributes:
        name: of what.
        before: of the original, with its unit.
        after: of the result.
        ratio: the one by the other; ``None`` where that says nothing.
        note: what else is to be known of it.
        value: of the result, as a number.
    """

    name: str
    before: str
    after: str
    ratio: float | None = None
    note: str = ""
    value: float = math.nan


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer in the picture of the network.

    Attributes:
        name: its group or weight.
        kind: which of these it is.
        before: its width, or how many weights it has.
        after: what is left of that.
        note: what else is shown when it is pointed at.
    """

    name: str
    kind: str
    before: int
    after: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """A model that a search made.

    Attributes:
        name: what was mixed, or the target.
        cost: as a fraction of the original's.
        score: how good it is.
        chosen: whether it is the one that was written.
        holds: whether it is within what was asked for.
    """

    name: str
    cost: float
    score: float
    chosen: bool
    holds: bool


def whole(document: Document) -> Document:
    """A document as single commands print them: what the steps of a recipe found is put together."""
    reports = [step["report"] for step in document.get("steps") or () if "report" in step]
    if not reports:
        return document
    last = {key: one[key] for one in reports for key in ("groups", "layers", "benchmark", "tried") if one.get(key)}
    final = document["steps"][-1]
    if final["do"] == "benchmark":  # an earlier one timed another model than the result
        last["benchmark"] = final["report"]
    notes = [f"{step['name']}: {note}" for step in document["steps"] for note in step["report"].get("notes") or ()]
    return {**last, **ends(document), **document, "size": document["bytes"], "notes": [*document.get("notes", ()), *notes]}


def ends(document: Document) -> dict[str, dict[str, int]]:
    """What a recipe began with costs, and what it ended with; nothing where no step counted."""
    reports = [step["report"] for step in document["steps"]]
    first, last = ([one[key] for one in reports if one.get(key)] for key in ("before", "after"))
    if not first or not last:
        return {}
    sizes = [{"size": size} for size in document["bytes"]]
    return {"before": {**first[0], **sizes[0]}, "after": {**last[-1], **sizes[1]}}


def concludes(document: Document) -> bool:
    """Whether a command failed, made something or proved something, so that there is a verdict."""
    return any(document.get(key) for key in ("failure", "judgement", "output")) or _check(document) is not None


def verdict(document: Document) -> Verdict:
    """How it ended: accuracy first, the proof apart from it."""
    if failed := document.get("failure"):
        return Verdict("bad", failed["message"], "")
    check, judged = _check(document), document.get("judgement")
    surgery = "" if check is None else f"{'exact' if check['ok'] else 'WRONG'}: {_tested(check)}"
    level, accuracy = (_LEVELS[judged["level"]], judged["text"]) if judged else ("warn", "accuracy was not measured")
    if document.get("command") == "verify":
        tested = all(one["verdict"] != "not tested" for one in document["outputs"])
        level, accuracy = "good" if tested else "warn", "the model is what the plan makes of the original"
    return Verdict("bad" if check is not None and not check["ok"] else level, accuracy, surgery)


def cards(document: Document) -> Iterator[Card]:
    """Accuracy, latency, size, MACs and parameters, as far as they are known."""
    judged = document.get("judgement") or {}
    if score := judged.get("score") or document.get("score"):
        unit = f"{score['metric']}, {score['samples']} samples" if "samples" in score else score["metric"]
        yield Card("accuracy", f"{score['original']:.1%}", f"{score['pruned']:.1%}", note=unit, value=score["pruned"])
    elif drift := judged.get("drift") or document.get("drift"):
        where = f"{drift['samples']} samples, {drift['source']}"
        if drift["classes"]:
            share = drift["agreement"]
            yield Card("same answer as the original", "100%", f"{share:.1%}", note=where, value=share)
        else:
            yield Card("cosine with the original", "1", f"{drift['cosine']:.3f}", note=where, value=drift["cosine"])
    costs = dict(_costs(document))
    yield from (costs[key] for key in _COSTS if key in costs)


def _costs(document: Document) -> Iterator[tuple[str, Card]]:
    rows = (document.get("benchmark") or {}).get("rows") or []
    if len(rows) > 1 and rows[1]["ratio"]:
        ratio, (old, new) = rows[1]["ratio"], (row["latency"] for row in rows[:2])
        spread = f"{ratio['q1']:.2f} to {ratio['q3']:.2f} in half of {new['rounds']} rounds"
        was, now = (f"{one['median_ms']:.3g} ms" for one in (old, new))
        yield "latency", Card("latency", was, now, ratio["median"], spread, new["median_ms"])
    elif isinstance(told := document.get("predicted"), Mapping):
        was, now = (f"{told[key]:.3g} ms" for key in ("before_ms", "after_ms"))
        where = f"predicted for {told['machine']['cpu']}, not measured here"
        yield "latency", Card("latency", was, now, told["ratio"], where, told["after_ms"])
    elif isinstance(latency := document.get("latency"), float):
        yield "latency", Card("share of the latency", "1", f"{latency:.2f}", latency, value=latency)
    before, after = document.get("before") or {}, document.get("after") or {}
    for key, name in (("macs", "MACs"), ("params", "parameters")):
        if key in before:
            yield key, _card(name, before[key], after[key], "")
    for size in (document.get("nbytes"), document.get("size"), [one["size"] for one in (before, after) if "size" in one]):
        if isinstance(size, list | tuple) and size:  # of `optimize` it is a fraction
            yield "size", _card("file", size[0], size[1], "B")


def _card(name: str, before: float, after: float, unit: str) -> Card:
    was, now = (f"{_quantity(value)}{unit}".strip() for value in (before, after))
    return Card(name, was, now, after / before if before else None, value=after)


def _quantity(value: float) -> str:
    """With three digits and a prefix: ``1.95 M``."""
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "


def listed(document: Document, key: str) -> list[Mapping[str, Any]]:
    """The entries under a key; none where a command says there only how many there are."""
    found = document.get(key)
    return found if isinstance(found, list) else []


def layers(document: Document) -> list[Layer]:
    """The network from its first layer to its last: groups with their widths, or weights with those that are not zero."""
    groups = [group for group in listed(document, "groups") if "kept" in group]
    weights = [layer for layer in listed(document, "layers") if "kept" in layer]
    return [
        *(Layer(one["id"], "group", one["size"], one["kept"], f"{one['members']} tensors") for one in groups),
        *(Layer(one["weight"], "weight", one["size"], one["kept"], f"{_zeros(one):.1%} zeros") for one in weights),
    ]


def _zeros(layer: Mapping[str, Any]) -> float:
    kept, size = int(layer["kept"]), int(layer["size"])
    return 1 - kept / max(size, 1)


def tried(document: Document) -> list[Tried]:
    """Every model that was made in search of the best one."""
    found = [one for one in document.get("tried") or () if "latency" in one]
    return [Tried(one["mixture"], one["latency"], one["score"], one["chosen"], one["holds"]) for one in found]


def outputs(document: Document) -> list[Mapping[str, str]]:
    """Each output of the model, with the verdict of the proof."""
    check = _check(document)
    return list(check["outputs"]) if check else []


def changed(document: Document) -> list[Mapping[str, Any]]:
    """The first samples that get another answer than the original's."""
    judged = document.get("judgement") or {}
    return list((judged.get("drift") or document.get("drift") or {}).get("changed") or ())


def _check(document: Document) -> Any:
    """The proof: of the whole; or of levers or steps, one that failed, or the one with the largest difference."""
    if document.get("command") == "verify":
        return document
    if check := document.get("verification"):
        return check
    checks = [lever["check"] for lever in document.get("levers") or () if lever.get("check")]
    reports = [step["report"] for step in document.get("steps") or () if "report" in step]
    checks += [report["verification"] for report in reports if report.get("verification")]
    return max(checks, key=lambda check: (not check["ok"], check["error"]), default=None)


def _tested(check: Mapping[str, Any]) -> str:
    if not check["ok"]:
        return str(check["text"])
    verdicts = [output["verdict"] for output in check["outputs"]]
    tested = len([one for one in verdicts if one != "not tested"])
    return f"{tested} of {len(verdicts)} outputs tested on {check['runs']} input sizes, largest difference {check['error']:.1e}"
