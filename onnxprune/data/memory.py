"""Samples that a program holds: arrays, lists, loaders of batches, anything that can be gone through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from onnxprune.data.batching import InputSignature, Table
from onnxprune.data.sources import SampleSource, array_source, held, item_tables
from onnxprune.errors import OptionError

__all__ = ["memory_source", "repeatable"]

_WHERE = "samples"
"""How messages begin."""
_FORMS = "an array, arrays by input name, a pair of these and labels, or something that yields them, as a list or a DataLoader"


def repeatable(source: Any) -> Any:
    """What can be gone through again and again: of an iterator, which ends, a list of what it gives."""
    return list(source) if isinstance(source, Iterator) else source


def memory_source(source: Any, signature: InputSignature) -> SampleSource:
    """Samples in one of these forms:

    - arrays by input name; those that no input has are left out;
    - an array, or lists of numbers, for a model with one input;
    - a tuple: an array for each input in their order, and maybe labels; or arrays by name, and labels;
    - an iterable of batches or of samples, each in one of these forms, as a list, a ``DataLoader`` or a ``datasets.Dataset``. It
      is gone through again for every pass over the samples; what a generator yields is kept in memory.

    An array is whatever `numpy.asarray` takes: a tensor, too.

    Raises:
        OptionError: it has none of these forms, or an array cannot be made of it.
    """
    if isinstance(source, tuple | Mapping) or hasattr(source, "__array__") or _is_numbers(source):
        parts = source if isinstance(source, tuple) else (source,)
        return array_source(held(parts, _WHERE, signature), _WHERE, signature)
    if not isinstance(source, Iterable):
        raise OptionError(f"{_WHERE}: of type {type(source).__name__}: give {_FORMS}")
    items = repeatable(source)

    def tables() -> Iterator[Table]:
        return item_tables(items, _WHERE, signature)

    listed = isinstance(items, list)
    count = sum(map(signature.count, tables())) if listed else 0
    return SampleSource(_WHERE, tables, count or None, fresh=not listed)


def _is_numbers(source: Any) -> bool:
    """Tell whether something is lists of numbers, in each other to any depth."""
    first = source
    while isinstance(first, list) and first:
        first = first[0]
    return first is not source and isinstance(first, int | float)
