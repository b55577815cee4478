"""Measure the speed of the tool itself, as ratios of processor time within one run.

The yardstick is the processor time (user and system, all threads) of `onnx.load` of the model file plus `onnx.save` of
the pruned model. Three things have limits:

- pruning: everything between load and save on a `ModelProto` in memory (analysis, data-free scores, allocation, cutting,
  building the output), without the verifier, as a multiple of the yardstick;
- the verifier: the additional time of `Recipe(verify=True)`, as a multiple of the yardstick;
- growth: analysing a chain of ten thousand nodes, as a multiple of analysing one of a thousand.

The first two are measured twice: again and again in one process ("warm"), the variants taking turns, and once per fresh
process after the imports ("fresh"), as a command line pays it. Figures are medians. Exit status 1: a limit is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

import onnxprune
from onnxprune import Recipe

ROOT = Path(__file__).resolve().parent.parent

PRUNE_LIMIT, VERIFY_LIMIT, GROWTH_LIMIT = 0.5, 3.0, 12.0
PRUNE_AIM = 0.3
SMALL, LARGE = 1_000, 10_000
"""Nodes of the two chains."""
CHANNELS = 4
FAST = Recipe(verify=False)
PROVEN = Recipe(verify=True)

T = TypeVar("T")
Sample = dict[str, float]
"""Processor seconds of one repetition: load, save, prune, proven (prune with the verifier)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One ratio, the times that it is made of, and its limit, if it has one. ``aim`` is the value to aim at."""

    name: str
    ratio: float
    made_of: str
    limit: float | None = None
    aim: float | None = None

    @property
    def verdict(self) -> str:
        """``ok``, ``MISSED`` or nothing."""
        if self.limit is None:
            return ""
        return "MISSED" if self.ratio > self.limit else "ok"


def built(name: str) -> Path:
    """`build/NAME.onnx`, made by models/build.py in a process of its own if it is not there: torch stays out of this one."""
    path = ROOT / "build" / f"{name}.onnx"
    if not path.exists():
        subprocess.run([sys.executable, ROOT / "models" / "build.py", name, "-o", path], check=True, stdout=sys.stderr)
    return path


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Processor seconds of this process, and the result of `work`."""
    gc.collect()
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def sample(model: Path, *, first: Recipe) -> Sample:
    """One repetition; `first` runs right after the load and meets the colder caches, so callers alternate it."""
    proto: ModelProto
    load, proto = timed(lambda: onnx.load(model))
    took = {"load": load}
    for recipe in (first, PROVEN if first is FAST else FAST):
        seconds, result = timed(lambda recipe=recipe: onnxprune.prune(proto, recipe, agreement=False))  # type: ignore[misc]
        took["proven" if recipe.verify else "prune"] = seconds
    with tempfile.TemporaryDirectory() as folder:
        took["save"], _ = timed(lambda: onnx.save(result.model, Path(folder) / "pruned.onnx"))
    return took


def warm(model: Path, repetitions: int) -> list[Sample]:
    """Repetitions in this process, after one that does not count."""
    return [sample(model, first=PROVEN if turn % 2 else FAST) for turn in range(repetitions + 1)][1:]


def fresh(model: Path, repetitions: int) -> list[Sample]:
    """Repetitions in processes of their own; one for the fast recipe and one for the other, so that both are first calls."""
    samples = []
    for _ in range(repetitions):
        parts = {}
        for which in ("prune", "proven"):
            command = [sys.executable, __file__, "--model", str(model), "--worker", which]
            parts[which] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        samples.append({**parts["prune"], "proven": parts["proven"]["proven"]})
    return samples


def ratios(samples: list[Sample], kind: str) -> list[Finding]:
    """The findings from repetitions: medians of the ratios of each repetition."""
    both = [s["load"] + s["save"] for s in samples]
    pruning = [s["prune"] for s in samples]
    verifying = [s["proven"] - s["prune"] for s in samples]

    def over(above: list[float], below: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(above, below, strict=True))

    yard, prune, verify = (statistics.median(values) for values in (both, pruning, verifying))
    return [
        Finding(f"prune / (load + save), {kind}", over(pruning, both), f"{prune:.3f} / {yard:.3f} s", PRUNE_LIMIT, PRUNE_AIM),
        Finding(f"verify / (load + save), {kind}", over(verifying, both), f"{verify:.3f} / {yard:.3f} s", VERIFY_LIMIT),
        Finding(f"verify / prune, {kind}", over(verifying, pruning), f"{verify:.3f} / {prune:.3f} s"),
    ]


