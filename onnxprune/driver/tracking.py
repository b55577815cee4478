"""MLflow: what a command did becomes a run, with its options, its numbers, the report as JSON and as a page, and the model.

MLflow is imported, and what the environment says of it read, only where a user asks for it: nothing is sent otherwise. Its client
then reads what it always reads (``MLFLOW_EXPERIMENT_NAME``, ``MLFLOW_RUN_ID``, ``MLFLOW_TRACKING_TOKEN``, ...).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import onnx

from onnxprune.errors import OnnxPruneError, OptionError, ReportError
from onnxprune.ir import files
from onnxprune.options.documents import strict
from onnxprune.options.tracking import tracking_uri
from onnxprune.options.version import version
from onnxprune.pages.page import check_installed, page

__all__ = ["Number", "check_tracking", "log_run", "numbers", "parameters"]

_EXPERIMENT = "onnxprune"
"""The experiment, where the environment names none."""
_FIRST = 3
"""The first version of MLflow whose models have names of their own."""
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
"""Nothing goes to others than those that were asked for, and stdout is for reports; unless the environment says otherwise."""
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""While it is only asked whether anybody answers; unless the environment says otherwise."""
_NAMED = {"rows": "label", "steps": "name"}
"""Lists of a report whose items are told apart by a name."""
_SERIES = ("epochs", "stages")
"""Lists of a report that become curves. What lies in others, as of each layer, is in the report alone."""
_PAIR = 2
"""A list of numbers this long is before and after."""
_TOLD = ("mlflow", "report", "force", "as_json", "every")
"""Options that change nothing in the model."""
_ODD = re.compile(r"[^\w.\- /]")
"""What names cannot have in MLflow."""


class Number(NamedTuple):
    """A number of a report: its keys with dots between, its value, and where it is on a curve."""

    key: str
    value: float
    step: int = 0


def check_tracking(uri: str) -> None:
    """Nothing happens if runs can be logged to a tracking URI, as far as can be known before anything is computed.

    Raises:
        OptionError: MLflow, or what pages need, is not installed; or nobody answers.
    """
    place = tracking_uri(uri)
    if find_spec("mlflow") is None or find_spec("pandas") is None or _major() < _FIRST:
        raise OptionError(f'--mlflow needs MLflow {_FIRST} or newer, and pandas: run pip install "onnxprune[mlflow]"')
    check_installed("--mlflow", "mlflow")
    told = f"--mlflow {uri}: no run can be logged there"
    with _environment(_QUIET | _IMPATIENT), _faults(OptionError, told, place, "start the server, or leave --mlflow out"):
        from mlflow import MlflowClient

        MlflowClient(tracking_uri=place).search_experiments(max_results=1)


def _major() -> int:
    """The first number of the version of MLflow; 0 if what is called so is something else."""
    for name in ("mlflow-skinny", "mlflow"):  # the whole one has both names, old ones the second alone
        with contextlib.suppress(PackageNotFoundError):
            return int(installed(name).partition(".")[0])
    return 0


def log_run(document: Mapping[str, Any], uri: str) -> dict[str, str]:
    """Log what a command did as a run, in a run of the caller's if there is one.

    Args:
        document: what the command prints with ``--json``; its ``output`` is the model.
        uri: the tracking URI.

    Returns:
        Where it is: the ids of ``run`` and ``experiment``, and for servers the ``url`` of its page.

    Raises:
        ReportError: MLflow did not take it.
    """
    place, document = tracking_uri(uri), strict(document)
    told = f"--mlflow {uri}: the run is not logged"
    with _environment(_QUIET), _faults(ReportError, told, place, "the output files are written"):
        import mlflow

        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(place)
        try:
            inside = mlflow.active_run() is not None
            title = f"{document.get('command') or 'run'} {Path(document['output']).name}"
            with mlflow.start_run(run_name=title, experiment_id=None if inside else _experiment(), nested=inside) as run:
                _fill(run.info.run_id, document)
        finally:
            mlflow.set_tracking_uri(before)
    found = {"run": run.info.run_id, "experiment": run.info.experiment_id}
    if place.startswith(("http://", "https://")):
        server = re.sub("//.*@", "//", place).rstrip("/")  # without a user's name and password
        found["url"] = f"{server}/#/experiments/{found['experiment']}/runs/{found['run']}"
    return found


