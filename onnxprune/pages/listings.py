"""Tables that pages of single commands have, from the data that the command prints as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Listing", "listings", "options_text", "title"]

Document = Mapping[str, Any]

_DIGITS = 12
"""Of a hash, which tell files apart."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A table.

    Attributes:
        title: what it lists.
        columns: their names.
        numbers: those of them that hold numbers.
        rows: a text for each column.
    """

    title: str
    columns: tuple[str, ...]
    numbers: frozenset[str]
    rows: tuple[tuple[str, ...], ...]


def title(document: Document) -> str:
    """What a page is about: a model, and what became of it; or several models."""
    names = [row["label"] for row in document.get("rows") or () if "label" in row]
    names += [one["path"] for one in document.get("files") or ()]
    told = (document[key] for key in ("model", "store", "folder", "path") if document.get(key))
    model = next(told, ", ".join(dict.fromkeys(names)) or "onnxprune")
    ends = [model["file"] if isinstance(model, Mapping) else model, document.get("output") or document.get("pruned")]
    return " → ".join(filter(None, ends))


def listings(document: Document) -> list[Listing]:
    """The tables of the command that printed a document; those without rows are left out."""
    make = _OF.get(document.get("command", ""))
    return [one for one in make(document) if one.rows] if make else []


def _listing(name: str, columns: str, numbers: str, rows: Iterable[Sequence[Any]]) -> Listing:
    """A table whose columns are separated by commas; nothing stands for ``None``."""
    cells = tuple(tuple("" if cell is None else str(cell) for cell in row) for row in rows)
    return Listing(name, tuple(columns.split(", ")), frozenset(numbers.split(", ")), cells)


def _steps(document: Document) -> Iterator[Listing]:
    """What each step of a recipe came to."""
    if "bytes" not in document:  # it was only read
        rows = [(_step(step), options_text(step["options"])) for step in document["steps"]]
        yield _listing("Steps", "step, options", "", rows)
        return
    start = document["bytes"][0]
    done = [
        (
            _step(step),
            options_text(step["options"]),
            step["bytes"],
            f"{step['bytes'] / max(start, 1):.3f}",
            f"{step['score']['value']:.4f}" if step.get("score") else None,
            (step["report"].get("judgement") or {}).get("text"),
            "kept" if step["reused"] else f"{step['seconds']:.1f}",
        )
        for step in document["steps"]
    ]
    yield _listing("Steps", "step, options, bytes, ratio, score, accuracy, s", "bytes, ratio, score, s", done)


def _step(step: Mapping[str, Any]) -> str:
    """The name of a step, with what it does where that is not its name."""
    return str(step["name"]) if step["name"] == step["do"] else f"{step['name']} ({step['do']})"


def _timings(document: Document) -> Iterator[Listing]:
    """What was timed."""
    rows = [
        (
            row["label"],
            row["provider"],
            row["batch"],
            row["threads"],
            f"{row['latency']['median_ms']:.3g}",
            f"{row['latency']['q1_ms']:.3g} to {row['latency']['q3_ms']:.3g}",
            f"{row['ratio']['median']:.3f}" if row["ratio"] else None,
            f"{row['session_s']:.3f}",
            f"{row['peak_mib']:.0f}" if row["peak_mib"] is not None else None,
        )
        for row in document["rows"]
    ]
    columns = "model, provider, batch, threads, median ms, quartiles ms, ratio to first, load s, peak MiB"
    yield _listing("Timings", columns, "batch, threads, median ms, quartiles ms, ratio to first, load s, peak MiB", rows)


def _inspection(document: Document) -> Iterator[Listing]:
    """What is in a model, and what of it may go."""
    ends = [(kind, one) for kind in ("inputs", "outputs") for one in document[kind]]
    shapes = [(kind.removesuffix("s"), one["name"], one["type"], _shape(one["shape"])) for kind, one in ends]
    yield _listing("Inputs and outputs", "end, name, type, shape", "", shapes)
    groups = [(g["id"], g["kind"], g["size"], len(g["members"]), "yes" if g["exact"] else "no") for g in document["groups"]]
    yield _listing("Groups that can be pruned", "group, kind, positions, constants, exact", "positions, constants", groups)
    layers = [(one["node"], one["op"], one["macs"], one["params"], one["axes"]) for one in document["layers"]]
    yield _listing("Layers", "node, op, MACs, parameters, axes", "MACs, parameters", layers)


def _history(document: Document) -> Iterator[Listing]:
    """How a file came about."""
    rows = [
        (number, step["command"], options_text(step["options"]), step["source"][:_DIGITS] or "in memory", step["version"])
        for number, step in enumerate(document["steps"], 1)
    ]
    yield _listing("How it was made", "step, command, options, of the file with SHA-256, version", "step", rows)


def _files(document: Document) -> Iterator[Listing]:
    """What was looked at in a repository."""
    rows = [
        (one["path"], one["bytes"], None if one["zeros"] is None else f"{one['zeros']:.1%}", "; ".join(one["problems"]) or "good")
        for one in document["files"]
    ]
    yield _listing("Files", "file, bytes, zeros stored, found", "bytes, zeros stored", rows)


def _device(document: Document) -> Iterator[Listing]:
    """What another device must time, or what was timed on one."""
    counted = [
        (name.replace("_", " "), document[name])
        for name in ("layer_models", "whole_models", "models", "failed")
        if name in document
    ]
    yield _listing("Models that are timed", "which, count", "count", counted)


def options_text(options: Mapping[str, Any]) -> str:
    """Options in one line: ``target=macs=0.5, align=1``."""
    return ", ".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items())


def _shape(sizes: Sequence[Any] | None) -> str:
    return "unknown" if sizes is None else "x".join("?" if size is None else str(size) for size in sizes) or "scalar"


_OF: dict[str, Callable[[Document], Iterator[Listing]]] = {
    "run": _steps,
    "benchmark": _timings,
    "inspect": _inspection,
    "log": _history,
    "lint": _files,
    "latency": _device,
}
