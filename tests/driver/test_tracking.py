"""`--mlflow`: what is sent, when, and what is said where nothing can be; with MLflow installed, against a server of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from command import ENV, complaints, names, net, refused, shell, within
from documents import pruned
from onnxprune.driver import tracking
from onnxprune.driver.tracking import Number, numbers, parameters
from onnxprune.errors import OptionError, ReportError

PRUNE = ("prune", "net.onnx", "-o", "small.onnx", "--target", "macs=0.7", "--align", "1", "--no-benchmark")
URI = "http://127.0.0.1:1"
RECIPE = """model = "net.onnx"
output = "built.onnx"
mlflow = "{uri}"
[prune]
target = "macs=0.7"
align = "1"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(net(), tmp_path / "net.onnx")
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32))
    return tmp_path


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The documents that are logged, without a server."""
    found: list[dict[str, Any]] = []

    def log_run(document: dict[str, Any], uri: str) -> dict[str, str]:
        found.append(dict(document))
        return {"run": "a1", "experiment": "0", "url": f"{uri}/#/experiments/0/runs/a1"}

    monkeypatch.setattr(tracking, "check_tracking", lambda _: None)
    monkeypatch.setattr(tracking, "log_run", log_run)
    return found


# What is sent


def test_numbers_have_the_keys_of_the_report() -> None:
    found = {one.key: one.value for one in numbers(pruned())}
    assert found["before.macs"] == 2000
    assert found["after.macs"] == 1000
    assert found["verification.error"] == 3e-7
    assert found["judgement.share"] == 0.99
    assert found["benchmark.rows.pruned.latency.median_ms"] == 0.1
    assert not [key for key in found if key.startswith(("groups", "refusals"))], "one for each layer says nothing of the whole"
    assert "verification.ok" not in found, "true is no number"


def test_epochs_become_curves_and_pairs_are_before_and_after() -> None:
    document = {"epochs": [{"loss": 2.0, "phase": "tune"}, {"loss": 1.0, "phase": "tune"}], "bytes": [10, 4], "widths": [1, 2, 3]}
    assert numbers(document) == [
        Number("epochs.loss", 2, 0),
        Number("epochs.loss", 1, 1),
        Number("bytes.before", 10),
        Number("bytes.after", 4),
    ]


def test_names_are_those_that_mlflow_takes() -> None:
    assert numbers({"rows": [{"label": "näher: 2|3\n", "ms": 1}], "x": float("inf")})[0] == Number("rows.näher_ 2_3_.ms", 1)


def test_options_are_those_of_the_command_and_of_every_step() -> None:
    document = {
        "options": {
            "model": "net.onnx",
            "calib": "",
            "seed": 0,
            "benchmark": False,
            "mlflow": URI,
            "report": "r.html",
            "protect": [],
        },
        "steps": [{"name": "prune", "do": "prune", "options": {"target": "macs=0.5"}, "report": {"macs": 1}}],
    }
    assert parameters(document) == {"model": "net.onnx", "seed": "0", "benchmark": "False", "prune.target": "macs=0.5"}
    assert numbers(document) == [Number("steps.prune.report.macs", 1)]


def test_what_is_logged_is_what_is_printed(folder: Path, logged: list[dict[str, Any]]) -> None:
    done = within(*PRUNE, "--mlflow", URI, "--json", cwd=folder)
    assert done.status == 0, done.err
    printed = done.json()
    assert printed.pop("mlflow")["run"] == "a1"
    assert json.loads(json.dumps(logged)) == [printed]
    assert printed["options"]["target"] == "macs=0.7"


def test_people_are_told_where(folder: Path, logged: list[dict[str, Any]]) -> None:
    done = within(*PRUNE, "--mlflow", URI, cwd=folder)
    assert done.out.splitlines()[-1] == f"logged: {URI}/#/experiments/0/runs/a1"


def test_a_recipe_is_logged_once_wherever_it_says_so(folder: Path, logged: list[dict[str, Any]]) -> None:
    (folder / "r.toml").write_text(RECIPE.format(uri=URI))
    assert not within("run", "r.toml", "--dry-run", cwd=folder).status
    assert not logged
    done = within("run", "r.toml", cwd=folder)
    assert done.status == 0, done.err
    assert [one["command"] for one in logged] == ["run"]
    assert logged[0]["steps"][0]["options"] == {"target": "macs=0.7", "align": "1"}


def test_nothing_is_sent_because_of_the_environment_alone(
    folder: Path, logged: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    assert within(*PRUNE, cwd=folder).status == 0
    assert not logged
    assert within(*PRUNE, "--force", "--mlflow", "auto", cwd=folder).status == 0
    assert len(logged) == 1


# Where it cannot be


def test_without_mlflow_it_is_said_before_anything_is_computed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    refused(within(*PRUNE, "--mlflow", URI, cwd=folder), 2, "--mlflow needs MLflow", 'pip install "onnxprune[mlflow]"')
    (folder / "r.toml").write_text(RECIPE.format(uri=URI))
    refused(within("run", "r.toml", cwd=folder), 2, "--mlflow needs MLflow")
    assert names(folder) == {"net.onnx", "c.npz", "r.toml"}


@pytest.mark.parametrize(("have", "major"), [({"mlflow": "2.22.1"}, 2), ({"mlflow-skinny": "3.1", "mlflow": "3.1"}, 3), ({}, 0)])
def test_versions_are_told_apart(monkeypatch: pytest.MonkeyPatch, have: dict[str, str], major: int) -> None:
    def installed(name: str) -> str:
        if name not in have:
            raise PackageNotFoundError(name)
        return have[name]

    monkeypatch.setattr(tracking, "installed", installed)
    assert tracking._major() == major


def test_a_server_that_goes_away_costs_the_run_and_not_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(document: dict[str, Any], uri: str) -> dict[str, str]:
        raise ReportError(f"--mlflow {uri}: the run is not logged: it is gone; the output files are written")

    monkeypatch.setattr(tracking, "check_tracking", lambda _: None)
    monkeypatch.setattr(tracking, "log_run", gone)
    done = within(*PRUNE, "--mlflow", URI, cwd=folder)
    assert done.status == 74
    assert complaints(done) == f"onnxprune: --mlflow {URI}: the run is not logged: it is gone; the output files are written\n"
    assert "small.onnx" in done.out, "the report is printed all the same"
    assert (folder / "small.onnx").exists()
    told = within(*PRUNE, "--force", "--mlflow", URI, "--json", cwd=folder)
    assert (told.status, told.json()["failure"]["type"]) == (74, "ReportError")


def test_passwords_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError) as told, tracking._faults(OptionError, "what", "http://me:secret@host", "so"):
        raise ValueError("http://me:secret@host does not answer. Nothing more.")
    assert str(told.value) == "what: http://me:...@host does not answer; so"


# A server

needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None or find_spec("flask") is None, reason="mlflow is not installed")
PATIENCE = 600
"""Seconds that a server may take to start on a slow and busy machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "artifacts")]
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=env) as process:
        uri, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        while not _answers(f"{uri}/health"):
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()  # noqa: PT018
            time.sleep(0.5)
        yield uri
        process.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310 - a server of this test
            return bool(reply.status == 200)
    except OSError:
        return False


