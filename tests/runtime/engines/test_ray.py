"""Actors of a Ray cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine_work
from command import ROOT
from engine_laws import EngineLaws, ended
from onnxprune.errors import OptionError
from onnxprune.options.engines import EngineOptions
from onnxprune.runtime.engines import open_engine
from onnxprune.runtime.engines import ray as module
from onnxprune.runtime.engines.pool import Pool

pytest.importorskip("ray", reason="the extra [ray] is not installed")

PATHS = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
"""Where actors find this package, and the functions of the tests."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:::ray", "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster as of a program that has called `ray.init`; the engines of this file have up to six actors at once in it."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", num_cpus=6, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def engine(cluster: None) -> Iterator[Pool]:
    with open_engine(EngineOptions("ray", workers=2, threads=1)) as opened:
        yield opened


@pytest.fixture(scope="module")
def short(cluster: None) -> Iterator[Pool]:
    with open_engine(EngineOptions("ray", workers=2, threads=1, timeout=5)) as opened:
        yield opened


class TestRay(EngineLaws):
    pass


def test_the_cluster_of_a_program_stays(engine: Pool) -> None:
    import ray

    with open_engine(EngineOptions("ray", workers=1)) as opened:
        assert opened.submit(engine_work.square, 2).result() == 4
    assert ray.is_initialized()


def test_actors_with_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda: "99.0")
    with pytest.raises(OptionError, match=r"its machines have onnxprune \S+: install 99\.0 there"):
        open_engine(EngineOptions("ray", workers=1, scheduler="auto"))


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    assert "KeyboardInterrupt" in ended("ray", tmp_path, signal.SIGINT)
