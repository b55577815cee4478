"""Runs a model in stages over a set of samples: what the next stages read is kept, and no value is computed twice."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from onnxprune.ir.node import values_read
from onnxprune.ir.subgraph import extract, needed
from onnxprune.ir.temporary import temporary_folder
from onnxprune.runtime.memory import spare
from onnxprune.runtime.parallel import at_once, map_ordered
from onnxprune.runtime.session import Session, value_info

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array

__all__ = ["StagedRun"]

HELD_BYTES = 1 << 28
"""Bytes of activations that one run keeps in memory, 256 MiB or less where memory is short; others lie in a temporary folder. It
is the first layers of image networks that have as many, and to write them and read them again takes little."""
_PART = 8
"""The part of the memory which they may take."""


class StagedRun:
    """One model, its nodes executed in order and in stages, each over all batches before the next begins.

    Weights may be replaced between stages: a stage runs with what ``model.weights`` holds when it starts. A context manager:
    what lies in files is gone afterwards.

    Attributes:
        model: the model.
        done: how many of its nodes have run.
        batches: how many batches it runs on.
    """

    def __init__(
        self, model: Model, feeds: Iterable[Mapping[str, Array]], *, keep: Collection[str] = (), memory: int | None = None
    ) -> None:
        """Begin before the first node. Values named in ``keep`` stay until they are released, others until their last reader."""
        self.model, self.done, self.batches = model, 0, 0
        self._kept = set(keep)
        self._needed = needed(model.graph.node, self._kept.union(output.name for output in model.graph.output))
        self._readers = _last_readers(model, self._needed)
        self._store = _Store(spare(_PART, HELD_BYTES) if memory is None else memory)
        for feed in feeds:
            for name, array in feed.items():
                self._store.add(name, self.batches, array)
            self.batches += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def value(self, name: str, batch: int) -> Any:
        """The array, or list of arrays, that a value has for one batch; KeyError if it is no longer held."""
        return self._store.get(name, batch)

    def info(self, name: str) -> ValueInfoProto:
        """The type of a value that is still held."""
        return value_info(name, self._store.get(name, 0))

    def release(self, name: str) -> None:
        """No longer keep a value beyond its last reader."""
        self._kept.discard(name)
        self._drop()

    def advance(self, stop: int) -> None:
        """Run the nodes up to, and without, the node at index ``stop``; nothing if they have run.

        Nodes that no output and nothing kept needs are left out.
        """
        if stop <= self.done:
            return
        nodes = [self.model.graph.node[place] for place in range(self.done, stop) if place in self._needed]
        made = [name for node in nodes for name in node.output if name]
        after = [name for name in made if name in self._kept or self._readers.get(name, -1) >= stop]
        if after:
            inside = extract(self.model, nodes, after, self.info)
            reads = [value.name for value in inside.graph.input]
            session = Session(inside)

            def run(batch: int) -> list[Any]:
                return session.run({name: self._store.get(name, batch) for name in reads})

            for batch, results in enumerate(map_ordered(run, range(self.batches), at_once())):
                for name, array in zip(after, results, strict=True):
                    self._store.add(name, batch, array)
        self.done = stop
        self._drop()

    def _drop(self) -> None:
        for name in self._store.names():
            if name not in self._kept and self._readers.get(name, -1) < self.done:
                self._store.drop(name)


class _Store:
    """Values by name and batch, in memory up to a number of bytes, then in files."""

    def __init__(self, memory: int) -> None:
        self._values: dict[str, dict[int, Any]] = {}
        self._files: dict[tuple[str, int], Path] = {}
        self._memory, self._used, self._count = memory, 0, 0
        self._folder: Path | None = None
        self._stack = contextlib.ExitStack()

    def names(self) -> list[str]:
        return list(self._values)

    def get(self, name: str, batch: int) -> Any:
        path = self._files.get((name, batch))
        # mapped for as long as somebody looks at it: what is mapped and was read counts as memory
        return self._values[name][batch] if path is None else np.load(path, mmap_mode="r")

    def add(self, name: str, batch: int, value: Any) -> None:
        size = _size(value)
        if size and self._used + size > self._memory:
            self._files[name, batch] = self._write(value)
            value = None
        self._used += _size(value)
        self._values.setdefault(name, {})[batch] = value

    def _write(self, array: Array) -> Path:
        self._folder = self._folder or self._stack.enter_context(temporary_folder())
        self._count += 1
        path = self._folder / f"{self._count}.npy"
        np.save(path, array)
        return path

    def drop(self, name: str) -> None:
        for batch, value in self._values.pop(name).items():
            path = self._files.pop((name, batch), None)
            self._used -= _size(value)
            if path is not None:
                path.unlink()

    def close(self) -> None:
        self._values.clear()
        self._stack.close()


def _size(value: Any) -> int:
    """Bytes of a value that can lie in a file; 0 for any other."""
    return int(value.nbytes) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else 0


def _last_readers(model: Model, needed: Collection[int]) -> dict[str, int]:
    """For each value the index of the last needed node that reads it; graph outputs are read after the last node."""
    nodes = model.graph.node
    last = {name: place for place in sorted(needed) for name in values_read(nodes[place])}
    return last | dict.fromkeys((output.name for output in model.graph.output), len(nodes))
