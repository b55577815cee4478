"""What `demo` made, as a table, for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune.cli.console import console, in_bytes, quantity, say, table

__all__ = ["shown"]

_STYLES = {"collapsed": "bold red", "worse": "yellow"}
_TOLD = {
    "cut-alone": "channels are cut by the size of their weights, and nothing makes up for them: never do this",
    "with-samples": "240 images without labels: what is left is repaired",
    "by-latency": "the same, until the time measured here is 0.7 of the original's",
}


def shown(report: Mapping[str, Any], page: Path | None) -> None:
    """Print the models side by side, what is to be learnt, where the page is, and the commands."""
    out = console()
    rows = table("handwritten digits; accuracy on 599 images", "", "accuracy", "latency", "ratio", "bytes", "MACs")
    for row in report["models"]:
        cells = (
            f"{row['score']:.1%}",
            f"{row['ms']:.3g} ms",
            f"{row['ratio']:.2f}",
            in_bytes(row["bytes"]),
            quantity(row["macs"]),
        )
        rows.add_row(row["name"], *cells, style=_STYLES.get(row["level"]))
    out.print(rows)
    for row in report["models"][1:]:
        say(out, f"{row['name']}: {_TOLD[row['name']]}", style=_STYLES.get(row["level"]))
    for name, why in report["missed"].items():
        say(out, f"{name}: {why}")
    proven = sum(row["verified"] for row in report["models"][1:])
    count = len(report["models"]) - 1
    say(
        out,
        f"surgery: {proven} of {count} models were verified; each computes what the original with zeros computes (before repair)",
    )
    if report["best"]:
        say(out, f"best: {report['folder']}/{report['best']}.onnx", style="green")
    if page:
        say(out, f"report: {page}: open it in a browser")
    say(out, f"measured on {report['machine']['cpu']}, one thread, batch 1")
    for number, command in enumerate(report["commands"]):
        out.print(f"{'next:' if number == 0 else '     '} {command}", soft_wrap=True)
