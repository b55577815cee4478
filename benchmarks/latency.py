"""Measure how much time removed channels save in ONNX Runtime, and how much zeros save: one thread of one CPU core.

Every candidate takes turns with the original in one process (onnxprune.latency.benchmark): milliseconds are the thread's
processor time, a latency ratio is candidate / original as the median of the per-round ratios, with quartiles. `again` is the
original in a second session: its distance from 1 is the noise.

The realised share is the speedup as a fraction of the reduction in multiply-accumulates: MACs ratio / latency ratio.
At 1, half of the MACs take half of the time. The exit status is 1 if the default recipe misses the required share.

`60 % zeros` has the smallest 60 % of the weights of every layer (Conv, Gemm, MatMul) set to zero and keeps every shape;
`macs=0.4` has 60 % of the multiply-accumulates removed by channels. Sizes are bytes of the file, raw and as gzip makes it.
The networks have random weights: speed does not depend on them, gzip sizes do a little.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import onnxprune
from onnxprune import Recipe
from onnxprune.latency.benchmark import BenchRow, benchmark
from onnxprune.options.shared import SCOPES

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("resnet50", "mobilenet_v2")
BATCHES = (1, 8)
DEFAULT = Recipe(target="macs=0.5")
REQUIRED = 0.88
"""Least realised share of the default recipe."""
REMOVED = 0.6
"""Share of the weights that become zero, and of the MACs that channels take away, in the comparison of the two."""
ZEROS_IN = "resnet50"
LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to measure.

    Attributes:
        label: its name in the tables.
        data: the ONNX file.
        macs: multiply-accumulates that remain, as a fraction of the original's; ``None`` where no speed follows from them.
        role: which table it is in, and whether the required share holds for it: default, channels, zeros, control.
    """

    label: str
    data: bytes
    macs: float | None
    role: str


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate at one batch; milliseconds of processor time per run, ratios to the original, bytes."""

    model: str
    batch: int
    label: str
    role: str
    macs: float | None
    ms: float
    latency: float
    q1: float
    q3: float
    share: float | None
    raw: int
    gzip: int | None

    @property
    def missed(self) -> bool:
        """Whether this is the default recipe below the required share."""
        return self.role == "default" and self.share is not None and self.share < REQUIRED


def built(name: str) -> Path:
    """`build/NAME.onnx`, made by models/build.py in a process of its own if it is not there: torch stays out of this one."""
    path = ROOT / "build" / f"{name}.onnx"
    if not path.exists():
        subprocess.run([sys.executable, ROOT / "models" / "build.py", name, "-o", path], check=True, stdout=sys.stderr)
    return path


def pruned(proto: ModelProto, recipe: Recipe, role: str, label: str = "") -> Candidate:
    """The candidate that a recipe makes; verified, as by default."""
    result = onnxprune.prune(proto, recipe, agreement=False)
    label = label or f"{recipe.target} align={recipe.align} {recipe.scope}"
    return Candidate(label, result.model.SerializeToString(), result.report.obtained["macs"], role)


def zeroed(proto: ModelProto, share: float) -> Candidate:
    """The model with the smallest `share` of the weights of every layer at zero."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    read = {name for node in copy.graph.node if node.op_type in LAYERS for name in node.input}
    for tensor in copy.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if tensor.name in read and weights.ndim > 1:
            flat = weights.reshape(-1).copy()
            flat[np.argsort(np.abs(flat), kind="stable")[: round(share * flat.size)]] = 0
            tensor.CopyFrom(numpy_helper.from_array(flat.reshape(weights.shape), tensor.name))
    return Candidate(f"{share:.0%} zeros", copy.SerializeToString(), None, "zeros")


def candidates(name: str, proto: ModelProto, scopes: Sequence[str]) -> list[Candidate]:
    """The original twice, then the models that are compared with it."""
    original = proto.SerializeToString()
    found = [Candidate("original", original, 1.0, "control"), Candidate("original again", original, 1.0, "control")]
    found.append(pruned(proto, DEFAULT, "default"))
    found.append(pruned(proto, replace(DEFAULT, align="1"), "channels"))
    # Every width just below half, hence off the block of the kernels: what a plan that ignores them would do.
    off = Recipe(target="channels=0.47", align="1", scope="uniform")
    found.append(pruned(proto, off, "channels", f"{off.target} align=1"))
    found += [pruned(proto, replace(DEFAULT, scope=scope), "channels") for scope in scopes if scope != DEFAULT.scope]
    if name == ZEROS_IN:
        found.append(zeroed(proto, REMOVED))
        found.append(pruned(proto, replace(DEFAULT, target=f"macs={1 - REMOVED:g}"), "zeros"))
    return found


