"""Processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine_work
from command import ROOT
from engine_laws import EngineLaws, gone, noted, wait_for
from onnxprune.errors import OptionError
from onnxprune.options.engines import EngineOptions
from onnxprune.runtime import engines
from onnxprune.runtime.engines import open_engine
from onnxprune.runtime.engines.pool import Pool
from onnxprune.runtime.threads import VARIABLE, available

pytest.importorskip("joblib", reason="the extra [sweep] is not installed")

PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
import engine_work
from onnxprune.options.engines import EngineOptions
from onnxprune.runtime.engines import open_engine

with open_engine(EngineOptions(workers=2)) as engine:
    futures = [engine.submit(engine_work.hang, sys.argv[1]) for _ in range(3)]
    futures[0].result()
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Pool]:
    with open_engine(EngineOptions(workers=2, threads=1)) as opened:
        yield opened


@pytest.fixture(scope="module")
def short() -> Iterator[Pool]:
    with open_engine(EngineOptions(workers=2, threads=1, timeout=5)) as opened:
        yield opened


class TestLocal(EngineLaws):
    pass


def test_calls_that_were_running_elsewhere_are_not_repeated(engine: Pool, tmp_path: Path) -> None:
    other = engine.submit(engine_work.noted, str(tmp_path), "other", 1.0)
    wait_for(tmp_path, "other")
    assert engine.submit(engine_work.die, str(tmp_path), "died").exception()
    assert other.result() == "other"
    assert len(noted(tmp_path, "other")) == 1


def test_a_process_that_keeps_a_model_stays() -> None:
    """loky would end one that grows by 300 MB."""
    with open_engine(EngineOptions(workers=1)) as opened:
        first = opened.submit(engine_work.process).result()
        assert [opened.submit(engine_work.grow, size).result() for size in (400, 1, 1)] == [first] * 3


def test_workers_are_as_many_as_cores_and_share_them() -> None:
    with open_engine(EngineOptions()) as opened:
        assert opened.workers == available()
        assert opened.name == "local"
        if Path("/proc/self/environ").exists():
            assert opened.submit(engine_work.environment).result()[VARIABLE] == "1"


@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_no_process_outlives_the_one_that_opened_the_engine(tmp_path: Path, how: str) -> None:
    """An interrupt reaches the workers, too, as from a keyboard; a kill does not."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as program:
        while len(workers := wait_for(tmp_path, "hangs")) < 2:
            pass
        if how == "interrupt":
            os.killpg(program.pid, signal.SIGINT)
        else:
            program.kill()
        assert gone(workers)
        told = program.communicate()[1]
    if how == "interrupt":
        assert told.rstrip().endswith("KeyboardInterrupt")
        assert told.count("Traceback") == 1  # the workers say nothing


def test_an_engine_whose_package_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    for name, extra in (("local", "sweep"), ("dask", "dask"), ("ray", "ray")):
        with pytest.raises(OptionError, match=rf"--engine {name} needs \w+: run pip install \"onnxprune\[{extra}\]\""):
            open_engine(EngineOptions(name))