def chain(nodes: int) -> ModelProto:
    """A model of `nodes` nodes: Conv, Relu and Add in turn.

    Every other Add joins one residual stream along the whole chain: a group with members everywhere, and many small ones.
    """
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
    made: list[NodeProto] = []
    weights: list[TensorProto] = []
    value, stream = "image", ""
    for at in range(nodes):
        out, block = f"v{at}", at // 3
        if at % 3 == 0:
            weights.append(numpy_helper.from_array(kernel, f"w{at}"))
            made.append(helper.make_node("Conv", [value, f"w{at}"], [out], f"conv{at}"))
        elif at % 3 == 1:
            made.append(helper.make_node("Relu", [value], [out], f"relu{at}"))
        elif block % 2:
            made.append(helper.make_node("Add", [value, stream or value], [out], f"add{at}"))
            stream = out
        else:
            made.append(helper.make_node("Add", [value, value], [out], f"add{at}"))
        value = out
    shape: list[str | int | None] = ["batch", CHANNELS, 8, 8]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", value)]
    graph = helper.make_graph(made, f"chain of {nodes}", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def growth(repetitions: int) -> Finding:
    """The growth of the analysis with the number of nodes; the two sizes take turns."""
    small, large = chain(SMALL), chain(LARGE)
    onnxprune.analyze(small)
    pairs = []
    for _ in range(repetitions):
        few = statistics.median(timed(lambda: onnxprune.analyze(small))[0] for _ in range(3))
        many, _ = timed(lambda: onnxprune.analyze(large))
        pairs.append((few, many))
    few, many = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    return Finding(f"analyse {LARGE:,} / {SMALL:,} nodes", ratio, f"{many:.3f} / {few:.3f} s", GROWTH_LIMIT)


def draw(findings: list[Finding], model: Path) -> None:
    """The findings as a table."""
    title = f"processor time, {model.name} ({model.stat().st_size:,} bytes), medians"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(("", "ratio", "limit", "", "made of")):
        table.add_column(column, justify="left" if number in (0, 3) else "right")
    for one in findings:
        limit = "" if one.limit is None else f"{one.limit:g}"
        aim = "" if one.aim is None else f" (aim {one.aim:g})"
        table.add_row(one.name, f"{one.ratio:.3f}", limit + aim, one.verdict, one.made_of)
    Console(width=100).print(table, highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="the file to prune (default: build/resnet50.onnx, built on demand)")
    parser.add_argument("--repetitions", type=int, default=7, help="of each measurement (default: 7)")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.add_argument("--worker", choices=["prune", "proven"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    model: Path = args.model or built("resnet50")

    if args.worker:
        print(json.dumps(first_call(model, args.worker)))
        return 0
    warm_samples, fresh_samples = warm(model, args.repetitions), fresh(model, args.repetitions)
    findings = [*ratios(warm_samples, "warm"), *ratios(fresh_samples, "fresh"), growth(max(3, args.repetitions // 2))]
    missed = [one.name for one in findings if one.verdict == "MISSED"]
    if args.json:
        report: dict[str, Any] = {
            "model": model.name,
            "bytes": model.stat().st_size,
            "findings": [{**asdict(one), "verdict": one.verdict} for one in findings],
            "samples": {"warm": warm_samples, "fresh": fresh_samples},
        }
        print(json.dumps(report))
    else:
        draw(findings, model)
    return int(bool(missed))


def first_call(model: Path, which: str) -> Sample:
    """Load, the first call of this process, and save; imports are done before."""
    onnxprune.prune(chain(31), replace(PROVEN, align="1"), agreement=False)  # imports what is imported on first use
    load, proto = timed(lambda: onnx.load(model))
    recipe = PROVEN if which == "proven" else FAST
    seconds, result = timed(lambda: onnxprune.prune(proto, recipe, agreement=False))
    with tempfile.TemporaryDirectory() as folder:
        save, _ = timed(lambda: onnx.save(result.model, Path(folder) / "pruned.onnx"))
    return {"load": load, which: seconds, "save": save}


if __name__ == "__main__":
    sys.exit(main())
