"""Reads samples from files, folders and functions: each becomes tables, which are read again for every pass."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxprune.data.batching import Column, Held, InputSignature, Table
from onnxprune.data.preprocess import Preprocess
from onnxprune.errors import OptionError
from onnxprune.ir.unchanged import note
from onnxprune.ir.weights import Array
from onnxprune.options.functions import NAMED, load_named, users_code

__all__ = ["FORMS", "SampleSource", "array_source", "find_source", "held", "item_tables"]

FORMS = "an .npz, an .npy, a folder of images or of .npz files, or package.module:function"
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


@dataclass(frozen=True)
class SampleSource:
    """Tables of samples.

    Attributes:
        text: what it is called in messages.
        tables: the tables, for one pass.
        count: how many samples there are, where that is known.
        images: whether they are images that are preprocessed.
        fresh: whether another pass may give other samples, as a function may.
    """

    text: str
    tables: Callable[[], Iterator[Table]]
    count: int | None = None
    images: bool = False
    fresh: bool = False


def find_source(name: str | Path, option: str, signature: InputSignature, preprocess: str | None) -> SampleSource:
    """The source that a user named.

    Raises:
        OptionError: there is nothing, or something else than samples.
    """
    path, where = Path(name), f"{option} {name}"
    if path.is_dir():
        return _folder(path, option, where, signature, preprocess)
    if path.is_file():
        columns = {"array": _npy(path, where)} if path.suffix.lower() == ".npy" else _npz(path, where)
        return array_source(columns, where, signature)
    if NAMED.fullmatch(str(name)):
        return _function(str(name), where, signature)
    raise OptionError(f"{where}: no such file or folder; samples are {FORMS}")


def array_source(columns: Mapping[str, Column], where: str, signature: InputSignature) -> SampleSource:
    """One table."""
    table = Table(where, columns)
    return SampleSource(where, lambda: iter([table]), signature.count(table))


# Files


_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_FAILURES = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""The errors that zipfile and numpy raise over files that are truncated, encrypted or something else."""


@contextmanager
def _reading(text: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise OptionError(f"{text} ({str(error).partition('. ')[0]})") from error


def _npz(path: Path, where: str) -> dict[str, Column]:
    """The arrays of an .npz by name, none of them read yet."""
    note(path)
    with (
        _reading(f"{where}: not an .npz with one array per model input: write it with numpy.savez"),
        zipfile.ZipFile(path) as file,
    ):
        members = [name for name in file.namelist() if name.endswith(".npy")]
    return {name.removesuffix(".npy"): _Member(path, name, where) for name in members}


def _npy(path: Path, where: str) -> Held:
    """The array of an .npy, mapped into memory."""
    note(path)
    with _reading(f"{where}: not an .npy with an array of numbers: write it with numpy.save"):
        return Held(np.load(path, mmap_mode="r", allow_pickle=False))


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Member:
    """An array in an .npz; decompressed while it is read, front to back."""

    path: Path
    name: str
    where: str

    @cached_property
    def _header(self) -> _Header:
        with self._open() as (_, header):
            return header

    @property
    def shape(self) -> tuple[int, ...]:
        return self._header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._header.dtype

    def blocks(self, rows: int) -> Iterator[Array]:
        with self._open() as (file, header):
            if header.fortran and 0 not in header.shape:
                with tempfile.TemporaryFile() as spool:  # its rows are scattered: they are picked from the disk
                    shutil.copyfileobj(file, spool)
                    yield from Held(np.memmap(spool, header.dtype, "r", shape=header.shape, order="F")).blocks(rows)
                return
            for start in range(0, header.shape[0], rows):
                yield _read(file, header.dtype, (min(rows, header.shape[0] - start), *header.shape[1:]))

    def whole(self) -> Array:
        with self._open() as (file, header):
            return _read(file, header.dtype, header.shape[::-1]).T if header.fortran else _read(file, header.dtype, header.shape)

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], _Header]]:
        note(self.path)
        text = f"{self.where}: array {self.name.removesuffix('.npy')!r} cannot be read: not an .npz as numpy.savez writes it"
        with _reading(text), zipfile.ZipFile(self.path) as archive, archive.open(self.name) as file:
            version = np.lib.format.read_magic(file)
            if version not in _READERS:
                raise ValueError(f"format {version}, of structured arrays")
            header = _Header(*_READERS[version](file))
            if header.dtype.hasobject:
                raise ValueError("it holds Python objects")
            yield file, header


def _read(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """The next array of a stream."""
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = bytearray(file.read(count))
    if len(data) < count:
        raise EOFError("it ends early")
    return np.frombuffer(data, dtype).reshape(shape)


# Folders


def _folder(path: Path, option: str, where: str, signature: InputSignature, preprocess: str | None) -> SampleSource:
    images, archives, classes = _listed(path, IMAGES), _listed(path, {".npz"}), _classes(path)
    found = {"images": any(images), "folders of images": any(classes), ".npz files": any(archives)}
    kinds = [kind for kind, there in found.items() if there]
    if not kinds:
        raise OptionError(f"{where}: has neither images ({', '.join(sorted(IMAGES))}) nor .npz files")
    if len(kinds) > 1:
        raise OptionError(f"{where}: has {' beside '.join(kinds)}: which are the samples?")
    if archives:
        names = [(file, f"{option} {file}") for file in archives]
        return SampleSource(where, lambda: (Table(name, _npz(file, name), single=True) for file, name in names))
    return _images([(file, None) for file in images] or _taking_turns(classes), option, where, signature, preprocess)


_MOST_FOLDERS = 100_000
"""Folders of one class, at most: more are no samples, but where a link leads to by mistake."""


def _natural(name: str) -> list[int | str]:
    """Sorts 2 before 10."""
    return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"(\d+)", name))]


