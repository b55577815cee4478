"""The files that models lie in: one, or a graph and a file with its data."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from onnxprune.errors import OutputError
from onnxprune.ir.model import data_files
from onnxprune.ir.needed import remove_abandoned, retired
from onnxprune.ir.outputs import Outputs, Part, check_kind, exclusive
from onnxprune.ir.weights import field_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnx import ModelProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Weight

__all__ = [
    "check_apart",
    "check_output",
    "constant_bytes",
    "model_files",
    "save",
    "sha256",
    "size_on_disk",
    "source_bytes",
    "written_bytes",
]

LARGE = 2**26
"""Bytes from which a model that came with external data gets a data file again: then no copy of it is ever in memory."""
LIMIT = 2**31 - 2**20
"""Bytes that fit in one protobuf file, with room for its framing."""
_INLINE = 1024
"""Tensors up to this size stay in the model file when the others go to a data file."""
_PAGE = 4096
_HEAD = 128
"""Bytes of a tensor whose data lies in another file, about."""


def check_output(path: str | Path, *, inputs: tuple[str | Path, ...] = (), force: bool = False) -> Path:
    """The path, if a file may be written there.

    Raises:
        OutputError: its folder is missing or not writable, there is something else than a regular file, it is one of the inputs
            or holds the weights of one, or it exists and ``force`` is not set.
    """
    out = Path(path)
    try:
        check_kind(out)
        check_apart(out, inputs)
        if out.parent.exists() and not out.parent.is_dir():
            raise OutputError(f"{out}: {out.parent} is a file, not a folder: write to another place")
        if not out.parent.exists():
            raise OutputError(f"{out}: there is no folder {out.parent}: create it first")
        if not os.access(out.parent, os.W_OK):
            raise OutputError(f"{out}: the folder {out.parent} is not writable: write to another one")
        out.lstat()
    except FileNotFoundError:
        return out
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error
    if not force:
        raise OutputError(f"{out}: exists already: pass --force to replace it")
    if any(_same(out, data) for source in inputs for data in data_files(Path(source))):
        raise OutputError(f"{out}: holds weights of an input: write to another file")
    return out


def check_apart(out: Path, others: Iterable[str | Path]) -> None:
    """Nothing happens if a file that is written is none of the others of a command.

    Raises:
        OutputError: it is one of them.
    """
    if any(_same(out, Path(other)) for other in others):
        raise OutputError(f"{out}: is the path of another file of this command: write to another one")


def _same(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):  # unlike resolve, it ends where links lead in a circle
        return True
    with suppress(OSError):  # one of them is not there, or has a name that no file can have
        return one.samefile(other)
    return False


def model_files(path: Path) -> list[Path]:
    """The files that a model lies in: its own, then those with its weights."""
    return [path, *sorted(data for data in data_files(path) if data != path)]


def size_on_disk(path: Path) -> int:
    """Bytes of a model on disk, external data included."""
    return sum(part.stat().st_size for part in model_files(path))


def written_bytes(model: Model) -> int:
    """Bytes that `save` writes of a model, to the byte where it is one file; no data is read or copied."""
    whole, graph = int(model.proto.ByteSize()), int(model.graph.ByteSize())
    weights = model.weights.values()
    if _is_one_file(model):
        return whole - field_bytes(graph) + field_bytes(graph + sum(constant_bytes(model, weight) for weight in weights))
    listed = sum(field_bytes(value.ByteSize()) for value in model.listed(weights))
    inside = [weight for weight in weights if weight.nbytes <= _INLINE]
    outside = [weight for weight in weights if weight.nbytes > _INLINE]
    heads = sum(field_bytes(weight.message_bytes) for weight in inside) + _HEAD * len(outside)
    return whole + listed + heads + sum(-(-weight.nbytes // _PAGE) * _PAGE for weight in outside)


def constant_bytes(model: Model, weight: Weight) -> int:
    """Bytes of a constant in a file that holds its data, in a model of this version of the format."""
    return field_bytes(weight.message_bytes) + sum(field_bytes(value.ByteSize()) for value in model.listed([weight]))


def source_bytes(model: Model) -> int:
    """Bytes of what a model was read from; of what would be written of it where that is not known."""
    return model.file_bytes or written_bytes(model)


def _is_one_file(model: Model) -> bool:
    return model.nbytes < (LARGE if model.external else LIMIT)


def save(model: Model, path: Path, outputs: Outputs | None = None) -> str:
    """Write a model; weights that do not fit in one file go to a data file beside it, whose name no other file has.

    The data file of a model that is replaced goes, too, unless something may need it (`onnxprune.ir.needed`).

    Args:
        model: to write.
        path: where to.
        outputs: with which it appears; at once if there are none.

    Returns:
        The SHA-256 of the file with the graph.

    Raises:
        OutputError: the disk is full or the folder not writable.
    """
    if outputs is None:
        with Outputs() as alone:
            return save(model, path, alone)
    remove_abandoned(path)
    retiring = partial(retired, path, Path(model.name))
    if _is_one_file(model):
        content = model.to_proto().SerializeToString()
        outputs.open(path, around=retiring).file.write(content)
        return hashlib.sha256(content).hexdigest()
    data = outputs.open(path, suffix=".data.part")
    proto = _with_data(model, data.file)
    return _name_data(proto, data, outputs.open(path, around=retiring))


def _with_data(model: Model, file: IO[bytes]) -> ModelProto:
    """The graph, with small weights inside; the others are written to the file, one at a time."""
    from onnx import TensorProto
    from onnx.external_data_helper import set_external_data

    proto = model.skeleton(keep_below=-1)
    declared = {value.name for value in model.graph.input}
    kept = [value for value in proto.graph.input if value.name in declared]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    model.list_constants(proto)
    for weight in model.weights.values():
        if weight.nbytes <= _INLINE:
            weight.append_to(proto.graph.initializer)
            continue
        file.write(b"\0" * (-file.tell() % _PAGE))
        tensor = TensorProto(name=weight.name, data_type=weight.dtype, dims=weight.shape, raw_data=b"\0")
        set_external_data(tensor, "", file.tell(), weight.nbytes)
        tensor.ClearField("raw_data")
        proto.graph.initializer.append(tensor)
        weight.write(file)
    return proto


def _name_data(proto: ModelProto, data: Part, graph: Part) -> str:
    """Write a graph with the name of its data file, and reserve that name; returns the SHA-256 of the graph.

    A graph that was not put in place names the files that go with it when its writer is killed: it is on disk before they are.
    """
    with exclusive(graph.path.parent):
        while True:
            place = _fresh_data_path(graph.path)
            for tensor in proto.graph.initializer:
                for entry in tensor.external_data:
                    if entry.key == "location":
                        entry.value = place.name
            content = proto.SerializeToString()
            graph.file.seek(0)
            graph.file.truncate()
            graph.file.write(content)
            graph.sync()
            try:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:  # made meanwhile, by a program that knows no locks
                continue
            data.path, data.reserved = place, True
            return hashlib.sha256(content).hexdigest()


def _fresh_data_path(path: Path) -> Path:
    """A name that no file has: the data of a model that is being replaced stays valid until that model is."""
    data, count = path.with_name(f"{path.name}.data"), 0
    while os.path.lexists(data):
        count += 1
        data = path.with_name(f"{path.name}.{count}.data")
    return data


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
