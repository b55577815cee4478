"""Prune a small trained classifier of handwritten digits, and measure accuracy, size and time; `make demo` runs this.

Accuracy is top-1 on the test images of digits.py. MACs are of one image, bytes those of the file. Latency is the
processor time of one ONNX Runtime thread at batch 1; pruned and original take turns, and the ratio is the median of the
ratios of all rounds. Channels are ranked by the weights alone and cut: nothing is repaired, and nothing is trained.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import digits
import onnxprune
from onnxprune import Recipe, Result, TargetError
from onnxprune.latency.benchmark import BenchRow, benchmark
from onnxprune.options.targets import Align

HERE = Path(__file__).resolve().parent
MODEL = HERE / "digits.onnx"
OUT = HERE.parent / "build" / "demo"
TARGETS = ("macs=0.9", "macs=0.75", "macs=0.5")
ALIGNS = ("1", "auto")
SECONDS = 0.5
"""Measuring time for each model."""

Pruned = dict[tuple[str, str], Result]
"""By alignment and target."""


def prune_all() -> Pruned:
    """Every target at every alignment, each verified and written to a file."""
    OUT.mkdir(parents=True, exist_ok=True)
    found: Pruned = {}
    for align in ALIGNS:
        for target in TARGETS:
            try:
                result = onnxprune.prune(MODEL, Recipe(target=target, align=align), agreement=False)
            except TargetError as error:
                print(error, file=sys.stderr)
                continue
            result.save(path(align, target), force=True)
            found[align, target] = result
    return found


def path(align: str, target: str) -> Path:
    """Where a pruned model is written."""
    return OUT / f"digits-{target.replace('=', '-')}-align-{align}.onnx"


def draw(found: Pruned, rows: dict[Path, BenchRow], data: digits.Digits) -> Table:
    """The table: the original, then the pruned models by alignment."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "accuracy", "MACs", "left", "params", "bytes", "latency", "ratio"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)

    def add(name: str, file: Path, macs: int, left: float, params: int) -> None:
        row = rows[file]
        score = f"{digits.accuracy(file, data.test_x, data.test_y):.1%}"
        ratio = f"{row.ratio.median:.2f}" if row.ratio else "1.00"
        size, latency = f"{file.stat().st_size:,}", f"{row.latency.median_ms * 1e3:.0f} µs"
        table.add_row(name, score, f"{macs:,}", f"{left:.3f}", f"{params:,}", size, latency, ratio)

    before = next(iter(found.values())).report.before
    add("original", MODEL, before.macs, 1.0, before.params)
    for align in ALIGNS:
        table.add_row()
        table.add_row(f"[italic]align={align}")
        for (this, target), result in found.items():
            if this == align:
                report = result.report
                add(target, path(align, target), report.after.macs, report.obtained["macs"], report.after.params)
    return table


def main() -> None:
    start = time.perf_counter()
    console = Console(width=80, highlight=False)
    data = digits.load()
    found = prune_all()
    files = [MODEL, *(path(*key) for key in found)]
    report = benchmark(files, seconds=SECONDS, sessions=1)
    rows = dict(zip(files, report.rows, strict=True))

    recipe, classes = Recipe(), len(set(data.test_y.tolist()))
    images = f"{len(data.test_x)} test images"
    console.print(f"{MODEL.name}, {images}; criterion {recipe.criterion}, scope {recipe.scope}\n")
    console.print(draw(found, rows, data))
    proven = sum(result.report.verification is not None and result.report.verification.ok for result in found.values())
    console.print(
        f"\n{proven} of {len(found)} pruned models were verified: each computes what the original with zeros at the removed "
        "channels computes. Accuracy is lost because the channels are gone: they were chosen by the size of their weights, "
        f"without data, and nothing was repaired or trained. Guessing is right {1 / classes:.0%} of the time."
    )
    console.print(
        f"\nalign=auto keeps widths at multiples of {Align.parse('auto').told}, which the fast kernels of ONNX Runtime need. "
        "With other widths, fewer channels can take longer."
    )
    machine = report.machine
    console.print(f"\n{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}, 1 thread, batch 1.")
    console.print(f"Written to {OUT.relative_to(HERE.parent)}/ in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
