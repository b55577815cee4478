"""What became of a model on a few lines of text, as Python shows a result."""

from __future__ import annotations

from onnxprune.pages import contents
from onnxprune.pages.contents import Document

__all__ = ["brief"]


def brief(title: str, document: Document) -> str:
    """A title, accuracy, the numbers that matter and the proof: at most nine lines.

    Args:
        title: what is told of.
        document: what the command prints with ``--json``.
    """
    found = contents.verdict(document)
    cards = (f"{card.name} {card.before} -> {card.after}{_ratio(card.ratio)}" for card in contents.cards(document))
    lines = [f"{title} of {document['model']}", found.accuracy, *cards, found.surgery]
    return "\n  ".join(filter(None, lines))


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f" ({ratio:.2f} x)"
