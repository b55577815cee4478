"""Sweeps on real clusters and on a real object store, all on this machine: the results are those of local processes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import sweep_work
from command import ROOT
from onnxprune.errors import EngineLost, OptionError
from onnxprune.options.engines import EngineOptions
from onnxprune.options.sweep import PickRecipe
from onnxprune.runtime.engines import open_engine
from onnxprune.sweep.picking import copied
from onnxprune.sweep.run import run_sweep
from onnxprune.sweep.store import Store
from onnxprune.sweep.summary import best, rows_of
from sweep_work import recipe_in, write_models

pytestmark = pytest.mark.slow

_PATIENCE = 300.0
"""Seconds that a cluster may take to start."""
SIX = {"target": ("macs=0.9:0.5:3",), "option": ("align=1", "criterion=obs,l2")}


def needs(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, with what a sweep by local processes makes of them."""
    needs("joblib")
    path = write_models(tmp_path_factory.mktemp("clusters"), "a")
    found = run_sweep(recipe_in(path, **SIX), EngineOptions(workers=2, threads=1))
    assert found["done"] == 6
    return path


def made(store: Store, folder: Path) -> dict[str, bytes]:
    """The bytes of every model, by the key of its task."""
    found = {}
    for outcome in store.outcomes():
        path = store.fetch_model(outcome.sha256, folder)
        assert path is not None
        found[outcome.key] = path.read_bytes()
    return found


@pytest.mark.parametrize(("engine", "package", "workers"), [("dask", "distributed", 3), ("ray", "ray", 2)])
@pytest.mark.filterwarnings("ignore")  # of these packages
def test_results_of_a_cluster(engine: str, package: str, workers: int, folder: Path, tmp_path: Path) -> None:
    needs(package)
    recipe = recipe_in(folder, **SIX, store=str(tmp_path / "sweep"))
    found = run_sweep(recipe, EngineOptions(engine=engine, workers=workers, threads=1))
    assert (found["done"], found["failed"]) == (6, 0)
    expected = made(Store(str(folder / "sweep")), tmp_path)
    assert made(Store(str(tmp_path / "sweep")), tmp_path) == expected
    assert len({outcome.worker for outcome in Store(str(tmp_path / "sweep")).outcomes()}) > 1


@pytest.mark.filterwarnings("ignore")  # of Dask, whose processes end while others speak to them
def test_a_scheduler_that_is_killed_costs_nothing_that_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("distributed", "joblib")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    recipe = recipe_in(write_models(tmp_path, "a"), target=("macs=0.9:0.35:12",), option=("align=1,4",))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    quiet = ("--dashboard-address", "127.0.0.1:0")
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, *quiet]
    joins = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--death-timeout", "60", *quiet]

    def calls() -> int:
        path = tmp_path / "calls"
        return len(path.read_text().split()) if path.exists() else 0

    with started(dask, tmp_path) as scheduler, started(joins, tmp_path):
        engine = EngineOptions("dask", scheduler=address)
        await_workers(engine)

        def kill() -> None:
            while calls() < 5:
                time.sleep(0.01)
            scheduler.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(EngineLost, match="of 24 results are kept: repeat the command to go on"):
            run_sweep(recipe, engine, work=sweep_work.slow_stub)
        killer.join()
    kept, before = len(Store(recipe.store).keys()), calls()
    assert 0 < kept < 24
    found = run_sweep(recipe, EngineOptions(workers=2, threads=1), work=sweep_work.slow_stub)
    assert (found["done"], found["reused"], calls() - before) == (24, kept, 24 - kept)


@contextlib.contextmanager
def started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the context, also where a test fails."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


def await_workers(engine: EngineOptions) -> None:
    """Return as soon as the cluster has a worker; a busy machine takes long to start one."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            open_engine(engine).close()
        except OptionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket of an S3 server on this machine."""
    needs("moto", "s3fs", "flask")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="sweeps")
    yield "s3://sweeps"
    server.stop()


@pytest.mark.filterwarnings("ignore")  # of these packages
def test_results_in_an_object_store(bucket: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"{bucket}/deep/sweep"
    recipe = recipe_in(folder, **SIX, store=root)
    found = run_sweep(recipe, EngineOptions(workers=2, threads=1))
    assert (found["done"], found["failed"]) == (6, 0)
    assert made(Store(root), tmp_path / "fetched") == made(Store(str(folder / "sweep")), tmp_path)
    assert run_sweep(recipe)["reused"] == 6
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))  # as on another machine, which has no index
    rows = rows_of(Store(root))
    assert sorted(row["key"] for row in rows) == sorted(row["key"] for row in found["rows"])
    assert run_sweep(recipe)["reused"] == 6
    row = best(rows, PickRecipe(least="macs"))[0]
    out = copied(Store(root), row, tmp_path / "best.onnx", tmp_path / "more", several=False, force=False)
    assert Path(out).stat().st_size == row["bytes"]
    names = {name.split("/")[0] for name in Store(root).place.names("")}
    assert names == {"inputs", "models", "results", "shared", "sweep.json"}