LOOK = """
import json, sys, numpy, mlflow
mlflow.set_tracking_uri(sys.argv[1])
client, found = mlflow.MlflowClient(), mlflow.get_run(sys.argv[2])
report = mlflow.artifacts.load_text(f"runs:/{sys.argv[2]}/report.json")
model = mlflow.pyfunc.load_model(f"runs:/{sys.argv[2]}/model")
answer = model.predict(numpy.ones((2, 3, 8, 8), numpy.float32))
print(json.dumps({
    "experiment": client.get_experiment(found.info.experiment_id).name, "name": found.info.run_name, "status": found.info.status,
    "params": found.data.params, "metrics": found.data.metrics, "tags": dict(found.data.tags), "report": json.loads(report),
    "files": [one.path for one in client.list_artifacts(sys.argv[2])], "inputs": model.metadata.signature.inputs.to_dict(),
    "shape": list(answer["y"].shape),
}))
"""


def look(uri: str, run: str) -> Any:
    """What a server has of a run."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LOOK, uri, run], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_mlflow
@pytest.mark.slow
def test_a_server_has_options_numbers_report_and_model(folder: Path, server: str) -> None:
    done = shell(*PRUNE, "--calib", "c.npz", "--mlflow", server, "--json", cwd=folder)
    assert done.status == 0, done.err
    assert not done.err
    told = done.json()
    kept = look(server, told["mlflow"]["run"])
    assert (kept["experiment"], kept["name"], kept["status"]) == ("onnxprune", "prune small.onnx", "FINISHED")
    assert kept["params"]["target"] == "macs=0.7"
    assert kept["metrics"]["after.macs"] == told["after"]["macs"]
    assert kept["report"] == {name: value for name, value in told.items() if name != "mlflow"}
    assert kept["files"] == ["report.html", "report.json"]
    assert kept["inputs"][0]["name"] == "x"
    assert kept["shape"] == [2, 8, 8, 8]
    assert kept["tags"]["onnxprune.level"] == told["judgement"]["level"]


@needs_mlflow
@pytest.mark.slow
def test_a_recipe_in_python_is_logged_inside_the_run_of_the_caller(folder: Path, server: str) -> None:
    (folder / "r.toml").write_text(RECIPE.format(uri=server))
    code = f"""
import json, mlflow, onnxprune
mlflow.set_tracking_uri({server!r})
mlflow.set_experiment("mine")
with mlflow.start_run() as outer:
    told = onnxprune.run("r.toml")
print(json.dumps([outer.info.run_id, told["mlflow"], mlflow.get_tracking_uri()]))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=ENV)
    assert done.returncode == 0, done.stderr
    outer, told, uri = json.loads(done.stdout.splitlines()[-2 if "View" in done.stdout.splitlines()[-1] else -1])
    assert uri == server
    kept = look(server, told["run"])
    assert (kept["experiment"], kept["tags"]["mlflow.parentRunId"]) == ("mine", outer)
    assert kept["params"]["prune.target"] == "macs=0.7"
    assert kept["metrics"]["bytes.after"] < kept["metrics"]["bytes.before"]


@needs_mlflow
@pytest.mark.slow
def test_a_server_that_does_not_answer_is_known_before_anything_is_computed(folder: Path) -> None:
    refused(shell(*PRUNE, "--mlflow", URI, cwd=folder), 2, URI, "Connection refused", "leave --mlflow out")
    assert names(folder) == {"net.onnx", "c.npz"}
