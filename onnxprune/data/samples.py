"""Opens samples of any form for a model; one batch is in memory at a time."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxprune.data.batching import Batch, Held, InputSignature, SampleBlock, Table, assemble, take_samples
from onnxprune.data.memory import memory_source, repeatable
from onnxprune.data.noise import coloured
from onnxprune.data.sources import SampleSource, find_source
from onnxprune.data.variety import variety
from onnxprune.errors import OptionError
from onnxprune.ir.sizes import believed
from onnxprune.runtime.partition import run_each
from onnxprune.runtime.session import random_feeds
from onnxprune.shapes.candidates import bindings
from onnxprune.shapes.probes import batch_multiple, takes_one_sample

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = [
    "Batch",
    "Samples",
    "SamplesLike",
    "held_out",
    "in_multiples",
    "noise_samples",
    "open_samples",
    "optional_samples",
    "sized",
]


class Samples(ABC):
    """Samples of a model's inputs, with labels or without; every pass gives the same ones in the same order.

    Attributes:
        source: where they come from, for messages: ``--calib data.npz``.
        signature: how arrays become the model's inputs.
        count: how many there are; ``None`` where only a pass over them would tell.
        labelled: whether there are labels.
        fresh: whether another pass may give other samples, as a function's.
        bounded: whether no value can be far from the others, as in images.
        notice: what their user should know, for a report.
        multiple: of how many samples a batch is a multiple; see `in_multiples`.
        alone: whether a batch is one sample, whatever is asked for.
        every: of so many samples of the source these are each the last one; or of so many batches of a fixed size.
        each: samples of such a batch.
    """

    source: str
    signature: InputSignature
    count: int | None
    labelled: bool
    fresh: bool = False
    bounded: bool = False
    notice: str = ""
    multiple: int = 1
    alone: bool = False
    every: int = 1
    each: int = 1

    def place(self, number: int) -> int:
        """Where a sample lies in its source, counted from 0, by its number among these."""
        batch, row = divmod(number, self.each)
        return (self.every * (batch + 1) - 1) * self.each + row

    @abstractmethod
    def batches(self, size: int = 16) -> Iterator[Batch]:
        """The samples, ``size`` at a time, or as many as the model takes where that is fixed, or a multiple of these.

        The last batch may be smaller; what the model does not take is left out. A model whose inputs have no batch takes one
        sample.

        Raises:
            OptionError: an array does not fit the model, cannot be read, or there are too few for one batch.
        """

    def at_a_time(self, size: int) -> int:
        """So many samples as are asked for, or as the model takes where it is particular: one, or a multiple."""
        return 1 if self.alone else max(size - size % self.multiple, self.multiple)

    def still(self) -> Table | None:
        """All samples, if they are arrays in memory or mapped from a file, which can be read in any order."""
        return None


SamplesLike: TypeAlias = str | Path | Iterable[Any] | Samples
"""What `open_samples` takes; an array, a mapping and a ``DataLoader`` are iterable."""


def open_samples(
    source: SamplesLike,
    inputs: Sequence[ValueInfoProto],
    *,
    option: str = "--calib",
    preprocess: str | None = None,
    label: str = "label",
    limit: int | None = None,
) -> Samples:
    """Samples for a model, checked as far as the first of them.

    Args:
        source: one of

            - an ``.npz``: an array for each input, the first axis the sample; one input takes the only array of any name.
            - an ``.npy``, for a model with one input.
            - a folder of images, for a model with one input. Folders in it are classes, labelled 0, 1, ... as sorted by name;
              they take turns, so that the first samples are of all of them.
            - a folder of ``.npz`` files, in natural order, each a batch, or one sample whose arrays lack the first axis.
            - ``package.module:function``, called without arguments for every pass, whose items are batches or samples: a
              mapping by input name, or an array for a model with one input, or a pair of that and labels.
            - other samples, or what a program holds, as `onnxprune.data.memory.memory_source` takes it: an array, arrays by name,
              a list, a generator, a ``DataLoader``, ...
        inputs: of the model.
        option: what the user wrote ``source`` behind, for messages.
        preprocess: how images become arrays; see `preprocess.Preprocess`.
        label: the name of the array of labels; with an ``s`` at the end it is found, too.
        limit: how many samples to take, at least one batch of a model with a static one.

    Raises:
        OptionError: nothing is there, it has none of these forms, or the first sample does not fit.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"{option}: a limit of {limit} samples: take at least 1")
    signature, source = InputSignature.of(inputs, label), repeatable(source)
    if isinstance(source, _Tables) and source.signature == signature and limit is None:
        return source
    found = _source(source, option, signature, preprocess)
    shown = _believed(inputs, found, signature)
    if shown is not inputs:
        signature = InputSignature.of(shown, label)
        found = _source(source, option, signature, preprocess)
    if preprocess and not found.images:
        raise OptionError(f"--preprocess {preprocess}: is for a folder of images, which {found.text} is not")
    opened = _Tables(found, signature, limit)
    if isinstance(source, Samples):
        opened.multiple, opened.alone = source.multiple, source.alone
    return opened


