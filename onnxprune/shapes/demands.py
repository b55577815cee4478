"""The sizes that a graph asks for, found where other sizes contradict it.

A classifier behind a flattened image takes one size alone, a table of positions as many tokens as it has, a reshape to crops
multiples of their number, a window as much as it covers. Where the plain sizes contradict the graph, the first node that they
do so at says by how much. One size after the other is changed until that node is satisfied: by bisection, since what a node has
grows with the size of the input, or by multiples of the numbers that the graph computes sizes with. Then the next contradiction
is looked at.

>>> # Flatten and MatMul with 25,088 rows: 64 pixels give 2,048 columns, 224 to 255 give 25,088, and 224 is the roundest
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from onnxprune.ir.control_flow import Path, node_at
from onnxprune.ir.model import Model
from onnxprune.ir.node import every_node, values_read
from onnxprune.shapes.clashes import Clash, Relation
from onnxprune.shapes.inference import Inferred, infer
from onnxprune.shapes.size_arithmetic import small_constants

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from onnxprune.ir.sizes import GivenSizes
    from onnxprune.ir.types import Shape

__all__ = ["Assignment", "Demands", "shapes_from"]

Assignment = dict[str, int]
"""Sizes of open axes, by key."""
_STEPS = 6
"""Contradictions that are resolved one after the other."""
_BUDGET = 400
"""Inferences in all."""
_LARGEST = 1 << 16
"""The largest size that is tried along one axis."""
_STAND_IN = 13
_SIDES = (32, 48, 64, 16, 128, 8, 224)
"""Sizes of one side of an image whose other side is looked for."""
_NUMBERS = range(2, 513)
"""Numbers in a graph that sizes may have to be multiples of."""
_MOST_NUMBERS = 24
_PERIODS = 8
"""How many sizes are tried that make a multiple."""


def shapes_from(inputs: Sequence[ValueInfoProto], given: GivenSizes, sizes: Mapping[str, int]) -> dict[str, Shape]:
    """The shapes of inputs whose open axes have these sizes."""
    axes = {value.name: given.axes(value) for value in inputs}
    return {name: tuple(sizes[key] if isinstance(key, str) else key for key in keys) for name, keys in axes.items()}


class Demands:
    """What a graph asks of the sizes of its inputs; nothing is computed before it is asked for."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._left = _BUDGET

    def met(self, first: Assignment, second: Assignment, fixed: Collection[str]) -> Iterator[list[Assignment]]:
        """Sizes near those of two probes that the graph takes; nothing, if they contradict nothing or none are found.

        Args:
            first: sizes by key.
            second: others.
            fixed: keys whose sizes stay.
        """
        one = self._solved(first, fixed, {})
        other = None if one is None else self._solved(second, fixed, one)
        if one is None or (one, other) == (first, second):
            return
        if other is not None:
            yield [one, other]
        yield [one, {**one, **{key: size for key, size in second.items() if first[key] == one[key] and key not in fixed}}]

    def _solved(self, start: Assignment, fixed: Collection[str], unlike: Mapping[str, int]) -> Assignment | None:
        """Sizes that contradict nothing, from some others on; ``unlike`` others where that is possible."""
        sizes = dict(start)
        for _ in range(_STEPS):
            clash = self.clash(self.model, sizes)
            if clash is None:
                return sizes
            search = _Search(self, clash, sizes, unlike)
            found = next((met for keys in self._groups(fixed) if (met := search.along(keys)) is not None), None)
            found = found or next((met for pair in self._images(fixed) if (met := search.pair(*pair)) is not None), None)
            if found is None:
                return None
            sizes = found
        return None

    def _groups(self, fixed: Collection[str]) -> Iterator[tuple[str, ...]]:
        """The keys whose sizes are changed together: those of one image; each by itself; the batch last."""
        yield from (pair for pair in self._images(fixed) if len(pair) > 1)
        homes = self._homes
        for key in sorted(homes, key=lambda key: (homes[key] == 0, list(homes).index(key))):
            if key not in fixed:
                yield (key,)

    def _images(self, fixed: Collection[str]) -> Iterator[tuple[str, ...]]:
        for value in self.model.inputs:
            axes = self.model.sizes.axes(value)
            channels_last = len(axes) > 3 and isinstance(axes[-1], int) and isinstance(axes[1], str)
            keys = dict.fromkeys(axes[1:-1] if channels_last else axes[2:])
            free = [key for key in keys if isinstance(key, str) and key not in fixed]
            if len(axes) > 3 and len(free) > 1:
                yield tuple(free)

    @cached_property
    def _homes(self) -> dict[str, int]:
        """By key the first axis that has it."""
        homes: dict[str, int] = {}
        for value in self.model.inputs:
            for axis, key in enumerate(self.model.sizes.axes(value)):
                if isinstance(key, str):
                    homes[key] = min(axis, homes.get(key, axis))
        return homes

    @cached_property
    def numbers(self) -> list[int]:
        """Numbers that the graph computes sizes with: in its small constants, and windows and strides."""
        found: set[int] = set()
        for weight in self.model.weights.values():
            if not weight.is_float and weight.size <= 8:
                found.update(abs(int(number)) for number in weight.array().reshape(-1) if weight.array().dtype.kind in "iu")
        for node in every_node(self.model.graph):
            for attribute in node.attribute:
                if attribute.name in {"kernel_shape", "strides", "blocksize", "value_ints", "value_int"}:
                    found.update(map(abs, (*attribute.ints, attribute.i)))
        return sorted(found.intersection(_NUMBERS))[-_MOST_NUMBERS:]

    @property
    def affordable(self) -> bool:
        """Whether there is something left to search with."""
        return self._left > 0

    def until(self, place: Path) -> Model:
        """The graph up to a node, with all its bodies, which suffices to see what that node has."""
        nodes = self.model.graph.node[: place[0] + 1]
        part = self.model.copy()
        del part.graph.node[:], part.graph.output[:]
        part.graph.node.extend(nodes)
        read = {name for node in nodes for name in values_read(node)}
        part.weights = {name: weight for name, weight in part.weights.items() if name in read}
        return part

    def clash(self, model: Model, sizes: Assignment) -> Clash | None:
        """Where sizes contradict a graph."""
        return self.inferred(model, sizes).clash

    def inferred(self, model: Model, sizes: Assignment) -> Inferred:
        """The shapes that follow from sizes; nothing is run."""
        self._left -= 1
        shapes = shapes_from(self.model.inputs, self.model.sizes, sizes)
        return infer(model, shapes, small_constants(model), _STAND_IN, runs=False)


