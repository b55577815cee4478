"""Which sizes are tried for open axes of inputs: those that are known first, then plain ones, then what the graph asks for.

Sizes that the user gave are in every candidate, and axes of one name have one size. A name that is arithmetic on others
(``past + 1``, as exporters write) has the size that this gives. Then come the sizes of samples, where there are some, plain ones,
those that the graph asks for (see `onnxprune.shapes.demands`), and those that networks are commonly made for.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onnxprune.ir.model import Model
from onnxprune.ir.sizes import GivenSizes
from onnxprune.shapes.demands import Assignment, Demands, shapes_from
from onnxprune.shapes.formulas import Formula, formula

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from onnxprune.ir.types import Shape

__all__ = ["binding_candidates", "bindings", "larger", "moved", "one_sample", "unmoved"]

_COMMON = (224, 32, 28, 256, 128, 384, 299, 512)
"""Image sizes and sequence lengths that models are made for."""
_LONGER = (8, 64, 1024)
"""How many times as long sequences are where a window is longer than the plain ones; audio has thousands of samples."""
_LARGEST_IMAGE = 8
"""How many times as wide images become at most."""
_LARGEST = 1 << 22
"""Elements that a longer input has at most."""
_BATCHES = ((4, 8), (8, 16), (16, 32), (6, 12), (10, 20))
"""Batches of graphs that take multiples alone: several views of a sample, flips, crops."""
_STATE_RANK = 3
_RANKS = (0, 2, 3, 4, 1, 5)
"""Ranks that are tried for inputs that have none."""
_LONG = 1024
"""What the largest open size comes to, about, in the large run; images become two and a half times as high and wide."""
_IMAGE_FACTOR = 2.5
_WIDE = 160
"""Images that are as wide are large already, and become twice as wide."""
_LARGE_BATCH = 5
_SMALL_SAMPLE = 1 << 14
"""Elements of one sample up to which many of them are cheap."""
_NONE = GivenSizes()


@dataclass(frozen=True, slots=True)
class _Trial:
    """How open sizes are chosen.

    Attributes:
        batches: sizes of the first axis, in the two probes.
        alike: whether open sizes on one axis are equal.
        less: by how much the second size is less than a multiple of 8.
        size: the one value that open sizes have; 0 for two different ones.
        times: how many times as large as the first the second size is, where that is one value.
        scale: how many times as long as in the plain trial sequences are.
        known: sizes that axes have first, by key.
        pinned: sizes that they have in both probes.
    """

    batches: tuple[int, int]
    alike: bool = False
    less: int = 1
    size: int = 0
    times: float = 1
    scale: float = 1
    known: Mapping[str, int] = field(default_factory=dict)
    pinned: Mapping[str, int] = field(default_factory=dict)

    def known_size(self, key: str, *, second: bool) -> int | None:
        """The size of an axis that is known; in the second probe another one, unless it is pinned."""
        if key in self.pinned:
            return self.pinned[key]
        size = self.known.get(key)
        if size is None or not second:
            return size
        other = int(size * (self.times if self.times != 1 else 2)) - self.less
        return other if other not in {0, size} else size + 1

    def size_of(self, axis: int, rank: int, count: int, *, second: bool) -> int:
        """The size of an axis that is not known.

        Args:
            axis: its number.
            rank: of its input.
            count: how many open axes have a size already.
            second: whether it is that of the second probe.
        """
        if axis == 0:
            return self.batches[second]
        if self.size:
            return int(self.size * (self.times if second else 1))
        image = rank >= 4 and axis >= 2
        size = int((64 if image else 16 + 8 * count) * (min(self.scale, _LARGEST_IMAGE) if image else self.scale))
        return int(size * (1.5 if image and self.times == 1 else 2)) - self.less if second else size


def bindings(
    inputs: Sequence[ValueInfoProto], batches: tuple[int, int] = (2, 3), given: GivenSizes = _NONE
) -> list[dict[str, Shape]]:
    """Definite shapes for the graph inputs: one probe, and a second one if any size is open.

    A batch becomes 2 and 3 (or what ``batches`` says), image sizes 64 and 95 pixels, other sizes 16, 24, 32, ... and one less
    than twice as much in the second probe: what a graph computes from a remainder (padding to whole windows) must differ, too.
    Sizes with one name stay equal; what is ``given`` is as it is given.
    """
    return _shapes(inputs, given, _bound(inputs, given, _Trial(batches, pinned=given.fixed)))


def binding_candidates(
    model: Model, batches: tuple[int, int] = (2, 3), *, pinned: bool = True, smaller: bool = False
) -> Iterator[list[dict[str, Shape]]]:
    """`bindings` of a model's inputs, then others for models that do not take sizes as free as they are declared.

    Some take multiples of some number alone. Exporters give sizes that must be equal different names: then those on one axis
    of different inputs become equal; sizes with one name always are. And they leave sizes open for which there is one right
    value: then those are tried that would fit what the graph has, and those that networks are commonly made for, longer ones
    (for windows that are longer than the first sizes), and other batches.

    Args:
        model: its inputs, and what is known of their sizes.
        batches: sizes of an open first axis, in the two probes.
        pinned: whether sizes that the user gave are in both probes; else the second has others there, if the graph takes these.
        smaller: whether smaller sizes than the plain ones come first.
    """
    inputs, fixed = model.inputs, model.sizes.fixed
    done: list[list[dict[str, Shape]]] = []
    trials = [_Trial(batches, known=fixed, pinned=fixed)]
    if not pinned and fixed:
        trials.insert(0, _Trial(batches, known=fixed))
    for ranked, base in itertools.product(_ranked(model), trials):
        for assignments in _assignments(ranked, base, smaller=smaller):
            found = _shapes(inputs, ranked.sizes, assignments)
            if found not in done and not (done and _too_large(found, inputs, ranked.sizes)):  # the plain ones are always tried
                done.append(found)
                yield found


def _ranked(model: Model) -> Iterator[Model]:
    """The model as if inputs of open rank had one: what is known of it, or each that is common."""
    open_ = [value.name for value in model.inputs if not value.type.tensor_type.HasField("shape")]
    if model.sizes.ranks.keys() >= {*open_}:
        yield model
        return
    for rank in _RANKS:
        ranks = {**dict.fromkeys(open_, rank), **model.sizes.ranks}
        yield Model(model.proto, model.weights, model.name, sizes=replace(model.sizes, ranks=ranks))


def _assignments(model: Model, base: _Trial, *, smaller: bool) -> Iterator[list[Assignment]]:
    """Sizes by key, in the two probes, in the order in which they are tried."""
    inputs, given = model.inputs, model.sizes

    def bound(trial: _Trial) -> list[Assignment]:
        return _bound(inputs, given, trial)

    if given.seen:
        seen = replace(base, known={**given.seen, **base.known})
        for times, less in ((0.5, -1), (0.5, 0), (2, 0)):
            yield bound(replace(seen, times=times, less=less))
        yield bound(replace(seen, pinned={**given.seen, **base.pinned}))
    for scale in (0.25, 0.5) if smaller else ():
        yield bound(replace(base, scale=scale))
    plain = [replace(base, alike=alike, less=less) for alike in (False, True) for less in (1, 0)]
    yield from map(bound, plain)
    yield bound(replace(base, times=2, less=0))
    longer = [replace(base, scale=scale) for scale in _LONGER]
    yield from (found for trial in plain[:1] for found in _asked_for(model, bound(trial), base.known))
    for size in _COMMON:
        yield from (bound(replace(base, alike=True, size=size, times=times)) for times in (2, 1.5, 1))
    yield from map(bound, longer)
    yield from (found for trial in longer for found in _asked_for(model, bound(trial), base.known))
    for more in _BATCHES:
        yield from (bound(replace(base, batches=more, alike=alike, less=less)) for alike, less in ((False, 1), (True, 0)))


def _asked_for(model: Model, start: Sequence[Assignment], known: Mapping[str, int]) -> Iterator[list[Assignment]]:
    """The sizes near some others that the graph asks for."""
    if len(start) > 1:
        first, second = start
        yield from Demands(model).met(first, second, known)


def _shapes(inputs: Sequence[ValueInfoProto], given: GivenSizes, assignments: Sequence[Assignment]) -> list[dict[str, Shape]]:
    found = [shapes_from(inputs, given, assignment) for assignment in assignments]
    return found[:1] if found[0] == found[-1] else found


def _too_large(found: Sequence[Mapping[str, Shape]], inputs: Sequence[ValueInfoProto], given: GivenSizes) -> bool:
    """Tell whether an input is larger than a trial should be, with a size nobody gave, or more than twice a known one."""
    known = {**given.seen, **given.fixed}

    def guessed(value: ValueInfoProto, shape: Shape) -> bool:
        axes = zip(given.axes(value), shape, strict=True)
        return any(isinstance(key, str) and size > 2 * known.get(key, 0) for key, size in axes)

    large = [(v, shapes[v.name]) for shapes in found for v in inputs if math.prod(shapes[v.name]) > _LARGEST]
    return any(guessed(value, shape) for value, shape in large)


def _bound(inputs: Sequence[ValueInfoProto], given: GivenSizes, trial: _Trial) -> list[Assignment]:
    """Sizes of open axes by key, once or twice."""
    axes = {value.name: given.axes(value) for value in inputs}
    homes = _homes(axes)
    formulas = {key: formula(key, homes) for key in homes}
    probes: list[Assignment] = []
    for second in (False, True):
        chosen: dict[str, int] = {}
        found: Assignment = {}
        for sizes in axes.values():
            for axis, key in enumerate(sizes):
                if isinstance(key, str) and key not in found and formulas[key] is None:
                    place = homes[key] if trial.alike else axis
                    name = f"axis {place}" if trial.alike else key
                    if name not in chosen:
                        chosen[name] = trial.size_of(place, len(sizes), len(chosen), second=second)
                    found[key] = trial.known_size(key, second=second) or chosen[name]
        probes.append(_with_formulas(found, formulas, trial.pinned))
        if not homes:
            break
    return probes


def _homes(axes: Mapping[str, Sequence[int | str]]) -> dict[str, int]:
    """By key the first axis that has it: those that are alike have one size.

    The batch of a recurrent state [layers, batch, hidden] is on its second axis, that of other inputs on their first.
    """
    homes: dict[str, int] = {}
    batched = any(sizes and isinstance(sizes[0], str) for sizes in axes.values())
    for sizes in axes.values():
        state = batched and len(sizes) == _STATE_RANK and [isinstance(size, str) for size in sizes] == [False, True, False]
        for axis, key in enumerate(sizes):
            if isinstance(key, str):
                homes[key] = min(0 if state else axis, homes.get(key, axis))
    return homes


def _with_formulas(found: Assignment, formulas: Mapping[str, Formula | None], pinned: Mapping[str, int]) -> Assignment:
    """Sizes, and those that are computed from them; a size that is computed from computed ones comes later."""
    left = {key: spelled for key, spelled in formulas.items() if spelled is not None}
    while left:
        ready = {key: spelled for key, spelled in left.items() if spelled.names <= found.keys()} or left
        for key, spelled in ready.items():
            found[key] = pinned.get(key, spelled(defaultdict(lambda: 1, found)))
            del left[key]
    return found


def larger(model: Model, sizes: Mapping[str, Shape]) -> Iterator[dict[str, Shape]]:
    """Larger sizes than those that a model takes, the largest first; none where the user gave all of them.

    Equal sizes stay equal, multiples stay multiples. Where the model takes no larger samples, a batch grows if they are small.

    Args:
        model: its inputs, and what is known of their sizes.
        sizes: shapes of the inputs that it takes.
    """
    inputs, given = model.inputs, model.sizes.tried(sizes)
    axes = {value.name: given.axes(value) for value in inputs}
    found = {
        key: size for name, keys in axes.items() for key, size in zip(keys, sizes[name], strict=True) if isinstance(key, str)
    }
    lone = max(map(len, axes.values()), default=0) == 1  # the only axis is no batch, but a length
    batches = {key for key, home in _homes(axes).items() if home == 0 and not lone}
    formulas = {key: formula(key, found) for key in found}
    rows = {key: size for key, size in found.items() if key not in {*batches, *given.fixed} and formulas[key] is None}
    spatial = {key for keys in axes.values() if len(keys) >= 4 for key in keys[2:] if isinstance(key, str)}
    free = batches - given.fixed.keys()

    def grown(some: Mapping[str, int]) -> dict[str, Shape]:
        return shapes_from(inputs, given, _with_formulas({**found, **some}, formulas, given.fixed))

    if rows:
        longest, wide = max(rows.values()), max((size for key, size in rows.items() if key in spatial), default=0)
        single = dict.fromkeys(free, 1) if all(found[key] <= 2 for key in free) else {}
        for part in (16, 7, 3):
            factor = max(_LONG * part // (16 * max(longest, 1)), 2)
            image = _IMAGE_FACTOR if wide < _WIDE else factor
            yield grown({**single, **{key: int(size * (image if key in spatial else factor)) for key, size in rows.items()}})
    one = sum(math.prod(shape[1:]) for shape in sizes.values())
    if free and one <= _SMALL_SAMPLE:
        unit = math.gcd(*(found[key] for key in free))
        yield grown(dict.fromkeys(free, _LARGE_BATCH * unit if len({found[key] for key in free}) == 1 else _LARGE_BATCH))


def unmoved(model: Model, first: Mapping[str, Shape], second: Mapping[str, Shape]) -> list[str]:
    """The keys of open axes that have one size in two probes, except what is computed from others."""
    sizes, others = _open_sizes(model, first), _open_sizes(model, second)
    return [key for key, size in sizes.items() if others.get(key) == size and formula(key, sizes) is None]


def moved(model: Model, sizes: Mapping[str, Shape], key: str) -> Iterator[dict[str, Shape]]:
    """The shapes of a probe with other sizes of one open axis."""
    found = _open_sizes(model, sizes)
    formulas = {one: formula(one, found) for one in found}
    size = found[key]
    for other in (2 * size - 1, 2 * size, size // 2, 3 * size // 2):
        if other not in {0, 1, size}:  # one fits many by broadcasting alone
            assignment = _with_formulas({**found, key: other}, formulas, model.sizes.fixed)
            yield shapes_from(model.inputs, model.sizes, assignment)


def _open_sizes(model: Model, shapes: Mapping[str, Shape]) -> Assignment:
    """The sizes of open axes by key; of no input whose rank is a guess."""
    axes = {value.name: model.sizes.axes(value) for value in model.inputs}
    if any(len(axes[name]) != len(shape) for name, shape in shapes.items()):
        return {}
    pairs = (pair for name, shape in shapes.items() for pair in zip(axes[name], shape, strict=True))
    return {key: size for key, size in pairs if isinstance(key, str)}


def one_sample(model: Model, sizes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Sizes of one sample, from those of a batch: 1 on every axis that is the batch; inputs that all samples share keep theirs.

    Args:
        model: its inputs, and what is known of their sizes.
        sizes: shapes of the inputs that it takes.
    """
    given = model.sizes.tried(sizes)
    axes = {value.name: given.axes(value) for value in model.inputs}
    leading = {keys[0] for keys in axes.values() if keys}
    static = leading if len(leading) == 1 else set()
    batches = {key for key, home in _homes(axes).items() if home == 0}

    def single(keys: Sequence[int | str], shape: Shape) -> Shape:
        pairs = enumerate(zip(keys, shape, strict=True))
        return tuple(1 if key in batches or (axis == 0 and key in static) else size for axis, (key, size) in pairs)

    return {name: single(axes[name], shape) for name, shape in sizes.items()}