def optional_samples(source: SamplesLike, inputs: Sequence[ValueInfoProto], preprocess: str) -> Samples | None:
    """Samples as `open_samples` opens them, ``None`` for an empty text.

    Raises:
        OptionError: as there; there is preprocessing without samples, or all samples are equal.
    """
    if isinstance(source, str) and not source:
        if preprocess:
            raise OptionError(f"--preprocess {preprocess}: is for the images of --calib: name their folder")
        return None
    opened = open_samples(source, inputs, preprocess=preprocess)
    opened.notice = "; ".join(filter(None, (variety(opened.source, opened.batches(), bounded=opened.bounded), opened.notice)))
    return opened


def sized(model: Model, samples: Samples | None) -> Model:
    """The model with the sizes of samples, which are tried first; the same one where there are none.

    Raises:
        OptionError: a sample has another size than the user gave.
    """
    batch = None if samples is None else next(samples.batches(1), None)
    if samples is None or batch is None:
        return model
    result = model.believing({name: array.shape for name, array in batch.feeds.items()}).copy()
    batched = {spec.name for spec in InputSignature.of(result.inputs).specs if spec.batched}
    shapes = {name: array.shape for name, array in batch.feeds.items()}
    sizes = {name: (None, *shape[1:]) if name in batched else shape for name, shape in shapes.items()}
    result.sizes = model.sizes.with_samples(sizes, result.inputs, samples.source)
    in_multiples(result, samples)
    return result


def in_multiples(model: Model, samples: Samples) -> None:
    """Give samples in batches that a model takes, where it takes multiples of some number of them alone, or one at a time.

    Raises:
        OptionError: there are fewer.
    """
    signature = InputSignature.of(model.inputs)
    if signature.size is None:
        samples.multiple = batch_multiple(model)
        samples.alone = takes_one_sample(model) or _state_of_one(model, samples, signature)
        if samples.count is not None and samples.count < samples.multiple:
            raise OptionError(
                f"{samples.source}: has {samples.count} samples, the model takes multiples of {samples.multiple}: give more"
            )


def _state_of_one(model: Model, samples: Samples, signature: InputSignature) -> bool:
    """Whether what all samples share, as the state of a recurrent layer, is that of one: the model does not run with two."""
    if not any(not spec.batched and spec.sizes and None in spec.sizes for spec in signature.specs):
        return False
    one, two = (next(iter(samples.batches(size)), None) for size in (1, 2))
    if one is None or two is None or two.size < 2:
        return False
    alone, together = run_each(model, [one.feeds, two.feeds])
    return isinstance(together, Exception) and not isinstance(alone, Exception)


def _source(source: SamplesLike, option: str, signature: InputSignature, preprocess: str | None) -> SampleSource:
    if isinstance(source, Samples):
        return _again(source, signature)
    if isinstance(source, str | Path):
        return find_source(source, option, signature, preprocess)
    return memory_source(source, signature)


def _believed(inputs: Sequence[ValueInfoProto], found: SampleSource, signature: InputSignature) -> Sequence[ValueInfoProto]:
    """The inputs, as far as the first samples agree with the names of their dimensions.

    A first axis that has the name of another is no batch, unless these have different sizes: then it may be.
    """
    if all(spec.batched for spec in signature.specs) or (table := next(found.tables(), None)) is None:
        return inputs
    return believed(inputs, {name: column.shape for name, column in signature.chosen(table)[0].items()})


def _again(samples: Samples, signature: InputSignature) -> SampleSource:
    """Samples of anyone's, for this model."""

    def tables() -> Iterator[Table]:
        for batch in samples.batches():
            columns = {name: Held(array) for name, array in batch.feeds.items()}
            yield Table(samples.source, columns if batch.labels is None else columns | {signature.label_name: Held(batch.labels)})

    return SampleSource(samples.source, tables, samples.count)


def held_out(samples: Samples, inputs: Sequence[ValueInfoProto], every: int) -> tuple[Samples, Samples]:
    """Samples in two parts that share none, always the same ones: each of so many, and before it all the others.

    Where a model takes a fixed number at a time, or multiples of one, these are batches.

    Raises:
        OptionError: there are fewer samples, or batches, than that.
    """
    signature = InputSignature.of(inputs)
    single = signature.size is not None or samples.multiple > 1
    each = signature.size or (samples.at_a_time(16) if single else 1)  # what `batches` gives unless told

    def part(held: bool) -> SampleSource:
        def tables() -> Iterator[Table]:
            seen = 0
            for batch in (one for one in samples.batches() if not single or one.size == each):
                numbers = np.full(batch.size, seen) if single else seen + np.arange(batch.size)
                seen += 1 if single else batch.size
                rows = np.flatnonzero((numbers % every == every - 1) == held)
                if rows.size:
                    yield _some_of(batch, rows, samples.source, signature)

        return SampleSource(samples.source, tables, counts[held], samples.bounded, samples.fresh)

    if samples.count is not None and samples.count < every * each:
        raise OptionError(f"{samples.source}: has {samples.count} samples, of which none can be held out: give more")
    those_of = None if samples.count is None else samples.count // each // every * each
    counts = (None, None) if samples.count is None or those_of is None else (samples.count - those_of, those_of)
    others, those = (_Tables(part(held), signature, None) for held in (False, True))
    those.every, those.each = samples.every * every, each
    others.multiple, others.alone = those.multiple, those.alone = samples.multiple, samples.alone
    return others, those


