"""Processes of this machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine_work
from engine_laws import EngineLaws, ended, noted, wait_for
from onnxprune.errors import OptionError
from onnxprune.options.engines import EngineOptions
from onnxprune.runtime import engines
from onnxprune.runtime.engines import open_engine
from onnxprune.runtime.engines.pool import Pool
from onnxprune.runtime.threads import VARIABLE, available

pytest.importorskip("joblib", reason="the extra [sweep] is not installed")


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


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    told = ended("local", tmp_path, signal.SIGINT)
    assert told.rstrip().endswith("KeyboardInterrupt")
    assert told.count("Traceback") == 1  # the workers say nothing


def test_a_kill_leaves_no_process(tmp_path: Path) -> None:
    ended("local", tmp_path, signal.SIGKILL)


def test_an_engine_whose_package_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    for name, extra in (("local", "sweep"), ("dask", "dask"), ("ray", "ray")):
        with pytest.raises(OptionError, match=rf"--engine {name} needs \w+: run pip install \"onnxprune\[{extra}\]\""):
            open_engine(EngineOptions(name))
