"""What every engine does, as tests; and what is left of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

import engine_work
from command import ROOT
from linear.test_gather import sums_of
from nets import NETS, parse
from onnxprune.data.calibration import CalibrationFeeds
from onnxprune.data.samples import open_samples
from onnxprune.driver.prune import analyze
from onnxprune.errors import OptionError, TimedOut, WorkerDied
from onnxprune.linear import gather
from onnxprune.runtime.engines.pool import Pool
from onnxprune.runtime.threads import VARIABLE

PATIENCE = 300
"""Seconds after which a process is taken to stay: far more than one takes to end on a slow and busy machine."""


def noted(folder: Path, name: str) -> list[int]:
    """The processes that a call of this name ran in."""
    file = folder / name
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def wait_for(folder: Path, name: str) -> list[int]:
    """The same, as soon as there is one."""
    end = time.monotonic() + PATIENCE
    while not (found := noted(folder, name)):
        assert time.monotonic() < end, f"{name} was never called"
        time.sleep(0.02)
    return found


def is_there(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids: Iterable[int]) -> bool:
    """Whether processes end."""
    end = time.monotonic() + PATIENCE
    while any(map(is_there, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
import engine_work
from onnxprune.options.engines import EngineOptions
from onnxprune.runtime.engines import open_engine

if __name__ == "__main__":  # Dask's processes import it
    with open_engine(EngineOptions(sys.argv[2], workers=2)) as engine:
        futures = [engine.submit(engine_work.hang, sys.argv[1]) for _ in range(3)]
        futures[0].result()
"""


def ended(engine: str, folder: Path, signum: signal.Signals) -> str:
    """End a program whose engine has work, and its workers with an interrupt, as from a keyboard; what it says on stderr.

    No worker is there afterwards, nor is the program, also where a test fails.
    """
    file = folder / "program.py"
    file.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, str(file), str(folder), engine]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as program:
        try:
            while len(workers := wait_for(folder, "hangs")) < 2:
                pass
            (os.killpg if signum is signal.SIGINT else os.kill)(program.pid, signum)
            told = program.communicate(timeout=PATIENCE)[1]
            assert gone(workers)
        finally:
            program.kill()
    return told


class EngineLaws:
    """Laws of an engine of two workers with one thread, the fixture ``engine``; ``short`` has a timeout of five seconds."""

    def test_results_are_those_of_the_function(self, engine: Pool) -> None:
        assert engine.workers == 2
        futures = [engine.submit(engine_work.square, number) for number in range(8)]
        assert [future.result() for future in futures] == [number**2 for number in range(8)]

    def test_an_error_keeps_its_type_and_tells_where_it_was(self, engine: Pool) -> None:
        error = engine.submit(engine_work.refuse, "no such thing").exception()
        assert type(error) is OptionError
        assert str(error) == "no such thing"
        assert "in refuse" in str(error.__cause__)

    def test_an_error_that_cannot_be_pickled_is_told_in_words(self, engine: Pool) -> None:
        error = engine.submit(engine_work.be_awkward).exception()
        assert type(error) is RuntimeError
        assert str(error) == "AwkwardError: notmade again"

    def test_a_function_that_exits_ends_no_process(self, engine: Pool) -> None:
        assert str(engine.submit(engine_work.leave).exception()) == "SystemExit: 3"

    def test_processes_stay(self, engine: Pool) -> None:
        assert len({engine.submit(engine_work.process).result() for _ in range(6)}) <= 2

    def test_threads_are_bounded_from_the_start(self, engine: Pool) -> None:
        if not Path("/proc/self/environ").exists():
            pytest.skip("the system does not tell what environment a process began with")
        found = engine.submit(engine_work.environment).result()
        assert [found[name] for name in (VARIABLE, "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")] == ["1", "1", "1"]

    def test_nothing_runs_beside_a_call_that_is_to_be_alone(self, engine: Pool) -> None:
        futures = [engine.submit(engine_work.span, 0.2, alone=number == 2) for number in range(5)]
        spans = [future.result() for future in futures]
        begin, end = spans.pop(2)
        assert all(other_end <= begin or end <= other_begin for other_begin, other_end in spans)

    def test_a_call_that_kills_its_process_fails_alone(self, engine: Pool, tmp_path: Path) -> None:
        names = [f"call {number}" for number in range(6)]
        before = [engine.submit(engine_work.noted, str(tmp_path), name, 0.3) for name in names[:3]]
        culprit = engine.submit(engine_work.die, str(tmp_path), "died")
        after = [engine.submit(engine_work.noted, str(tmp_path), name, 0.3) for name in names[3:]]
        with pytest.raises(WorkerDied):
            culprit.result()
        assert [future.result() for future in before + after] == names
        assert len(noted(tmp_path, "died")) == 2  # the first death may have been of something else

    def test_a_call_whose_process_is_killed_is_repeated(self, engine: Pool, tmp_path: Path) -> None:
        assert engine.submit(engine_work.die_once, str(tmp_path)).result() == "done"

    def test_a_process_that_somebody_kills_loses_nothing(self, engine: Pool, tmp_path: Path) -> None:
        names = [f"call {number}" for number in range(6)]
        futures = [engine.submit(engine_work.noted, str(tmp_path), name, 1.0) for name in names]
        os.kill(wait_for(tmp_path, "call 1")[0], 9)
        assert [future.result() for future in futures] == names

    def test_sums_over_samples_are_the_same_bytes(self, engine: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gather, "_SHARD", 3)
        found = analyze(parse(NETS["attention"]))
        x = np.random.default_rng(0).standard_normal((80, 5, 8)).astype(np.float32)
        feeds = CalibrationFeeds(open_samples({"x": x}, found.model.inputs), 8)
        assert sums_of(found, feeds, engine) == sums_of(found, feeds, None)

    def test_a_call_that_takes_too_long_is_ended(self, short: Pool, tmp_path: Path) -> None:
        hanging = short.submit(engine_work.hang, str(tmp_path))
        others = [short.submit(engine_work.square, number) for number in range(6)]
        with pytest.raises(TimedOut, match="5 seconds"):
            hanging.result()
        assert [future.result() for future in others] == [number**2 for number in range(6)]
        pids = noted(tmp_path, "hangs")
        assert len(pids) == 1
        assert gone(pids)
        assert [short.submit(engine_work.square, number).result() for number in range(3)] == [0, 1, 4]
