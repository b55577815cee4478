"""Prune real architectures at channels=0.5, align=1, and write a table of them to docs/coverage.md.

Models are .onnx files, or the graph skeletons of optional local data (a folder with a `fill.py` that gives them seeded
weights). The table shows for each: nodes, groups, refusals by reason, the share of parameters, MACs and bytes on disk that
remains, the verdict on the outputs, the largest difference between pruned and masked outputs, and the seconds of the analysis
and of pruning. Every result is written, and must pass the checks of the onnx package.

    python benchmarks/coverage.py FOLDER [NAME ...] [-o docs/coverage.md]
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

import onnxprune
from onnxprune import OnnxPruneError, Recipe, Result

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Coverage

These are real architectures, as exporters write them, with seeded weights. Each was pruned with `--target channels=0.5 --align 1`
(every group keeps half of its positions). Written by `python benchmarks/coverage.py FOLDER`.

- *groups*: the number of coupling groups that were pruned.
- *refused*: classes of axes of constants that stay, by reason. Axes of the interface and of positions (kernels, windows) are not
  counted.
- *params*, *MACs*: the share that remains.
- *bytes on disk*: the share of the file's bytes that remains; every result passes `onnx.checker` with `full_check`.
- *verdict*: the number of outputs that are *proven* equal to those of the masked file (bit for bit, or in float64), *tested*
  (equal on seeded inputs), or *not tested*.
- *error*: the largest difference between the outputs of the pruned and of the masked model, relative to the largest output.
- *frozen*: the number of groups that failed verification.
- *analysis s*, *all s*: seconds of processor time of the analysis alone, and of pruning with the proof.

"""
COLUMNS = (
    "model",
    "nodes",
    "groups",
    "refused",
    "params",
    "MACs",
    "bytes on disk",
    "verdict",
    "error",
    "frozen",
    "analysis s",
    "all s",
)
QUIET = {"interface", "position"}


@dataclass(frozen=True, slots=True)
class Row:
    """One model: its cells, the share of its parameters that remains, and the error where it failed."""

    cells: tuple[str, ...]
    params: float = 1.0
    failed: str = ""


def sources(folder: Path, names: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield each model's name and its source for `prune`: a path, or a protobuf with seeded weights."""
    fill = folder / "fill.py"
    if not fill.exists():
        yield from ((path.stem, path) for path in sorted(folder.glob("*.onnx")) if not names or path.stem in names)
        return
    spec = importlib.util.spec_from_file_location("fill", fill)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path in sorted(folder.glob("*.onnx.gz")):
        name = path.name.removesuffix(".onnx.gz")
        if not names or name in names:
            yield name, module.load(name)


def measure(name: str, source: Any) -> Row:
    """Prune one model."""
    start = time.process_time()
    try:
        found = onnxprune.analyze(source)
        analysed = time.process_time()
        result = onnxprune.prune(source, Recipe(target="channels=0.5", align="1"), agreement=False)
        done, report = time.process_time(), result.report
        share = written(result) / report.before.size
    except (OnnxPruneError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return Row((name, *[""] * (len(COLUMNS) - 1)), failed=str(error))
    reasons = Counter(str(refusal["reason"]) for refusal in report.refusals)
    refused = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common() if reason not in QUIET)
    check = report.verification
    assert check is not None
    cells = (
        name,
        str(len(found.model.graph.node)),
        str(len(report.groups)),
        refused,
        f"{report.obtained['params']:.2f}",
        f"{report.obtained['macs']:.2f}",
        f"{share:.2f}",
        ", ".join(f"{count} {verdict}" for verdict, count in Counter(str(one.verdict) for one in check.outputs).items()),
        f"{check.error:.0e}",
        str(len(report.frozen) or ""),
        f"{analysed - start:.1f}",
        f"{done - analysed:.1f}",
    )
    return Row(cells, report.obtained["params"])


def written(result: Result) -> int:
    """Bytes of a result on disk; it is valid."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.onnx"
        result.save(path)
        onnx.checker.check_model(path, full_check=True)
        return sum(part.stat().st_size for part in Path(folder).iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "coverage.md")
    options = parser.parse_args()
    rows = []
    for name, source in sources(options.folder, options.names):
        rows.append(measure(name, source))
        print(" | ".join(rows[-1].cells), rows[-1].failed, file=sys.stderr, flush=True)
    failed = [row for row in rows if row.failed]
    smaller = sum(row.params <= 0.6 for row in rows if not row.failed)
    lines = [HEAD, f"{len(rows) - len(failed)} of {len(rows)} models pruned and proven; "]
    lines.append(f"{smaller} of them lose at least 40 % of their parameters.\n\n")
    lines.append(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n")
    lines += [f"| {' | '.join(row.cells)} |\n" for row in rows if not row.failed]
    lines += [f"\n- {row.cells[0]}: {row.failed}\n" for row in failed]
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("".join(lines), "utf-8")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
