"""Output files appear whole or not at all.

An output is written beside its place and then renamed. A path that is a symbolic link is replaced itself; what it pointed to
stays as it was.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from onnxprune.errors import ModelError, OutputError

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

__all__ = ["check_output", "model_files", "replace_file", "save", "sha256", "size_on_disk"]

LARGE = 2**26
"""Bytes from which a model that came with external data gets a data file again: then no copy of it is ever in memory."""
LIMIT = 2**31 - 2**20
"""Bytes that fit in one protobuf file, with room for its framing."""
_INLINE = 1024
"""Tensors up to this size stay in the model file when the others go to a data file."""
_PAGE = 4096


def check_output(path: str | Path, *, inputs: tuple[str | Path, ...] = (), force: bool = False) -> Path:
    """The path, if a file may be written there.

    Raises:
        OutputError: its folder is missing or not writable, it is one of the inputs or holds the weights of one, or it exists
            and ``force`` is not set.
    """
    out = Path(path)
    try:
        if out.is_dir():
            raise OutputError(f"{out}: is a folder: name a file in it")
        if any(_same(out, Path(source)) for source in inputs):
            raise OutputError(f"{out}: is the path of another file of this command: write to another one")
        if out.parent.exists() and not out.parent.is_dir():
            raise OutputError(f"{out}: {out.parent} is a file, not a folder: write to another place")
        if not out.parent.exists():
            raise OutputError(f"{out}: there is no folder {out.parent}: create it first")
        if not os.access(out.parent, os.W_OK):
            raise OutputError(f"{out}: the folder {out.parent} is not writable: write to another one")
        if not os.path.lexists(out):
            return out
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error
    if not force:
        raise OutputError(f"{out}: exists already: pass --force to replace it")
    if any(_same(out, data) for source in inputs for data in _data_files(Path(source))):
        raise OutputError(f"{out}: holds weights of an input: write to another file")
    return out


def _same(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):  # unlike resolve, it ends where links lead in a circle
        return True
    return one.exists() and other.exists() and one.samefile(other)


def _data_files(path: Path) -> set[Path]:
    """The files beside a model that hold its weights; none if it is no model."""
    if not path.is_file():
        return set()
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    from onnxprune.ir.model import load_proto

    try:
        tensors = load_proto(path).graph.initializer
    except ModelError:
        return set()
    return {path.parent / ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)}


def model_files(path: Path) -> list[Path]:
    """The files that a model lies in: its own, then those with its weights."""
    return [path, *sorted(data for data in _data_files(path) if data != path)]


def size_on_disk(path: Path) -> int:
    """Bytes of a model on disk, external data included."""
    return sum(part.stat().st_size for part in model_files(path))


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of ``path`` when it is whole; an error or a kill leaves ``path`` as it was.

    Raises:
        OutputError: the disk is full or the folder not writable.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".part", dir=path.parent)
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
    """Write a model; weights that do not fit in one file go to a data file beside it, which is in place first.

    The data file of a model that is replaced goes last, unless another model reads it.

    Raises:
        OutputError: the disk is full or the folder not writable.
    """
    old = {data for data in _data_files(path) if data.parent == path.parent and _is_data_of(data.name, path.name)}
    if model.nbytes < (LARGE if model.external else LIMIT):
        with replace_file(path) as file:
            file.write(model.to_proto().SerializeToString())
    else:
        _save_in_two(model, path)
    others = {*path.parent.glob("*.onnx"), Path(model.name)} - {path}
    for data in old:
        if not any(_mentions(other, data.name) for other in others):
            with contextlib.suppress(OSError):
                data.unlink()


def _is_data_of(data: str, model: str) -> bool:
    return re.fullmatch(re.escape(model) + r"(\.\d+)?\.data", data) is not None


def _mentions(path: Path, name: str) -> bool:
    """Tell whether a file holds a name, or cannot be searched for it."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(name.encode()) >= 0
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # an empty file cannot be mapped
        return path.is_file() and path.stat().st_size > 0


def _save_in_two(model: Model, path: Path) -> None:
    from onnx import TensorProto
    from onnx.external_data_helper import set_external_data

    data = _fresh_data_path(path)
    proto = model.skeleton(keep_below=-1)
    declared = {value.name for value in model.graph.input}
    kept = [value for value in proto.graph.input if value.name in declared]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    model.list_constants(proto)
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
    try:
        with replace_file(path) as file:
            file.write(proto.SerializeToString())
    except BaseException:
        data.unlink(missing_ok=True)
        raise


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
