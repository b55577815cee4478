"""What a worker does with one task: read, prune, publish. Plain data in and out; all that it makes goes into the store."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from onnxprune.driver.fault import explained
from onnxprune.driver.shared import SharedStages
from onnxprune.errors import OnnxPruneError, RequirementError
from onnxprune.ir import files
from onnxprune.ir.temporary import temporary_folder
from onnxprune.ir.unchanged import watched
from onnxprune.options.documents import strict
from onnxprune.options.shared import NOISE
from onnxprune.pipeline.steps import STEPS, Given, StepInput, read
from onnxprune.runtime.custom_operators import custom_operators
from onnxprune.sweep.inputs import Input
from onnxprune.sweep.store import DONE, FAILED, INPUTS, Outcome, Store

__all__ = ["carry_out", "failed", "order_of", "read_order", "stages_of"]

_FAMILIES = 2
"""Families whose stages a process keeps at a time."""

_kept: OrderedDict[tuple[str, str], SharedStages] = OrderedDict()
"""Stages that tasks of this process share, by family and the place of the model, the latest last."""


def order_of(task: Any, store: Store) -> dict[str, Any]:
    """A task as plain data, for `carry_out`.

    Args:
        task: a `onnxprune.sweep.tasks.Task`.
        store: where its result goes.
    """
    return {
        "key": task.key,
        "family": task.family if task.stages else "",
        "model": task.model.to_dict(),
        "samples": {name: one.to_dict() for name, one in task.samples.items()},
        "step": task.step,
        "table": dict(task.table),
        "settings": dict(task.settings),
        "libraries": [str(Path(one).absolute()) for one in task.libraries],
        "store": store.root,
    }


def carry_out(order: Mapping[str, Any]) -> Outcome:
    """Do a task, and keep what came of it in the store.

    Returns:
        What came of it. Where it is plain that it would fail again (a target that cannot be reached, a gate that was missed) that
        is the outcome, and is kept, too.

    Raises:
        OnnxPruneError: it failed otherwise; nothing is kept.
        OutputError: the store cannot be written.
    """
    start, store = time.perf_counter(), Store(order["store"])
    named = {"key": order["key"], "model": order["model"]["text"], "settings": order["settings"], "worker": _worker()}
    with watched(), ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        try:
            with _faults(order):
                made, report = _made(order, folder, stack)
        except RequirementError as error:
            outcome = failed(error, **named, lasting=True, seconds=time.perf_counter() - start)
            store.publish(outcome)
            return outcome
        parts = files.model_files(made)
        found = Outcome(
            **named,
            state=DONE,
            report=report,
            sha256=Input.of_model(made).digest,
            nbytes=sum(part.stat().st_size for part in parts),
            seconds=time.perf_counter() - start,
        )
        store.publish(found, made)
    return found


def failed(error: BaseException, **known: Any) -> Outcome:
    """The outcome of a task that raised an error."""
    return Outcome(**known, state=FAILED, error=" ".join(str(error).split()) or type(error).__name__, kind=type(error).__name__)


def _made(order: Mapping[str, Any], folder: Path, stack: ExitStack) -> tuple[Path, dict[str, Any]]:
    """The model of a task as a file, and the report."""
    model, options = read_order(order, stack)
    result, report = STEPS[order["step"]].run(StepInput(model, model, None, lambda _: None, stages_of(order)), options)
    assert result is not None  # noqa: S101 - steps that can be swept make a model
    made = folder / "model.onnx"
    result.save(made)
    return made, json.loads(json.dumps(strict(report), default=str))


def read_order(order: Mapping[str, Any], stack: ExitStack) -> tuple[Path, Given]:
    """The model of a task as a file of this machine, and its options.

    Args:
        order: as `order_of` makes it.
        stack: as long as it lasts, custom operators are there.

    Raises:
        InputError: a file is neither where it was nor in the store.
        OptionError: an option makes no sense.
    """
    store = Store(order["store"])
    model = store.fetch_input(Input(**order["model"]), INPUTS)
    samples = {name: str(store.fetch_input(Input(**one), INPUTS)) for name, one in order["samples"].items()}
    stack.enter_context(custom_operators(*order["libraries"]))
    return model, read(order["step"], {**order["table"], **samples}, Path())


@contextmanager
def _faults(order: Mapping[str, Any]) -> Iterator[None]:
    """A context that turns errors that nobody foresaw into ones that say whose fault they are."""
    try:
        yield
    except (OnnxPruneError, OSError, MemoryError):
        raise
    except Exception as error:
        samples = {f"--{name}": one["text"] for name, one in order["samples"].items() if one["text"] != NOISE}
        raise explained(error, [Path(order["model"]["text"])], samples, order["table"].get("preprocess", "")) from error


def stages_of(order: Mapping[str, Any]) -> SharedStages | None:
    """The stages that the task shares with others, as far as they are known here."""
    if not order["family"]:
        return None
    name = (order["family"], order["model"]["text"])
    found = _kept.pop(name, None) or SharedStages(Store(order["store"]).shared(order["family"]))
    _kept[name] = found
    while len(_kept) > _FAMILIES:
        _kept.popitem(last=False)
    return found


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
