"""Measure how much sooner statistics of samples are there with more processes, and predict it for many.

The samples are noise: what is measured does not depend on their values. Each process has one thread. The processes are there, and
have imported what they need, before the time begins; the model is sent to them within it. The statistics must be the same bytes.

For the prediction, what the process that shares out the work does for each shard is measured, too: its processor time. With `W`
processes, `S` shards of `t` seconds each, `c` seconds of that time and `b` bytes sent and received for each, and a network of
`B` bytes a second, the statistics take max(ceil(S / W) t, S c, S b / B) + c + b / B seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from onnxprune.data.calibration import Calibration
from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import analyze
from onnxprune.linear.gather import shard_length
from onnxprune.linear.moments import MomentSums
from onnxprune.options.engines import EngineOptions
from onnxprune.passes import Observe
from onnxprune.passes.analysis import Analysis
from onnxprune.passes.observe import Observed
from onnxprune.runtime.engines import open_engine
from onnxprune.runtime.engines.pool import Pool
from onnxprune.runtime.session import Session
from onnxprune.runtime.threads import VARIABLE, bounds

REQUIRED = 1.7
"""How many times as fast two processes are, at least."""
NETWORKS = {"1 Gb/s": 1e9 / 8, "10 Gb/s": 1e10 / 8, "100 Gb/s": 1e11 / 8}
MANY = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Run:
    """One gathering of statistics.

    Attributes:
        workers: processes that take shards; 0 for this one alone.
        seconds: wall time.
        each: wall time between two shards, from the first to the last.
        own: processor time of this process between two shards.
        digest: of the statistics.
    """

    workers: int
    seconds: float
    each: float
    own: float
    digest: str


@dataclass(frozen=True, slots=True)
class Shards:
    """What follows for each number of processes.

    Attributes:
        count: of shards.
        seconds: that one takes in a process.
        own: processor seconds for each in the process that shares them out.
        samples: bytes sent for each.
        moments: bytes received for each.
    """

    count: int
    seconds: float
    own: float
    samples: int
    moments: int

    def total(self, workers: int, bandwidth: float) -> float:
        """Seconds for all."""
        wire = (self.samples + self.moments) / bandwidth
        return max(math.ceil(self.count / workers) * self.seconds, self.count * self.own, self.count * wire) + self.own + wire


def digest_of(found: Observed) -> str:
    """A hash of all statistics."""
    arrays = [one.array for one in found.statistics.moments.values()]
    arrays += [found.statistics.energies[place] for place in sorted(found.statistics.energies)]
    arrays += [basis.forth for basis in found.bases.values()]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def measure(analysis: Analysis, calibration: Calibration, engine: str, workers: int) -> Run:
    """Gather statistics once."""
    opened: AbstractContextManager[Pool | None] = nullcontext()
    if workers:
        opened = open_engine(EngineOptions(engine, workers, threads=1))
    with opened as pool:
        if pool is not None:
            for _ in range(2):
                for future in [pool.submit(warm) for _ in range(workers)]:
                    future.result()
        marks: list[tuple[float, float]] = []
        start = time.perf_counter()
        found = Observe().run(analysis, calibration, pool, lambda _: marks.append((time.perf_counter(), time.process_time())))
        seconds = time.perf_counter() - start
    between = max(len(marks) - 1, 1)
    each, own = ((last - first) / between for first, last in zip(marks[0], marks[-1], strict=True)) if marks else (seconds, 0.0)
    return Run(workers, seconds, each, own, digest_of(found))


def warm() -> None:
    """Import what shards need."""
    import onnxruntime  # noqa: F401

    import onnxprune.linear.gather  # noqa: F401

    time.sleep(0.5)  # so that no process takes the calls of two


def samples_of(analysis: Analysis, count: int, size: int) -> Mapping[str, Any]:
    """Noise for the only input; sizes that are open, except the first, are ``size``."""
    (value,) = analysis.model.inputs
    shape = [dim.dim_value or size for dim in value.type.tensor_type.shape.dim]
    return {value.name: np.random.default_rng(0).standard_normal((count, *shape[1:])).astype(np.float32)}


def moment_bytes(analysis: Analysis, calibration: Calibration) -> int:
    """What comes back for a shard, pickled."""
    sums = MomentSums(analysis.model, analysis.coupling, len(calibration.fit))
    (batch,) = first(iter(calibration.fit), 1)
    sums.add(dict(zip(sums.names, Session(analysis.model, sums.names).run(batch), strict=True)))
    return len(pickle.dumps(sums.state()))


def first(batches: Iterator[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The first batches."""
    return [batch for _, batch in zip(range(count), batches, strict=False)]