def _experiment() -> str | None:
    """The id of our experiment, which is made if need be; ``None`` where the environment, or the caller, named another one."""
    from mlflow import MlflowClient

    if os.environ.keys() & {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"}:
        return None
    client = MlflowClient()  # `mlflow.set_experiment` would also send there what the caller logs later
    found = client.get_experiment_by_name(_EXPERIMENT)
    return str(found.experiment_id if found else client.create_experiment(_EXPERIMENT))


def _fill(run: str, document: Mapping[str, Any]) -> None:
    """Everything that a run has; it is the active one."""
    import mlflow
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    mlflow.log_params(parameters(document))
    found = [Metric(one.key, one.value, now, one.step) for one in numbers(document)]
    mlflow.MlflowClient().log_batch(run, metrics=found)
    mlflow.log_text(json.dumps(document, indent=1, allow_nan=False), "report.json")
    mlflow.log_text(page(document), "report.html")
    output = Path(document["output"])
    model = onnx.load(output)
    known = {"version": version(), "source": str(document.get("model", "")), "sha256": files.sha256(output)}
    level = str((document.get("judgement") or {}).get("level", ""))
    mlflow.set_tags({f"onnxprune.{name}": text for name, text in {**known, "level": level}.items() if text})
    mlflow.onnx.log_model(
        model,
        name="model",
        signature=_signature(model),
        pip_requirements=mlflow.onnx.get_default_pip_requirements(),
        save_as_external_data=len(files.model_files(output)) > 1,  # else it is the file that was written
        metadata={f"onnxprune.{name}": text for name, text in known.items()},
    )


def _signature(model: onnx.ModelProto) -> Any:
    """Inputs and outputs as MLflow describes them; ``None`` where it has no word for one."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    constants = {tensor.name for tensor in model.graph.initializer}
    sides = []
    for values in ([value for value in model.graph.input if value.name not in constants], model.graph.output):
        specs = []
        for value in values:
            kind = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else None
            if dtype is None or dtype.kind not in "fiub" or not kind.HasField("shape"):
                return None
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
            specs.append(TensorSpec(dtype, shape, value.name))
        sides.append(Schema(specs))
    return ModelSignature(*sides)


def parameters(document: Mapping[str, Any]) -> dict[str, str]:
    """The options of a command, and of the steps of a recipe, by name."""
    steps = [step for step in document.get("steps") or () if isinstance(step, Mapping)]
    tables = [("", document.get("options") or {}), *((f"{step['name']}.", step.get("options") or {}) for step in steps)]
    return {
        _ODD.sub("_", f"{prefix}{name}"): str(value)
        for prefix, table in tables
        for name, value in table.items()
        if name not in _TOLD and value not in (None, "", [], ())
    }


def numbers(document: Mapping[str, Any]) -> list[Number]:
    """Every number of a report that says something of all of it, by the keys of the report: ``after.macs``."""
    return [Number(_ODD.sub("_", one.key), one.value, one.step) for one in _walked(document, "")]


def _walked(part: Any, key: str, step: int = 0) -> Iterator[Number]:
    last = key.rpartition(".")[2]
    if isinstance(part, int | float) and not isinstance(part, bool):
        yield Number(key, float(part), step)
    elif isinstance(part, Mapping):
        for name, item in part.items():
            if name != "options":
                yield from _walked(item, f"{key}.{name}" if key else name, step)
    elif isinstance(part, Sequence) and not isinstance(part, str):
        for number, item in enumerate(part):
            if isinstance(item, Mapping) and last in _NAMED and _NAMED[last] in item:
                yield from _walked(item, f"{key}.{item[_NAMED[last]]}", step)
            elif isinstance(item, Mapping) and last in _SERIES:
                yield from _walked(item, key, number)
            elif isinstance(item, int | float) and len(part) == _PAIR:
                yield from _walked(item, f"{key}.{('before', 'after')[number]}", step)


@contextlib.contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """A context in which variables that are not set have these values."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _faults(kind: type[OnnxPruneError], what: str, place: str, so: str) -> Iterator[None]:
    """A context in which nothing is printed, and whatever MLflow raises is one error, which does not tell a password."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except Exception as error:
        cause = re.search(r"\[Errno -?\d+\] ([\w ]+)", str(error))  # at the end of a long list of calls
        why = cause[1] if cause else " ".join(str(error).split()).split(". ")[0].replace(urlsplit(place).password or "\0", "...")
        raise kind(f"{what}: {why}; {so}") from error
