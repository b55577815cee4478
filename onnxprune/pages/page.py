"""Fill the templates: one file that has its pictures, its style and its programs inside."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from onnxprune.errors import OptionError
from onnxprune.options.version import version
from onnxprune.pages import contents, listings

if TYPE_CHECKING:
    import jinja2

    from onnxprune.pages.contents import Document

__all__ = ["check_installed", "drawing", "missing", "page", "renderer", "summary", "templates"]

_LINES = 2000
"""Marks from which a picture is drawn in dots, because lines would be slow to move through."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a page: its title, what it shows in Vega-Lite, and how many marks it has."""

    title: str
    spec: Mapping[str, Any]
    marks: int

    @property
    def renderer(self) -> str:
        """How it is drawn."""
        return renderer(self.marks)


def missing() -> list[str]:
    """The packages that pages need and that are not installed."""
    return [name for name in ("jinja2", "altair", "vl_convert") if find_spec(name) is None]


def check_installed(option: str = "--report", extra: str = "report") -> None:
    """Nothing happens if what pages need is installed.

    Args:
        option: that asks for a page.
        extra: of this package, with which it is installed.

    Raises:
        OptionError: Jinja or Altair is not.
    """
    if lacking := missing():
        raise OptionError(f'{option} needs {" and ".join(lacking)}: run pip install "onnxprune[{extra}]"')


def renderer(marks: int) -> str:
    """How a picture of so many marks is drawn: in lines, which print well, or in dots."""
    return "svg" if marks <= _LINES else "canvas"


def page(document: Document, command: str = "", thumbnails: Mapping[int, str] | None = None) -> str:
    """A report as one HTML page, which loads nothing from elsewhere.

    Args:
        document: what the command prints with ``--json``.
        command: the command that made it, to copy; empty where there was none.
        thumbnails: pictures of samples that get another answer, as URLs, by their places.
    """
    told = _told(document)
    pictures = list(_pictures(told["document"]))
    template = templates().get_template("compare.html" if "compared" in document else "report.html")
    given = {"command": command, "thumbnails": thumbnails or {}, "programs": drawing() if pictures else ""}
    return template.render(**told, pictures=pictures, **given)


def summary(document: Document) -> str:
    """The verdict and the numbers that matter, as a part of a page: for notebooks."""
    return templates().get_template("summary.html").render(**_told(document))


def _told(document: Document) -> dict[str, Any]:
    whole = contents.whole(document)
    return {
        "data": document,
        "document": whole,
        "title": listings.title(document),
        "listings": listings.listings(document),
        "verdict": contents.verdict(whole) if contents.concludes(whole) else None,
        "cards": list(contents.cards(whole)),
        "layers": contents.layers(whole),
        "outputs": contents.outputs(whole),
        "changed": contents.changed(whole),
        "version": version(),
    }


def _pictures(document: Document) -> Iterator[Picture]:
    from onnxprune.pages import charts

    for kind, name, unit in (("group", "The network", "positions"), ("weight", "Weights that are not zero", "weights")):
        if layers := [layer for layer in contents.layers(document) if layer.kind == kind]:
            yield Picture(name, charts.network(layers, unit), len(layers))
    if document.get("command") == "inspect":
        costs = document["layers"]
        yield Picture("What each layer costs", charts.shares(costs), 2 * len(costs))
    if document.get("command") == "benchmark":
        yield Picture("Latency", charts.latencies(document["rows"]), 2 * len(document["rows"]))
    if tried := contents.tried(document):
        yield Picture("What was tried", charts.search(tried), len(tried))
    if curves := [group for group in contents.listed(document, "groups") if group.get("measured")]:
        yield Picture("Sensitivity", charts.sensitivity(curves), sum(len(group["measured"]) for group in curves))


def drawing() -> str:
    """The programs that draw pictures, as JavaScript."""
    from onnxprune.pages.programs import programs

    return programs()


@functools.cache
def templates() -> jinja2.Environment:
    """The templates of pages."""
    import jinja2

    loader = jinja2.PackageLoader("onnxprune.pages")
    forgiving = jinja2.ChainableUndefined  # commands find different things
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=forgiving)
