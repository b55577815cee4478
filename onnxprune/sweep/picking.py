"""The files of results: where they lie in a store, and copies of them elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune.errors import OutputError
from onnxprune.ir.files import check_output, save
from onnxprune.ir.model import Model
from onnxprune.sweep.index import Rows
from onnxprune.sweep.store import Outcome, Store

__all__ = ["copied", "linked", "place_for"]


def place_for(store: Store, row: Mapping[str, Any]) -> str:
    """Where the model of a row lies.

    Raises:
        OutputError: it is gone.
    """
    name = store.model_name(_outcome(store, row).sha256)
    if not store.place.has(name):
        raise OutputError(f"{store.place.root}: {name} is gone: run the sweep again")
    return f"{store.place.root.rstrip('/')}/{name}"


def copied(store: Store, row: Mapping[str, Any], output: Path, folder: Path, *, several: bool, force: bool) -> str:
    """Write a copy of the model of a row, and return its path.

    Args:
        store: where it lies.
        row: of the task.
        output: a file; for several models, or where it is one, a folder.
        folder: for what is fetched.
        several: whether there are several models.
        force: whether an existing file is replaced.

    Raises:
        OutputError: it cannot be written, or is there already.
    """
    found = store.fetch_model(_outcome(store, row).sha256, folder)
    if found is None:
        raise OutputError(f"{store.place.root}: the model is gone: run the sweep again")
    if several and not output.is_dir():
        raise OutputError(f"{output}: is no folder, and there are several models: create it, or name one with --model GLOB")
    path = output / Path(row["model"]).name if output.is_dir() else output
    check_output(path, inputs=(found,), force=force)
    save(Model.of(found), path)
    return str(path)


def linked(store: Store, rows: Rows, folder: Path) -> Rows:
    """The rows with the addresses of their reports as seen from a folder."""
    root = store.place.root.rstrip("/") if store.folder is None else os.path.relpath(store.folder, folder)
    return [{**row, "report": f"{root}/{row['report']}".removeprefix("./")} if row["report"] else row for row in rows]


def _outcome(store: Store, row: Mapping[str, Any]) -> Outcome:
    found = store.result(row["key"])
    if found is None:
        raise OutputError(f"{store.place.root}: the result of {row['model']} is gone: run the sweep again")
    return found
