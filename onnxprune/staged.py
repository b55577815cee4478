"""A model run in stages over a whole set of samples: what one stage leaves for the next is kept, so nothing is computed twice."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from onnxprune import runtime
from onnxprune.model import Model
from onnxprune.node import captured

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.weights import Array

__all__ = ["Staged", "element_types", "part"]

MEMORY = 1 << 30
"""Bytes of activations that one run keeps in memory; what exceeds them lies in a temporary folder."""


class Staged:
    """One model, its nodes executed in order and in stages, each over all batches before the next begins.

    Weights may be replaced between stages: a stage runs with what ``model.weights`` holds when it starts.
    """

    def __init__(
        self, model: Model, feeds: Iterable[Mapping[str, Array]], *, keep: Collection[str] = (), memory: int = MEMORY
    ) -> None:
        """Begin before the first node. Values named in ``keep`` stay until they are released, others until their last reader."""
        self.model, self.done = model, 0
        self._types = element_types(model)
        self._kept = set(keep)
        self._readers = _last_readers(model)
        self._store = _Store(memory)
        self.batches = 0
        for feed in feeds:
            for name, array in feed.items():
                self._store.add(name, self.batches, array)
            self.batches += 1

    def value(self, name: str, batch: int) -> Array:
        """What a value that is still held has for one batch."""
        return self._store.get(name, batch)

    def release(self, name: str) -> None:
        """No longer keep a value beyond its last reader."""
        self._kept.discard(name)
        self._drop()

    def advance(self, stop: int) -> None:
        """Run the nodes up to, and without, the node at index ``stop``."""
        if stop <= self.done:
            return
        nodes = self.model.graph.node[self.done : stop]
        made = {name for node in nodes for name in node.output if name}
        after = [name for name in made if name in self._kept or self._readers.get(name, -1) >= stop]
        if after:
            inside = part(self.model, nodes, after, self._types)
            reads = [value.name for value in inside.graph.input]
            session = runtime.Session(inside, threads=0)
            for batch in range(self.batches):
                results = session.run({name: self._store.get(name, batch) for name in reads})
                for name, array in zip(after, results, strict=True):
                    self._store.add(name, batch, array)
        self.done = stop
        self._drop()

    def _drop(self) -> None:
        for name in list(self._store.names()):
            if name not in self._kept and self._readers.get(name, -1) < self.done:
                self._store.drop(name)


class _Store:
    """Arrays by value and batch, in memory up to a number of bytes, then in files."""

    def __init__(self, memory: int) -> None:
        self._arrays: dict[str, dict[int, Array]] = {}
        self._memory, self._used = memory, 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def names(self) -> Collection[str]:
        return self._arrays.keys()

    def get(self, name: str, batch: int) -> Array:
        return self._arrays[name][batch]

    def add(self, name: str, batch: int, array: Array) -> None:
        if self._used + array.nbytes > self._memory and array.size:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="onnxprune-")
            path = Path(self._folder.name) / f"{abs(hash(name)):x}-{batch}.npy"
            np.save(path, array)
            array = np.load(path, mmap_mode="r")
        else:
            self._used += array.nbytes
        self._arrays.setdefault(name, {})[batch] = array

    def drop(self, name: str) -> None:
        for array in self._arrays.pop(name).values():
            if isinstance(array, np.memmap):
                Path(str(array.filename)).unlink()
            else:
                self._used -= array.nbytes


def _last_readers(model: Model) -> dict[str, int]:
    """For each value the index of the last node that reads it; graph outputs are read after the last node."""
    last: dict[str, int] = {}
    for place, node in enumerate(model.graph.node):
        for name in (*node.input, *captured(node)):
            last[name] = place
    last |= {output.name: len(model.graph.node) for output in model.graph.output}
    return last


def element_types(model: Model) -> dict[str, int]:
    """The element type of every value that inference can type."""
    graph = onnx.shape_inference.infer_shapes(model.skeleton()).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}


def part(model: Model, nodes: Sequence[NodeProto], outputs: Sequence[str], types: Mapping[str, int]) -> Model:
    """Some consecutive nodes as a model of their own, whose inputs are what they read and do not make."""
    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in (*node.input, *sorted(captured(node))) if name and name not in made)
    proto = ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import)
    proto.graph.name = "part"
    proto.graph.node.extend(nodes)
    for side, names in ((proto.graph.input, read), (proto.graph.output, outputs)):
        side.extend(_info(name, types) for name in names if name not in model.weights)
    return Model(proto, {name: model.weights[name] for name in read if name in model.weights}, model.name)


def _info(name: str, types: Mapping[str, int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, types[name], None) if name in types else ValueInfoProto(name=name)