def main() -> None:
    """Print both tables; the exit status is 1 where two processes are not fast enough, or statistics differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--samples", type=int, default=510)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeat", type=int, default=1, help="the fastest of so many runs counts")
    args = parser.parse_args()
    if os.environ.get(VARIABLE) != "1":  # libraries read it when they are loaded
        raise SystemExit(subprocess.run([sys.executable, *sys.argv], env=os.environ | bounds(1), check=False).returncode)
    console = Console()
    console.print(f"load of the machine before: {', '.join(f'{value:.1f}' for value in os.getloadavg())}")
    analysis = analyze(args.model).float32
    calibration = analysis.calibration(open_samples(samples_of(analysis, args.samples, args.size), analysis.model.inputs))
    runs: dict[int, Run] = {}
    for _ in range(args.repeat):
        for workers in args.workers:
            run = measure(analysis, calibration, args.engine, workers)
            console.print(
                f"{workers} processes: {run.seconds:.1f} s; from shard to shard {run.each:.2f} s, "
                f"{run.own:.2f} s of the processor for the one that shares out"
            )
            if workers not in runs or run.seconds < runs[workers].seconds:
                runs[workers] = run
    each = shard_length(len(calibration.fit))
    count = -(-len(calibration.fit) // each)
    moments = moment_bytes(analysis, calibration)
    sent = len(pickle.dumps(first(iter(calibration.fit), each)))
    console.print(measured(runs, f"{count} shards of {each} batches of {calibration.size} samples"))
    known = runs.get(1) or next(iter(runs.values()))
    shards = Shards(count, known.each, known.own, sent, moments)
    console.print(
        f"a shard: {shards.seconds:.2f} s, {shards.own:.2f} s of the process that shares out, "
        f"{sent / 1e6:.1f} MB of samples, {moments / 1e6:.1f} MB of moments"
    )
    for many in (count, 64):
        console.print(predicted(replace(shards, count=many), f"{many} shards"))
    same = len({run.digest for run in runs.values()}) == 1
    quick = not {1, 2} <= runs.keys() or runs[1].seconds >= REQUIRED * runs[2].seconds
    console.print(f"statistics are {'the same' if same else 'NOT THE SAME'} bytes")
    raise SystemExit(not (same and quick))


def measured(runs: Mapping[int, Run], title: str) -> Table:
    """The times."""
    table = Table("processes", "seconds", "between shards", "times as fast", title=title)
    base = runs.get(1)
    for run in runs.values():
        faster = f"{base.seconds / run.seconds:.2f}" if base else ""
        table.add_row(str(run.workers or "this one alone"), f"{run.seconds:.1f}", f"{run.each:.2f}", faster)
    return table


def predicted(shards: Shards, title: str) -> Table:
    """The times for many processes: seconds, and how many times as fast as one."""
    table = Table("processes", *NETWORKS, title=f"predicted, {title}")
    for workers in MANY:
        found = [shards.total(workers, bandwidth) for bandwidth in NETWORKS.values()]
        table.add_row(str(workers), *(f"{one:.1f} s, x {shards.count * shards.seconds / one:.1f}" for one in found))
    return table


if __name__ == "__main__":
    main()
