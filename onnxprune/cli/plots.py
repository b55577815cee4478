"""Pictures, by matplotlib, which is an extra."""

from __future__ import annotations

from typing import IO, Any

from onnxprune.errors import OptionError

__all__ = ["curves"]

FORMATS = (".svg", ".png", ".pdf")
_NAMED = 10
"""Curves that are named; the others are grey."""


def curves(found: dict[str, Any], file: IO[bytes], suffix: str) -> None:
    """Draw what `api.sensitivity` found: predicted divergence against the share of positions kept, measured points on it.

    Raises:
        OptionError: matplotlib is not installed, or there is no such format.
    """
    if suffix not in FORMATS:
        raise OptionError(f"--plot: cannot draw {suffix or 'a file without suffix'}; write one of {', '.join(FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError('--plot needs matplotlib: run pip install "onnxprune[plot]"') from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    groups = sorted(found["groups"], key=lambda group: -max((m["divergence"] for m in group["measured"]), default=0.0))
    for rank, group in enumerate(groups):
        size = group["size"]
        style = {"label": group["id"], "color": f"C{rank}"} if rank < _NAMED else {"color": "0.8", "zorder": 0}
        shares = [1 - count / size for count in range(size)]
        (line,) = axes.plot(shares, group["predicted"][:size], linewidth=1.2, **style)
        points = [(m["kept"] / size, m["divergence"]) for m in group["measured"]]
        axes.plot([x for x, _ in points], [y for _, y in points], "o", markersize=3, color=line.get_color())
    axes.set(xlabel="share of positions kept", ylabel="divergence of the outputs", yscale="symlog", xlim=(1, 0))
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_title(found["model"], fontsize=9)
    axes.legend(fontsize=7)
    figure.savefig(file, format=suffix[1:], metadata={"Date": None} if suffix == ".svg" else None)