class _Search:
    """The search for sizes that one node is satisfied by."""

    def __init__(self, demands: Demands, clash: Clash, sizes: Assignment, unlike: Mapping[str, int]) -> None:
        self.demands, self.clash, self.sizes, self.unlike = demands, clash, sizes, unlike
        self.part = demands.until(clash.place)

    def along(self, keys: tuple[str, ...]) -> Assignment | None:
        """The sizes with others, all equal, for some keys, that the node is satisfied by; ``None`` if there are none."""
        start, gaps = self.sizes[keys[0]], dict[int, int | None]()

        def gap(size: int) -> int | None:
            if size not in gaps:
                gaps[size] = self._gap({**self.sizes, **dict.fromkeys(keys, size)})
            return gaps[size]

        gaps[start] = self._gap({**self.sizes, **dict.fromkeys(keys, start)}) if len(keys) > 1 else self._own
        if self.clash.relation is Relation.MULTIPLE:
            size = self._multiple(gap, start, self.unlike.get(keys[0])) or self._aligned(gap, keys)
        elif self.clash.relation is Relation.AT_MOST:
            size = self._at_most(gap, start, self.unlike.get(keys[0]))
        elif self.clash.relation is Relation.AT_LEAST:
            size = self._at_least(gap, start, self.unlike.get(keys[0]))
        else:
            size = self._equal(gap, start, self.unlike.get(keys[0]))
        return None if size is None else {**self.sizes, **dict.fromkeys(keys, size)}

    def pair(self, one: str, other: str, *_: str) -> Assignment | None:
        """Sizes for two keys that differ, as of an image that is no square."""
        for side in _SIDES:
            sizes = {**self.sizes, one: side}
            clash = self.demands.clash(self.part, sizes)
            if clash is None:
                return sizes
            found = _Search(self.demands, clash, sizes, self.unlike).along((other,)) if clash.order == self.clash.order else None
            if found is not None:
                return found
        return None

    @property
    def _own(self) -> int:
        multiple = self.clash.relation is Relation.MULTIPLE
        return self.clash.have % self.clash.want if multiple else self.clash.gap

    def _gap(self, sizes: Assignment) -> int | None:
        """By how much the node has too much; 0 where it is satisfied, ``None`` where the sizes are wrong before it."""
        if not self.demands.affordable:
            return None
        found = self.demands.inferred(self.part, sizes)
        if found.clash is None:
            read = (found.shapes.get(name) for name in node_at(self.part.graph, self.clash.place).input if name)
            return 0 if all(shape is not None and min(shape, default=1) > 0 for shape in read) else None
        if found.clash.order != self.clash.order:
            return 0 if found.clash.order > self.clash.order else None
        multiple = found.clash.relation is Relation.MULTIPLE
        return found.clash.have % found.clash.want if multiple else found.clash.gap

    def _multiple(self, gap: Callable[[int], int | None], start: int, unlike: int | None) -> int | None:
        unit = self.clash.have // start if start and self.clash.have % start == 0 else 1
        step = self.clash.want // math.gcd(self.clash.want, unit)
        if not 1 < step <= _LARGEST:
            return None
        first = max(-(-start // step), 1) * step
        trials = (size for size in (first, first + step) if size != unlike)
        return next((size for size in trials if gap(size) == 0), None)

    def _aligned(self, gap: Callable[[int], int | None], keys: tuple[str, ...]) -> int | None:
        """A size that makes a multiple of what grows with it by steps, from some number on: windows take a part of it first.

        The one is taken that is right for other sizes of the other axes, too.

        >>> # 40 (size - 25) numbers in rows of 1,060: 78 gives two rows of three, 131 as many rows as there are frames
        """
        start, want = self.sizes[keys[0]], self.clash.want
        here, there = gap(start), gap(start + 1)
        if here is None or there is None or want <= 0 or (there - here) % want == 0:
            return None
        slope = (there - here) % want
        period = want // math.gcd(slope, want)
        first = next(
            (size for size in range(start, start + min(period, _LARGEST)) if (here + slope * (size - start)) % want == 0), 0
        )
        trials = [size for size in range(first, first + _PERIODS * period, period) if first and gap(size) == 0]
        others = {key: size + 1 for key, size in self.sizes.items() if key not in keys}
        apt = (size for size in trials if self._gap({**dict.fromkeys(keys, size), **others}) == 0)
        return next(itertools.chain(apt, trials), None)

    def _at_most(self, gap: Callable[[int], int | None], start: int, unlike: int | None) -> int | None:
        above = _least(lambda size: (gap(size) or 0) > 0, start)
        if above is None or above < 2:
            return None
        trials = (size for size in (above - 1, above // 2 + 1, above // 2) if size != unlike and size > 0)
        return next((size for size in trials if gap(size) == 0), None)

    def _at_least(self, gap: Callable[[int], int | None], start: int, unlike: int | None) -> int | None:
        least = _least(lambda size: gap(size) == 0, start)
        if least is None:
            return None
        trials = (_roundest(2 * least, 4 * least), _roundest(least, 2 * least), least, least + 1)  # one place alone says little
        return next((size for size in trials if size != unlike and gap(size) == 0), None)

    def _equal(self, gap: Callable[[int], int | None], start: int, unlike: int | None) -> int | None:
        other = next((size for size in (2 * start, start + 1, start // 2) if size and gap(size) is not None), None)
        before, after = gap(start), None if other is None else gap(other)
        if before is None or after is None or other is None or before == after:
            return None  # the node does not depend on it
        sign = 1 if (after > before) == (other > start) else -1

        def above(least: int) -> int | None:
            return _least(lambda size: (found := gap(size)) is not None and sign * found >= least, start)

        low = above(0)
        if low is not None and gap(low) == 0:
            high = above(1) or low + 1
            return unlike if unlike is not None and low <= unlike < high else _roundest(low, high)
        trials = (-(-start // number) * number for number in self.demands.numbers)
        return next((size for size in trials if gap(size) == 0), None)


def _least(holds: Callable[[int], bool], start: int) -> int | None:
    """The least size from which on something holds, found from ``start`` on; ``None`` if it does nowhere."""
    low, high = 0, max(start, 1)
    while not holds(high):
        low, high = high, 2 * high
        if high > _LARGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _roundest(low: int, high: int) -> int:
    """The size from ``low`` to below ``high`` that the largest power of two divides."""
    return max(range(low, min(high, low + _LARGEST)), key=lambda size: (size & -size, -size))
