"""Text that recognisers read: classes of time steps, of which runs are one letter, and blanks between letters are none.

That is connectionist temporal classification (CTC; Graves et al., 2006). Where a letter begins and ends may differ by a step
without any change of the text, so that two models are compared by what remains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["edit_distance", "has_blanks", "letters"]

_SHARE = 0.2
"""Of steps that are blanks where a model has them, at least: a third between the letters of dense print."""


def has_blanks(classes: Array, count: int) -> bool:
    """Whether the class of most steps is the first or the last one, which is where toolkits put the blank.

    Args:
        classes: of time steps. [samples, steps]
        count: how many classes there are.
    """
    if not classes.size:
        return False
    steps = np.bincount(classes.reshape(-1), minlength=count)
    return steps.argmax() in {0, count - 1} and bool(steps.max() >= _SHARE * steps.sum())


def letters(classes: Array, blank: int) -> Array:
    """What is read of the steps of one sample: runs are one letter, blanks none. [steps] -> [letters]"""
    first = np.ones(len(classes), bool)
    first[1:] = classes[1:] != classes[:-1]
    read: Array = classes[first & (classes != blank)]
    return read


def edit_distance(one: Array, other: Array) -> int:
    """The least number of letters to insert, to leave out or to replace until both are the same (Levenshtein, 1966)."""
    places = np.arange(len(other) + 1)
    row = places
    for letter in one:
        kept = np.minimum(row[1:] + 1, row[:-1] + (other != letter))
        ends = np.concatenate([row[:1] + 1, kept])
        row = np.minimum.accumulate(ends - places) + places  # letters inserted one by one
    return int(row[-1])
