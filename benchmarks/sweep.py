"""What a sweep costs beyond its own work: cores that are used, time for each task, what shared stages save, and how it all grows.

    python benchmarks/sweep.py digits --tasks 200
    python benchmarks/sweep.py shared --targets 20
    python benchmarks/sweep.py growth --tasks 250 500 1000 --models 50

``digits`` sweeps over settings of the model of digits by as many processes as there are cores, and says how many cores were busy,
and what each task takes beside its own work. ``shared`` compares a sweep of many targets with as many prunes, each a process of
its own. ``growth`` puts work that is none into the real engine and the real store, and times status and report.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune import cli
from onnxprune.options.engines import EngineOptions
from onnxprune.options.sweep import SweepRecipe
from onnxprune.runtime.threads import available
from onnxprune.sweep.index import FILE
from onnxprune.sweep.run import run_sweep
from onnxprune.sweep.store import DONE, Outcome, Store

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["digits", "shared", "growth"])
    parser.add_argument("--tasks", type=int, nargs="+", default=[200])
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    engine = EngineOptions(workers=given.workers, threads=1)
    if given.part == "digits":
        digits(given.tasks[0], engine)
    elif given.part == "shared":
        shared(given.targets, engine)
    else:
        for count in given.tasks:
            growth(count, given.models, engine)


@contextlib.contextmanager
def material() -> Iterator[Path]:
    """A folder with the model of digits and its samples."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("digits.onnx", "calib.npz", "test.npz"):
            (folder / file).write_bytes(resources.files("onnxprune.cli").joinpath("digits", file).read_bytes())
        yield folder


def recipe_in(folder: Path, **given: Any) -> SweepRecipe:
    files = {"calib": str(folder / "calib.npz"), "eval": str(folder / "test.npz"), "store": str(folder / "sweep")}
    return SweepRecipe(models=(folder / "digits.onnx",), latency=False, **{**files, **given})


def busy() -> float:
    """Seconds of the processor that this process and those that it waited for have taken."""
    return sum(
        found.ru_utime + found.ru_stime for found in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def digits(tasks: int, engine: EngineOptions) -> None:
    """Cores that are busy, and seconds for each task beside its own work."""
    workers, count = engine.workers or available(), tasks // 4
    with material() as folder:
        recipe = recipe_in(folder, target=(f"macs=0.95:0.15:{count}",), option=("criterion=obs,flap", "align=1,auto"))
        found, (wall, taken) = timed(lambda: run_sweep(recipe, engine))
        own = sum(row["seconds"] for row in found["rows"])
    each = (wall * workers - own) / found["tasks"]
    print(f"{found['tasks']} tasks, {found['done']} done, {workers} workers: {wall:.1f} s, {found['tasks'] / wall:.2f} a second")
    print(f"  cores that were busy: {taken / wall:.2f}; seconds of workers in tasks: {own / wall:.2f} for each second")
    print(f"  beside their own work {each:.3f} s for each task")


def shared(targets: int, engine: EngineOptions) -> None:
    """A sweep of many targets beside as many prunes, by the wall clock and by the time of processors."""
    with material() as folder:
        recipe = recipe_in(folder, target=(f"macs=0.95:0.15:{targets}",))
        found, sweep = timed(lambda: run_sweep(recipe, engine))
        _, prunes = timed(lambda: alone(folder, [row["settings"]["target"] for row in found["rows"]]))
    for name, (wall, taken) in {"sweep": sweep, "prunes": prunes}.items():
        print(f"{name} of {targets} targets: {wall:.1f} s, {taken:.1f} s of processors")
    print(f"  sweep / prunes: {sweep[0] / prunes[0]:.3f} by the wall clock, {sweep[1] / prunes[1]:.3f} by processors")


def timed(run: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """What a function returns, with seconds by the wall clock and of processors."""
    before, start = busy(), time.perf_counter()
    found = run()
    return found, (time.perf_counter() - start, busy() - before)


def alone(folder: Path, targets: list[str]) -> None:
    """A prune for each target, without measuring latency, as in the sweep."""
    command = [sys.executable, "-m", "onnxprune", "prune", str(folder / "digits.onnx"), "-o", str(folder / "small.onnx")]
    samples = ["--calib", str(folder / "calib.npz"), "--eval", str(folder / "test.npz")]
    for target in targets:
        words = [*command, "--target", target, *samples, "--no-benchmark", "--force"]
        subprocess.run(words, check=True, capture_output=True, env=os.environ | {"ONNXPRUNE_THREADS": "1"})


def growth(tasks: int, models: int, engine: EngineOptions) -> None:
    """Seconds and bytes of a sweep with work that is none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(models):
            onnx.save(small(number), folder / f"m{number}.onnx")
        recipe = SweepRecipe(
            models=(folder / "*.onnx",),
            store=str(folder / "sweep"),
            target=(f"macs=0.95:0.15:{tasks // models}",),
            latency=False,
        )
        start = time.perf_counter()
        found = run_sweep(recipe, engine, work=stub)
        wall = time.perf_counter() - start
        start = time.perf_counter()
        run_sweep(recipe, engine, work=stub)
        again = time.perf_counter() - start
        store = str(folder / "sweep")
        shown = {command: seconds_of("sweep", command, store) for command in ("status", "report")}
        size = (folder / "sweep" / FILE).stat().st_size
    told = ", ".join(f"{command} {seconds:.2f} s" for command, seconds in shown.items())
    each = 1e3 * wall / found["tasks"]
    print(f"{found['tasks']} tasks of {models} models: {wall:.1f} s ({each:.1f} ms each), again {again:.2f} s")
    print(f"  database {size / 1e3:.0f} kB ({size / found['tasks']:.0f} bytes each); {told}")


def seconds_of(*words: str) -> float:
    """Seconds of a command in this process, without those of its imports."""
    for _ in range(2):  # the first time, what it imports comes along
        sys.argv = ["onnxprune", *words]
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            cli.main()
        taken = time.perf_counter() - start
    return taken


def small(seed: int) -> onnx.ModelProto:
    """One convolution after another."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(shape, np.float32) for shape in ((16, 3, 3, 3), (8, 16, 1, 1))]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["y"]),
    ]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size, 8, 8]) for name, size in (("x", 3), ("y", 8))]
    constants = [numpy_helper.from_array(weight, f"w{number}") for number, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def stub(order: Mapping[str, Any]) -> Outcome:
    """An outcome without work: the model as it is, and a report as long as one of `prune` is."""
    share = float(order["table"]["target"].partition("=")[2])
    side = {"macs": 1000, "params": 1000, "size": 1000}
    report = {
        "before": side,
        "after": {name: int(share * value) for name, value in side.items()},
        "judgement": {"score": {"original": 0.99, "pruned": 0.99 - 0.1 * (1 - share) ** 2}, "drift": {"agreement": share}},
        "groups": [{"id": f"group{number}", "size": 64, "kept": 32, "exact": True, "members": 4} for number in range(50)],
    }
    model = Path(order["model"]["text"])
    outcome = Outcome(
        key=order["key"],
        state=DONE,
        model=str(model),
        settings=order["settings"],
        report=report,
        sha256=next(iter(order["model"]["files"].values())),
        nbytes=model.stat().st_size,
    )
    Store(order["store"]).publish(outcome, model)
    return outcome


if __name__ == "__main__":
    main()
