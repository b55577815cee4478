"""Recipe files as tables, for people: what they would do, and what they did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onnxprune.console import console, counted, in_bytes, say, table

__all__ = ["built", "steps"]


def built(report: Mapping[str, Any]) -> None:
    """What `run` did."""
    out = console()
    scored, start = report.get("score"), report["bytes"][0]
    metric = [scored["metric"]] if scored else []
    listed = table(f"{report['model']} -> {report['output']}", "step", *metric, "size", "ratio", "s")
    listed.add_row("original", *([f"{scored['value']:.4f}"] if scored else []), in_bytes(start), "1.000", "")
    for step in report["steps"]:
        score = [f"{step['score']['value']:.4f}"] if scored else []
        took = "kept" if step["reused"] else f"{step['seconds']:.1f}"
        listed.add_row(step["name"], *score, in_bytes(step["bytes"]), f"{step['bytes'] / max(start, 1):.3f}", took)
    out.print(listed)
    if scored:
        say(out, f"{scored['metric']} on {counted(scored['samples'], 'sample')}")
    for step in report["steps"]:
        for note in step["report"].get("notes") or ():
            say(out, f"note: {step['name']}: {note}")


def steps(planned: Mapping[str, Any]) -> None:
    """What `run` would do."""
    out = console()
    listed = table(f"{planned['model']} -> {planned['output']}", "", "step", "does", "options", text=("step", "does", "options"))
    for number, step in enumerate(planned["steps"], 1):
        options = ", ".join(f"{name} = {json.dumps(value)}" for name, value in step["options"].items())
        listed.add_row(str(number), step["name"], step["do"], options)
    out.print(listed)