def measure(name: str, proto: ModelProto, seconds: float, scopes: Sequence[str], progress: Progress) -> tuple[list[Row], str]:
    """All rows of one model, and the machine on which they were measured."""
    task = progress.add_task(f"{name}: pruning", total=None)
    chosen = candidates(name, proto, scopes)
    report = benchmark(
        [one.data for one in chosen],
        labels=[one.label for one in chosen],
        batches=BATCHES,
        seconds=seconds,
        sessions=1,
        progress=lambda what, done, steps: progress.update(task, description=f"{name}: measuring {what} ({done}/{steps})"),
    )
    compare = {one.label: len(gzip.compress(one.data)) for one in chosen if one.role == "zeros" or one is chosen[0]}
    rows = []
    for at, bench in enumerate(report.rows):
        one = chosen[at % len(chosen)]
        rows.append(as_row(name, one, bench, compare.get(one.label) if name == ZEROS_IN else None))
    progress.remove_task(task)
    machine = report.machine
    return rows, f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, {machine['threads']} thread"


def as_row(name: str, one: Candidate, bench: BenchRow, packed: int | None) -> Row:
    """One measurement as a row of the tables."""
    ratio = bench.ratio
    latency, q1, q3 = (ratio.median, ratio.q1, ratio.q3) if ratio else (1.0, 1.0, 1.0)
    share = one.macs / latency if one.macs is not None and one.role != "control" else None
    ms = bench.latency.median_ms
    return Row(name, bench.batch, one.label, one.role, one.macs, ms, latency, q1, q3, share, len(one.data), packed)


Cells = list[tuple[str, ...]]


def channels_table(rows: Sequence[Row]) -> tuple[str, Cells]:
    """Title and cells, header first, of the table of pruned channels."""
    cells: Cells = [("model", "batch", "candidate", "ms", "MACs", "latency (quartiles)", "realised")]
    for row in rows:
        if row.role == "zeros":
            continue
        share = "" if row.share is None else f"{row.share:.2f}{' MISSED' * row.missed}"
        macs = "" if row.macs is None else f"{row.macs:.3f}"
        cells.append((row.model, str(row.batch), row.label, f"{row.ms:.1f}", macs, spread(row), share))
    return f"Channels: latency of the original, and the part of it that remains (realised share: at least {REQUIRED})", cells


def zeros_table(rows: Sequence[Row]) -> tuple[str, Cells]:
    """Title and cells, header first, of the table of zeros against channels."""
    cells: Cells = [("model", "batch", "candidate", "ms", "latency (quartiles)", "MB", "MB, gzip")]
    for row in rows:
        if row.gzip is not None:
            sizes = f"{row.raw / 1e6:.1f}", f"{row.gzip / 1e6:.1f}"
            cells.append((row.model, str(row.batch), row.label, f"{row.ms:.1f}", spread(row), *sizes))
    return f"Zeros against channels: {REMOVED:.0%} of the weights, {REMOVED:.0%} of the MACs", cells


def spread(row: Row) -> str:
    """A ratio and its quartiles."""
    return f"{row.latency:.3f} ({row.q1:.3f} to {row.q3:.3f})"


def draw(title: str, cells: Cells) -> None:
    """One table for a terminal."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in cells[0]:
        table.add_column(column, justify="left" if column in ("model", "candidate") else "right", no_wrap=True)
    for line in cells[1:]:
        table.add_row(*line)
    Console(width=130).print(table, "", highlight=False)


def markdown(title: str, cells: Cells) -> None:
    """One table for a README."""
    header, *lines = cells
    rule = tuple("---" if column in ("model", "candidate") else "--:" for column in header)
    print(f"**{title}**\n")
    for line in (header, rule, *lines):
        print(f"| {' | '.join(line)} |")
    print()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, action="append", help="measure only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each candidate at each batch (default: 8)")
    parser.add_argument("--scopes", action="store_true", help="also measure the other scopes")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    args = parser.parse_args()

    rows: list[Row] = []
    machine = ""
    with Progress(TextColumn("{task.description}"), TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        for name in args.model or MODELS:
            found, machine = measure(name, onnx.load(built(name)), args.seconds, SCOPES if args.scopes else (), bar)
            rows += found
    if args.json:
        print(json.dumps({"machine": machine, "required": REQUIRED, "rows": [asdict(row) for row in rows]}))
    else:
        show = markdown if args.markdown else draw
        for title, cells in (channels_table(rows), zeros_table(rows)):
            if len(cells) > 1:
                show(title, cells)
        print(machine)
    return int(any(row.missed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