def _listed(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    names = (entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_file())
    return [folder / name for name in sorted(names, key=_natural) if Path(name).suffix.lower() in suffixes]


def _classes(folder: Path) -> list[list[Path]]:
    """The images of each class; a folder without any keeps its number."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    return [[file for place in sorted(_below(folder, name)) for file in _listed(Path(place), IMAGES)] for name in names]


def _below(samples: Path, name: str) -> Iterator[str]:
    """A folder in that of the samples, and those below it, also by links; none twice, since links may lead in a circle.

    A link to the folder of the samples, or to one that this lies in, as ``/``, is not followed.

    Raises:
        OptionError: there are too many.
    """
    real = samples.resolve()
    seen = {str(above) for above in (real, *real.parents)}
    outside = len(seen)
    for place, folders, _ in os.walk(samples / name, followlinks=True):
        if (target := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(target)
        if len(seen) - outside > _MOST_FOLDERS:
            raise OptionError(f"{samples / name}: has more than {_MOST_FOLDERS} folders in it: give that of the samples")
        yield place


def _taking_turns(classes: list[list[Path]]) -> list[tuple[Path, int | None]]:
    numbered = [[(file, number) for file in files] for number, files in enumerate(classes)]
    return [one for turn in itertools.zip_longest(*numbered) for one in turn if one is not None]


def _images(
    files: list[tuple[Path, int | None]], option: str, where: str, signature: InputSignature, preprocess: str | None
) -> SampleSource:
    if len(signature.specs) != 1:
        raise OptionError(f"{where}: has images, and the model {len(signature.specs)} inputs: use an .npz or a function")
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise OptionError(f"{where}: images need Pillow: pip install 'onnxprune[images]'") from error
    spec = signature.specs[0]
    decode = Preprocess.parse(preprocess, spec.sizes, integers=spec.dtype.kind in "iu")

    def table(file: Path, label: int | None) -> Table:
        name = f"{option} {file}"
        try:
            columns = {spec.name: Held(decode(file)[None])}
        except Exception as error:  # Pillow's decoders raise what they like
            raise OptionError(f"{name}: cannot be used as an image: {error}") from error
        return Table(name, columns if label is None else columns | {signature.label_name: Held(np.array([label]))})

    return SampleSource(f"{where} ({decode})", lambda: itertools.starmap(table, files), len(files), images=True)


# Functions


_END = object()
"""Stands for the end of what a function yields."""


def _function(name: str, where: str, signature: InputSignature) -> SampleSource:
    found = load_named(name, where)
    if not callable(found) and not isinstance(found, Iterable):
        raise OptionError(f"{where}: is neither a function nor iterable, but of type {type(found).__name__}")

    def tables() -> Iterator[Table]:
        with users_code(where):
            items = found() if callable(found) else found
        return item_tables(items, where, signature)

    return SampleSource(where, tables, fresh=True)


def item_tables(items: Iterable[Any], where: str, signature: InputSignature) -> Iterator[Table]:
    """A table for each of a user's items: a batch, or one sample; see `held`.

    Raises:
        OptionError: the user's code raises, or an item is of another form.
    """
    with users_code(where):
        found = iter(items)
    for number in itertools.count():
        with users_code(where):
            item = next(found, _END)
        if item is _END:
            return
        parts = item if isinstance(item, tuple | list) and not _is_row(item, signature) else (item,)
        yield Table(f"{where}, item {number}", held(parts, f"{where}, item {number}", signature, copy=True), single=True)


def _is_row(item: Sequence[Any], signature: InputSignature) -> bool:
    """Tell whether a list is one sample of numbers, as rows of a table are, and not an array and labels."""
    sizes = signature.specs[0].sizes if len(signature.specs) == 1 else ()
    return isinstance(item, list) and (sizes is None or len(sizes) > 1) and all(isinstance(one, int | float) for one in item)


def held(parts: Sequence[Any], where: str, signature: InputSignature, *, copy: bool = False) -> dict[str, Column]:
    """Arrays in memory: by input name, or one for each input in their order; then, maybe, labels.

    Arrays by name that neither an input nor labels have are left out, so that records may have more than a model takes.

    Args:
        parts: of a user's.
        where: how messages begin.
        signature: the inputs.
        copy: whether the user may write into an array later.

    Raises:
        OptionError: there are too few or too many, or one is no array.
    """
    inputs = [spec.name for spec in signature.specs]
    if parts and isinstance(parts[0], Mapping):
        given, labels = {str(name): array for name, array in parts[0].items()}, parts[1:]
        if set(inputs) <= given.keys():
            wanted = {*inputs, signature.label, f"{signature.label}s"}
            given = {name: array for name, array in given.items() if name in wanted}
    else:
        names = inputs if len(inputs) > 1 else ["array"]
        given, labels = dict(zip(names, parts, strict=False)), parts[len(inputs) :]
    if len(labels) > 1 or not given or (not isinstance(parts[0], Mapping) and len(parts) < len(inputs)):
        takes = "one array" if len(inputs) == 1 else f"{len(inputs)} arrays, for {', '.join(inputs)},"
        raise OptionError(f"{where}: is of {len(parts)} parts: give {takes} and maybe labels, or (arrays by name, labels)")
    if labels:
        given[signature.label_name] = labels[0]
    try:
        return {name: Held(np.asarray(array).copy() if copy else np.asarray(array)) for name, array in given.items()}
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors of a device
        raise OptionError(f"{where}: cannot be made an array: {error}") from error
