"""The model card of a folder: a README as Hugging Face reads it, with the figures of the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from onnxprune.options.version import version
from onnxprune.pages.contents import cards, verdict

__all__ = ["card"]

_KEPT = ("license", "license_name", "license_link", "language", "pipeline_tag", "library_name", "datasets", "base_model")
"""Keys of the head of the original's card that hold for what is made of it."""
_TAGS = ("onnx", "onnxprune")
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
"""The name of a model on the hub."""


def card(
    document: Mapping[str, Any],
    name: str,
    source: str,
    *,
    origin: str = "",
    old: str = "",
    command: str = "",
    notes: Sequence[str] = (),
) -> str:
    """A model card in Markdown.

    Args:
        document: what a command prints with ``--json``.
        name: of the model.
        source: the file that it was made of.
        origin: where the original came from, which is its ``base_model`` if it is a name on the hub.
        old: the card of the original.
        command: that made the model; empty where there was none.
        notes: what else its user should know.
    """
    told = verdict(document)
    rows = [
        f"| {_cell(one.name)} | {_cell(one.before)} | {_cell(one.after)} | {'' if one.ratio is None else f'{one.ratio:.3f}'} |"
        for one in cards(document)
    ]
    surgery = [f"Surgery: {told.surgery}."] if told.surgery else []
    made = [f"Made of `{source}` by onnxprune {version()}{':' if command else '.'}", *([f"    {command}"] if command else [])]
    table = ["\n".join(["| | before | after | ratio |", "|---|--:|--:|--:|", *rows])] if rows else []
    parts = [
        f"# {name}",
        *made,
        f"{told.accuracy[:1].upper()}{told.accuracy[1:]}.",
        *table,
        *surgery,
        *(f"- {note}" for note in notes),
    ]
    return f"---\n{_head(origin, old)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _head(origin: str, old: str) -> str:
    """The head in YAML: what the original's says of license, language and task, and where the model came from."""
    blocks = _blocks(old)
    kept = [blocks[key] for key in _KEPT if key in blocks]
    if "base_model" not in blocks and _HUB.fullmatch(origin):
        kept.append(f"base_model: {origin}")
    tags = list(dict.fromkeys([*_listed(blocks.get("tags", "")), *_TAGS]))
    return "\n".join([*kept, "tags:", *(f"- {tag}" for tag in tags)])


def _blocks(old: str) -> dict[str, str]:
    """The keys of the head of a card, each with the lines that belong to it."""
    found = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", old, re.DOTALL)
    if not found:
        return {}
    parts = re.findall(r"^(\w+):(.*(?:\n(?:[ \t]+|- ).*)*)", found[1], re.MULTILINE)
    return {key: f"{key}:{rest}".rstrip() for key, rest in parts}


def _listed(block: str) -> list[str]:
    """The items of a list in YAML, in one line or in many."""
    inside = re.search(r"\[(.*)\]", block)
    return [word.strip() for word in inside[1].split(",")] if inside else re.findall(r"^\s*- *(.+?) *$", block, re.MULTILINE)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
