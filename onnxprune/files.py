"""Output files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from onnxprune.errors import OutputError

if TYPE_CHECKING:
    from onnxprune.model import Model

__all__ = ["check_output", "replace_file", "save", "sha256"]

LIMIT = 2**31 - 2**20
"""Bytes that fit in one protobuf file, with room for its framing."""
_INLINE = 1024
"""Tensors up to this size stay in the model file when the others go to a data file."""
_PAGE = 4096


def check_output(path: str | Path, *, inputs: tuple[str | Path, ...] = (), force: bool = False) -> Path:
    """The path, if a file may be written there.

    Raises:
        OutputError: its folder is missing or not writable, it is one of the inputs, or it exists and ``force`` is not set.
    """
    out = Path(path)
    if out.is_dir():
        raise OutputError(f"{out}: is a folder: name a file in it")
    if any(out.resolve() == Path(source).resolve() for source in inputs):
        raise OutputError(f"{out}: is an input too: write to another file")
    if not out.parent.is_dir():
        raise OutputError(f"{out}: there is no folder {out.parent}: create it first")
    if not os.access(out.parent, os.W_OK):
        raise OutputError(f"{out}: the folder {out.parent} is not writable")
    if out.exists() and not force:
        raise OutputError(f"{out}: exists already: pass --force to replace it")
    return out


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of ``path`` when it is whole; an error or a kill leaves ``path`` as it was.

    Raises:
        OutputError: the disk is full or the folder not writable.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        Path(name).unlink(missing_ok=True)


def save(model: Model, path: Path) -> None:
    """Write a model; weights that do not fit in one file go to a data file beside it, which is in place first."""
    if model.nbytes < LIMIT:
        with replace_file(path) as file:
            file.write(model.to_proto().SerializeToString())
        return
    from onnx import TensorProto
    from onnx.external_data_helper import set_external_data

    data = _fresh_data_path(path)
    proto = model.skeleton(keep_below=-1)
    declared = {value.name for value in model.graph.input}
    kept = [value for value in proto.graph.input if value.name in declared]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    with replace_file(data) as file:
        for weight in model.weights.values():  # one at a time: memory does not grow with the model
            if weight.nbytes <= _INLINE:
                weight.append_to(proto.graph.initializer)
                continue
            file.write(b"\0" * (-file.tell() % _PAGE))
            tensor = TensorProto(name=weight.name, data_type=weight.dtype, dims=weight.shape, raw_data=b"\0")
            set_external_data(tensor, data.name, file.tell(), weight.nbytes)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            proto.graph.initializer.append(tensor)
            weight.write(file)
    with replace_file(path) as file:
        file.write(proto.SerializeToString())


def _fresh_data_path(path: Path) -> Path:
    """A name that no file has: the data of a model that is being replaced stays valid until that model is."""
    data, count = path.with_name(f"{path.name}.data"), 0
    while data.exists():
        count += 1
        data = path.with_name(f"{path.name}.{count}.data")
    return data


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    import hashlib

    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
