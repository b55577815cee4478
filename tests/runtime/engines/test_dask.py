"""Workers of a Dask cluster: of our own, and one that a test starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import engine_work
from command import ROOT
from engine_laws import PATIENCE, EngineLaws, ended, wait_for
from nets import NETS, parse
from onnxprune.data import calibration
from onnxprune.driver.prune import prune
from onnxprune.errors import EngineLost, OptionError
from onnxprune.linear import gather
from onnxprune.options.engines import EngineOptions
from onnxprune.options.prune import Recipe
from onnxprune.runtime.engines import dask as module
from onnxprune.runtime.engines import open_engine
from onnxprune.runtime.engines.pool import Pool

pytest.importorskip("distributed", reason="the extra [dask] is not installed")

PATHS = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
"""Where workers find this package, and the functions of the tests."""
pytestmark = [
    pytest.mark.slow,
    # Dask itself, when its processes end while others speak to them.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
PORT = ("--dashboard-address", "127.0.0.1:0")


@pytest.fixture(scope="module", autouse=True)
def _paths() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        yield


@pytest.fixture(scope="module")
def engine(_paths: None) -> Iterator[Pool]:
    with open_engine(EngineOptions("dask", workers=2, threads=1)) as opened:
        yield opened


@pytest.fixture(scope="module")
def short(_paths: None) -> Iterator[Pool]:
    with open_engine(EngineOptions("dask", workers=2, threads=1, timeout=5)) as opened:
        yield opened


class TestDask(EngineLaws):
    pass


def test_a_cluster_that_is_there_is_used_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        with open_engine(EngineOptions("dask", scheduler=cluster.scheduler_address)) as opened:
            assert opened.workers == 3
            names = [f"call {number}" for number in range(9)]
            futures = [opened.submit(engine_work.noted, str(tmp_path), name, 0.5) for name in names]
            os.kill(wait_for(tmp_path, "call 1")[0], signal.SIGKILL)
            assert [future.result() for future in futures] == names
        monkeypatch.setattr(gather, "_SHARD", 2)
        monkeypatch.setattr(calibration, "LARGEST_BATCH", 8)
        x = np.random.default_rng(0).standard_normal((80, 3, 8, 8)).astype(np.float32)
        recipes = Recipe(align="1"), Recipe(align="1", engine="dask", scheduler=cluster.scheduler_address)
        here, there = (prune(parse(NETS["chain"]), recipe, samples={"x": x}, agreement=False) for recipe in recipes)
        assert here.model.SerializeToString(deterministic=True) == there.model.SerializeToString(deterministic=True)
        with Client(cluster) as client:
            assert client.submit(engine_work.square, 3).result() == 9


def test_workers_with_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        monkeypatch.setattr(module, "version", lambda: "99.0")
        with pytest.raises(OptionError, match=r"worker tcp://\S+ has onnxprune \S+: install 99\.0 there"):
            open_engine(EngineOptions("dask", scheduler=cluster.scheduler_address))


def test_a_scheduler_without_workers_or_none_at_all_is_refused() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        address = cluster.scheduler_address
        with pytest.raises(OptionError, match="has no workers: start some with: dask worker tcp://"):
            open_engine(EngineOptions("dask", scheduler=address))
    with pytest.raises(OptionError, match=f"--scheduler {address}: nobody answers there"):
        open_engine(EngineOptions("dask", scheduler=address))


def test_a_scheduler_that_is_killed_is_said_to_be_lost(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, *PORT]
    joins = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", *PORT, "--death-timeout", "60"]

    def run(command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)

    with run(dask) as scheduler, run(joins) as worker:
        try:
            with open_when_there(address) as opened:
                futures = [opened.submit(engine_work.hang, str(tmp_path)) for _ in range(2)]
                wait_for(tmp_path, "hangs")
                scheduler.kill()
                for future in futures:
                    with pytest.raises(EngineLost, match="scheduler of Dask is lost"):
                        future.result()
                with pytest.raises(EngineLost):
                    opened.submit(engine_work.square, 1)
        finally:
            scheduler.kill()
            worker.kill()


def open_when_there(address: str) -> Pool:
    """The engine, as soon as the cluster has a worker."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return open_engine(EngineOptions("dask", scheduler=address))
        except OptionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    assert "KeyboardInterrupt" in ended("dask", tmp_path, signal.SIGINT)