def _some_of(batch: Batch, rows: Array, where: str, signature: InputSignature) -> Table:
    """Some rows of a batch, as a table."""
    batched = {spec.name for spec in signature.specs if spec.batched}
    arrays = {name: array[rows] if name in batched else array for name, array in batch.feeds.items()}
    if batch.labels is not None:
        arrays[signature.label_name] = batch.labels[rows]
    return Table(where, {name: Held(array) for name, array in arrays.items()})


def noise_samples(
    inputs: Sequence[ValueInfoProto],
    *,
    count: int = 16,
    seed: int = 0,
    shapes: Mapping[str, Shape] | None = None,
    natural: bool = False,
) -> Samples:
    """Seeded noise shaped like the inputs of a model: it stands in where there are no samples.

    ``count`` samples; of a model with a static batch as many of its batches as they fill, at least one.

    Args:
        inputs: of the model.
        count: how many samples.
        seed: of the noise.
        shapes: of the inputs, as `onnxprune.shapes.candidates.binding_candidates` gives them.
        natural: whether inputs that are images get the spectrum of natural ones; see `coloured`.
    """
    signature = InputSignature.of(inputs)
    shapes = shapes or bindings(inputs)[0]
    batched = {spec.name for spec in signature.specs if spec.batched}
    single = {name: (1, *shape[1:]) if name in batched else shape for name, shape in shapes.items()}
    count = max(count, signature.size or 1)

    def tables() -> Iterator[Table]:
        whole = random_feeds([value for value in inputs if value.name not in batched], single, seed)
        for number in range(count):
            drawn = random_feeds([value for value in inputs if value.name in batched], single, seed + number)
            yield Table(
                "seeded noise", {name: Held(coloured(array) if natural else array) for name, array in (whole | drawn).items()}
            )

    return _Tables(SampleSource("seeded noise", tables, count), signature, None)


class _Tables(Samples):
    """Samples that lie in tables."""

    def __init__(self, found: SampleSource, signature: InputSignature, limit: int | None) -> None:
        self.source, self.signature, self._found = found.text, signature, found
        self.fresh, self.bounded = found.fresh, found.images
        least = signature.size or 1
        self._limit = None if limit is None else max(limit, least)
        self.count = None
        if found.count is not None:
            have = found.count if self._limit is None else min(found.count, self._limit)
            self.count = have - have % least
            self._enough(found.count)
        start = next(found.tables(), None)
        if start is None or next(signature.blocks(start, 1), None) is None:
            raise OptionError(f"{found.text}: has no samples")
        self.labelled = signature.labelled(start)
        for name in signature.unscaled(start):
            self.notice = (
                f"{found.text}: {name!r} holds bytes, 0 to 255, which the model gets as they are: "
                "scale them as it was trained, most models take 0 to 1"
            )

    def batches(self, size: int = 16) -> Iterator[Batch]:
        rows = self.signature.size or self.at_a_time(size)
        seen = 0

        def blocks() -> Iterator[SampleBlock]:
            nonlocal seen
            for table in self._found.tables():
                if self.signature.labelled(table) != self.labelled:
                    raise OptionError(f"{table.where}: has {'no ' * self.labelled}labels, unlike the first samples")
                for block in self.signature.blocks(table, rows):
                    seen += block.size
                    yield block

        taken = blocks() if self._limit is None else take_samples(blocks(), self._limit)
        batch = None
        for batch in assemble(taken, rows, self.signature.size or self.multiple):
            yield batch
        if batch is None and seen == 0:
            raise OptionError(f"{self.source}: has no samples the second time: what it yields must begin anew")
        if batch is None:
            self._enough(seen)
            raise OptionError(f"{self.source}: has no {rows} samples in a row of one shape; the model takes {rows} at a time")

    def still(self) -> Table | None:
        if self._limit is not None:
            return None
        first, *more = itertools.islice(self._found.tables(), 2)
        lies = all(isinstance(column, Held) for column in first.columns.values())
        return first if lies and not more and not first.single else None

    def _enough(self, count: int) -> None:
        least = self.signature.size or 1
        if count < least:
            of = " and ".join(repr(spec.name) for spec in self.signature.specs if spec.batched)
            raise OptionError(f"{self.source}: has {count} samples of {of}, the model takes {least} at a time: give more")
