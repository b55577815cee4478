"""What goes on in steps, as tables, for people: recipe files, and training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from onnxprune.cli.console import console, counted, in_bytes, quantity, say, table
from onnxprune.cli.suggestions import TEACH
from onnxprune.cli.summary import change, closing, costs, summary
from onnxprune.verify.verdicts import Verdict

__all__ = ["built", "steps", "trained"]

_WATCHED = 'Name samples above the first table, eval = "eval.npz", and a gate, max_drop = "1%": then nothing worse is written'
_SHOWN = 40
"""Epochs that are listed: the last ones."""


def built(report: Mapping[str, Any]) -> None:
    """What `run` did."""
    out = console()
    scored = report.get("score")
    title = f"{report['model']} -> {report['output']}"
    rows = [change("file on disk", *report["bytes"]), *costs(report.get("before"), report.get("after"))]
    summary(out, title, report["judgement"], rows, _WATCHED)
    _built_steps(out, report)
    if scored:
        say(out, f"{scored['metric']} on {counted(scored['samples'], 'sample')}")
        if scored["notice"]:
            say(out, f"note: {scored['notice']}")
    for step in report["steps"]:
        for note in step["report"].get("notes") or ():
            say(out, f"note: {step['name']}: {note}")
    for step in report["steps"]:
        judged = step["report"].get("judgement")
        if judged and judged["level"] == "collapsed":
            say(out, f"{step['name']}: {judged['text']}", style="bold red")
    closing(out, report.get("next", ()))


def _built_steps(out: Console, report: Mapping[str, Any]) -> None:
    """The model after each step of a recipe. Latency is known where a step has timed what there was beside the original."""
    scored, start, before = report.get("score"), report["bytes"][0], report.get("before")
    timed = any(step["do"] == "benchmark" for step in report["steps"])
    metric, latency = ([scored["metric"]] if scored else []), (["latency"] if timed else [])
    listed = table("", "step", *metric, "size", "ratio", "MACs", *latency, "surgery", "s")
    score = [f"{scored['value']:.4f}"] if scored else []
    macs = quantity(before["macs"]) if before else ""
    listed.add_row("original", *score, in_bytes(start), "1.000", macs, *(["1.000"] if timed else []), "", "")
    for step in report["steps"]:
        told = step["report"]
        score = [f"{step['score']['value']:.4f}"] if scored else []
        macs = quantity(told["after"]["macs"]) if told.get("after") else ""
        latency = [_timed(step)] if timed else []
        took = "kept" if step["reused"] else f"{step['seconds']:.1f}"
        cells = (in_bytes(step["bytes"]), f"{step['bytes'] / max(start, 1):.3f}", macs, *latency)
        listed.add_row(step["name"], *score, *cells, _verdict(told.get("verification")), took)
    out.print(listed)


def _timed(step: Mapping[str, Any]) -> str:
    """The latency that a step measured, as a share of the original's."""
    rows = step["report"]["rows"] if step["do"] == "benchmark" else []
    return f"{rows[1]['ratio']['median']:.3f}" if len(rows) > 1 and rows[1]["ratio"] else ""


def steps(planned: Mapping[str, Any]) -> None:
    """What `run` would do."""
    out = console()
    say(out, f"{planned['model']} -> {planned['output']}", style="bold")
    listed = table("", "", "step", "does", "options", text=("step", "does", "options"))
    for number, step in enumerate(planned["steps"], 1):
        options = ", ".join(f"{name} = {json.dumps(value)}" for name, value in step["options"].items())
        listed.add_row(str(number), step["name"], step["do"], options)
    out.print(listed)


def trained(report: Mapping[str, Any], *, every: bool = False) -> None:
    """What `finetune` and `train` did."""
    out = console()
    rows = [change("file on disk", report["before_bytes"], report["bytes"])]
    rows += costs(report["before"], report["after"])
    summary(out, f"{report['model']} -> {report['output']}", report["judgement"], rows, TEACH)
    listed = table("", "epoch", "loss", "score", "learning rate", "s")
    for epoch in report["epochs"][0 if every else -_SHOWN :]:
        loss = "" if math.isnan(epoch["loss"]) else f"{epoch['loss']:.4f}"
        cells = (loss, _score(epoch), f"{epoch['rate']:.2e}", f"{epoch['seconds']:.1f}")
        listed.add_row(f"{epoch['phase']} {epoch['number']}", *cells)
    out.print(listed)
    if "stages" in report:
        _stages(out, report)
    score = report["score"]
    if score:
        scores = f"{score['before']:.4f} before, {score['after']:.4f} after, {score['original']:.4f} the original"
        say(out, f"{score['metric']} {scores} on {counted(score['samples'], 'sample')} ({score['source']})")
        if score["notice"]:
            say(out, f"note: {score['notice']}")
    say(out, f"{report['sparsity']:.1%} of the weights are zero; {in_bytes(report['bytes'])}; {report['seconds']:.1f} s")
    for note in report["notes"]:
        say(out, f"note: {note}")
    closing(out, report["next"])


def _stages(out: Console, report: Mapping[str, Any]) -> None:
    """What was left after each stage of training that removes channels."""
    listed = table("", "stage", "MACs", "parameters", "size", "score", "surgery", "s")
    for row in report["stages"]:
        costs = (quantity(row["macs"]), quantity(row["params"]), in_bytes(row["size"]))
        listed.add_row(row["stage"], *costs, _score(row), _verdict(row.get("verification")), f"{row['seconds']:.1f}")
    out.print(listed)
    obtained = ", ".join(f"{metric}={share:.3f}" for metric, share in report["obtained"].items())
    say(out, f"requested {report['requested']}, obtained {obtained}")


def _verdict(check: Mapping[str, Any] | None) -> str:
    """What is known of the outputs of a model: of the one of which least is known."""
    verdicts = [one["verdict"] for one in check["outputs"]] if check else []
    return max(verdicts, key=list(Verdict).index, default="")


def _score(row: Mapping[str, Any]) -> str:
    return "" if row["score"] is None else f"{row['score']:.4f}"
