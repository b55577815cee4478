"""Samples for training: in batches, in another order in each epoch, the same on every run with a seed.

Samples in memory or in a mapped file are read where they are. Archives and folders can only be read front to back: they are
written once to a temporary file, which is mapped too. Batches that a function yields are read in its order, anew for every epoch;
random generators are seeded before, so that a ``DataLoader`` with ``shuffle=True`` does the same on every run.
"""

from __future__ import annotations

import itertools
import math
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch

from onnxprune.data.batching import Batch, Held, Table
from onnxprune.data.samples import open_samples
from onnxprune.errors import OptionError
from onnxprune.ir.weights import Array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ValueInfoProto

    from onnxprune.data.samples import SamplesLike

__all__ = ["TrainingData", "seed_all"]

_SPOOL = 256
"""Samples at a time while they are written to a temporary file."""


def seed_all(*seeds: int) -> None:
    """Seed the generators that users' functions draw from: those of torch, numpy and random."""
    value = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    torch.manual_seed(value)
    np.random.seed(value)  # noqa: NPY002 - theirs may be the old one
    random.seed(value)


class TrainingData:
    """Samples in batches for training.

    Attributes:
        source: where they come from, for messages.
        labelled: there are labels.
        size: samples of a batch, at most.
        samples: the samples, in their order.
        steps: batches that each process has in an epoch.
    """

    def __init__(
        self,
        source: SamplesLike,
        inputs: Sequence[ValueInfoProto],
        *,
        batch: int = 64,
        steps: int = 0,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        label: str = "label",
        preprocess: str | None = None,
    ) -> None:
        """Open samples.

        Args:
            source: in any form of `open_samples`.
            inputs: of the model.
            batch: samples at a time, unless the model's batch is static; rounded to what the samples know the model to take.
            steps: batches of an epoch, at most; 0 for all. Needed where a function yields without end.
            seed: of the order.
            shard: the number of this process, and that of all; of so many batches in a row each process takes one.
            label: the name of the array of labels.
            preprocess: how images become arrays.

        Raises:
            OptionError: as `open_samples`, or there are fewer batches than processes.
        """
        samples = open_samples(source, inputs, option="--data", preprocess=preprocess, label=label)
        self.source, self.labelled = samples.source, samples.labelled
        self.samples, self._signature = samples, samples.signature
        self._multiple = self._signature.size or samples.multiple
        self.size = self._signature.size or samples.at_a_time(batch)
        self._seed, self._shard = seed, shard
        self._tables = None if samples.fresh else self._stored()
        self._limit = steps or None
        whole = self._limit if self._tables is None else min(len(self._cuts(0)), self._limit or math.inf)
        if whole is None:
            whole = sum(1 for _ in samples.batches(self.size))
        self.steps = int(whole) // shard[1]
        if not self.steps:
            raise OptionError(f"{self.source}: has {whole} batches for {shard[1]} processes: make --batch smaller")

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, except the first ``skip`` of them, which have been seen.

        Raises:
            OptionError: samples cannot be read, or do not fit the model.
        """
        rank, world = self._shard
        if self._tables is None:
            seed_all(self._seed, number)
            batches: Iterator[Batch] = itertools.islice(self.samples.batches(self.size), self._limit)
        else:
            batches = itertools.starmap(self._batch, self._cuts(number)[: self._limit])
        # Of as many in a row as there are processes each takes one; those left over at the end are dropped.
        rows = zip(*[batches] * world, strict=False)
        next(itertools.islice(rows, skip, skip), None)  # at once, not at the first batch: users' functions draw random numbers
        return (row[rank] for row in itertools.islice(rows, self.steps - skip))

    def _cuts(self, number: int) -> list[tuple[Table, Array]]:
        """The batches of an epoch, each as a table and rows of it. Their sizes differ by one, or one multiple, at most."""
        rng = np.random.default_rng([self._seed, number])
        found = []
        for table in self._tables or ():
            order = rng.permutation(self._signature.count(table))
            units = len(order) // self._multiple
            parts = -(-units * self._multiple // self.size)
            shares = [len(share) * self._multiple for share in np.array_split(np.arange(units), parts)] if parts else []
            found += [(table, rows) for rows in np.split(order[: sum(shares)], np.cumsum(shares[:-1]))] if parts else []
        return [found[at] for at in rng.permutation(len(found))] if self._tables and len(self._tables) > 1 else found

    def _batch(self, table: Table, rows: Array) -> Batch:
        """Some samples of a table."""
        whole = {spec.name for spec in self._signature.specs if not spec.batched}
        columns = {
            name: Held(column.array[rows]) if isinstance(column, Held) and name not in whole else column
            for name, column in table.columns.items()
        }
        return next(self._signature.blocks(Table(table.where, columns), len(rows))).batch()

    def _stored(self) -> list[Table]:
        """Tables whose samples can be read in any order; samples of one shape are in one table."""
        still = self.samples.still()
        if still is not None:
            for _ in self._signature.blocks(still, _SPOOL):  # their values are checked in order, which names the sample at fault
                pass
            return [still]
        spools: dict[tuple[Any, ...], _Spool] = {}
        batched = {spec.name for spec in self._signature.specs if spec.batched}
        for batch in self.samples.batches(_SPOOL):
            arrays = {name: array for name, array in batch.feeds.items() if name in batched}
            if batch.labels is not None:
                arrays[self._signature.label_name] = batch.labels
            whole = {name: array for name, array in batch.feeds.items() if name not in batched}
            key = (
                *((name, array.dtype.str, array.shape[1:]) for name, array in arrays.items()),
                *((name, array.shape, array.tobytes()) for name, array in whole.items()),
            )
            spools.setdefault(key, _Spool(whole)).add(arrays, self.source)
        return [spool.table(self.source) for spool in spools.values()]


@dataclass(slots=True)
class _Spool:
    """Samples of one shape, in temporary files.

    Attributes:
        whole: arrays that all samples share.
        count: number of samples.
    """

    whole: Mapping[str, Array]
    count: int = 0
    _files: dict[str, IO[bytes]] = field(default_factory=dict)
    _likes: dict[str, Array] = field(default_factory=dict)

    def add(self, arrays: Mapping[str, Array], where: str) -> None:
        """Append samples."""
        try:
            for name, array in arrays.items():
                if name not in self._files:
                    self._files[name] = tempfile.TemporaryFile()  # noqa: SIM115 - `table` closes it
                    self._likes[name] = array[:0]
                self._files[name].write(np.ascontiguousarray(array).tobytes())
        except OSError as error:
            raise OptionError(f"{where}: does not fit in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR") from error
        self.count += len(next(iter(arrays.values()))) if arrays else 1

    def table(self, where: str) -> Table:
        """All of them, mapped from the files."""
        columns = {name: Held(array) for name, array in self.whole.items()}
        for name, file in self._files.items():
            like = self._likes[name]
            with file:  # what is mapped needs no open file
                columns[name] = Held(np.memmap(file, like.dtype, "r", shape=(self.count, *like.shape[1:])))
        return Table(where, columns)
