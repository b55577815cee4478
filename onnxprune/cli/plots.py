"""Pictures, by matplotlib, which is an extra."""

from __future__ import annotations

import importlib
from typing import IO, Any

from onnxprune.errors import OptionError

__all__ = ["check_plot", "curves"]

FORMATS = (".svg", ".png", ".pdf")
_COLOURS, _DASHES = 10, ("-", "--", "-.", ":")
"""Curves are told apart by so many colours, and then by their dashes."""
_COLUMN = 36
"""Names in a column of the legend, which has them all."""


def check_plot(suffix: str) -> None:
    """Nothing happens if a picture of such a file can be drawn.

    Raises:
        OptionError: matplotlib is not installed, or there is no such format.
    """
    if suffix not in FORMATS:
        raise OptionError(f"--plot: cannot draw {suffix or 'a file without suffix'}; write one of {', '.join(FORMATS)}")
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise OptionError('--plot needs matplotlib: run pip install "onnxprune[plot]"') from error


def curves(found: dict[str, Any], file: IO[bytes], suffix: str) -> None:
    """Draw what `api.sensitivity` found: predicted divergence against the share of positions kept, measured points on it.

    Raises:
        OptionError: matplotlib is not installed, or there is no such format.
    """
    check_plot(suffix)
    from matplotlib.figure import Figure

    groups = sorted(found["groups"], key=lambda group: -max((m["divergence"] for m in group["measured"]), default=0.0))
    columns = -(-len(groups) // _COLUMN)
    figure = Figure(figsize=(7 + 2.5 * columns, 5), layout="constrained")
    axes = figure.add_subplot()
    for rank, group in enumerate(groups):
        size = group["size"]
        style: dict[str, Any] = {"color": f"C{rank % _COLOURS}", "linestyle": _DASHES[rank // _COLOURS % len(_DASHES)]}
        shares = [1 - count / size for count in range(size)]
        (line,) = axes.plot(shares, group["predicted"][:size], linewidth=1.2, label=group["id"], **style)
        points = [(m["kept"] / size, m["divergence"]) for m in group["measured"]]
        axes.plot([x for x, _ in points], [y for _, y in points], "o", markersize=3, color=line.get_color())
    axes.set(xlabel="share of positions kept", ylabel="divergence of the outputs", yscale="symlog", xlim=(1, 0))
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_title(found["model"], fontsize=9)
    axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=6, loc="outside right upper", ncols=columns)
    figure.savefig(file, format=suffix[1:], metadata={"Date": None} if suffix == ".svg" else None)
