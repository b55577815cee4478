"""Two models, or what two commands printed with ``--json``, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from onnxprune.driver.prune import analyze, describe
from onnxprune.errors import OptionError
from onnxprune.ir.history import made
from onnxprune.options.documents import absent, load_json
from onnxprune.pages import contents

__all__ = ["Comparison", "Difference", "Row", "compare"]


@dataclass(frozen=True, slots=True)
class Row:
    """A number of both, as it is shown.

    Attributes:
        name: what it is.
        first: of the first one; empty where it is not known.
        second: of the second one.
        ratio: the second by the first; ``None`` where that says nothing.
        values: both, as numbers.
    """

    name: str
    first: str
    second: str
    ratio: float | None
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A layer that differs.

    Attributes:
        name: its group, weight or node.
        first: how wide it is, or how many parameters it has, in the first one; ``None`` where it is not there.
        second: in the second one.
    """

    name: str
    first: int | None
    second: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results beside each other.

    Attributes:
        names: their files.
        recipes: how each was made, in words.
        verdicts: what is known of the accuracy of each; empty where nothing is.
        rows: the numbers that matter.
        layers: layers that differ, in the order of the first one; then those that only the second one has.
        same: how many layers do not.
    """

    names: tuple[str, str]
    recipes: tuple[str, str]
    verdicts: tuple[str, str]
    rows: tuple[Row, ...]
    layers: tuple[Difference, ...]
    same: int

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"compared": list(self.names), **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class _Side:
    """One of both.

    Attributes:
        made: how it was made, in words.
        verdict: what is known of its accuracy; empty where nothing is.
        cards: the numbers that matter, by name.
        layers: how wide each is, or how many parameters it has.
    """

    made: str
    verdict: str
    cards: Mapping[str, contents.Card]
    layers: Mapping[str, int]

    @classmethod
    def of(cls, path: Path) -> Self:
        if path.suffix.lower() != ".json":
            return cls._of(_described(path))
        try:
            found = load_json(path)
            if not str(found["schema"]).startswith("onnxprune/"):
                raise ValueError("it has another schema")
            return cls._of(found)
        except FileNotFoundError as error:
            raise OptionError(f"{path}: {absent(path, '.json')}") from error
        except OSError as error:
            raise OptionError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise OptionError(
                f"{path}: not what --json prints ({error}): write it with prune ... --json > {path.name}"
            ) from error

    @classmethod
    def _of(cls, document: Mapping[str, Any]) -> Self:
        made = document.get("made") or {}
        options = (f"{name}={value}" for name, value in (made.get("options") or {}).items())
        return cls(
            " ".join([str(made.get("command", "")), *options]).strip(),
            contents.verdict(document).accuracy if document.get("judgement") else "",
            {card.name: card for card in contents.cards(document)},
            {layer.name: layer.after for layer in contents.layers(document)},
        )


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Compare two models, two reports, or one of each.

    Args:
        first: an ``.onnx`` file, or a ``.json`` file with what a command printed with ``--json``.
        second: another one.

    Raises:
        ModelError: a file is no model that can be read.
        OptionError: a ``.json`` file is not such a report.
    """
    one, other = _Side.of(Path(first)), _Side.of(Path(second))
    every = [Difference(name, one.layers.get(name), other.layers.get(name)) for name in {**one.layers, **other.layers}]
    differing = tuple(row for row in every if row.first != row.second)
    return Comparison(
        names=(str(first), str(second)),
        recipes=(one.made, other.made),
        verdicts=(one.verdict, other.verdict),
        rows=tuple(_row(name, one.cards.get(name), other.cards.get(name)) for name in {**one.cards, **other.cards}),
        layers=differing,
        same=len(every) - len(differing),
    )


def _described(path: Path) -> dict[str, Any]:
    """A model, as a command would tell of it."""
    analysis = analyze(path)
    told = describe(analysis)
    layers = [{"weight": one["node"], "size": one["params"], "kept": one["params"]} for one in told["layers"] if one["params"]]
    return {"before": told["cost"], "after": told["cost"], "layers": layers, **made(analysis.source)}


def _row(name: str, first: contents.Card | None, second: contents.Card | None) -> Row:
    values = tuple(card.value if card else None for card in (first, second))
    ratio = second.value / first.value if first and second and first.value else None
    return Row(name, first.after if first else "", second.after if second else "", ratio, values)
