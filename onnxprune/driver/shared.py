"""What compilations of one model on the same samples have in common: worked out once in a process, and kept as files for others.

Files hold numbers alone: what they belong to (readers, groups, strands) is found in the model again. What is read is checked;
where it does not fit the model, it is worked out again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from onnxprune.driver.packing import Arrays, pack, unpack
from onnxprune.linear.moments import restored_statistics
from onnxprune.linear.rotation import restored_bases
from onnxprune.passes.observe import Observed
from onnxprune.pruning.knapsack import Curve

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.data.calibration import Calibration
    from onnxprune.ir.model import Model
    from onnxprune.options.prune import Recipe
    from onnxprune.passes.analysis import Analysis, Normalized
    from onnxprune.pruning.criteria import Scores

__all__ = ["STAGES", "SharedStages", "Shelf", "stage_name"]

T = TypeVar("T")

_GROUPS = ("protect", "allow_inexact", "only")
_SEEN = (*_GROUPS, "repair", "seed")
STAGES: Mapping[str, tuple[str, ...]] = {
    "groups": _GROUPS,
    "statistics": _SEEN,
    "scores": (*_SEEN, "criterion"),
    "curves": (*_SEEN, "criterion"),
}
"""The stages, in order, each with the options that it depends on, beside the model and the samples."""


def stage_name(stage: str, recipe: Recipe) -> str:
    """The name of what a stage comes to under a recipe; recipes that it does not differ for give the same one."""
    options = recipe.to_dict()
    told = json.dumps([options[name] for name in STAGES[stage]], sort_keys=True)
    return f"{stage}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


class Shelf(Protocol):
    """A place for files."""

    def get(self, name: str) -> bytes | None:
        """The file of that name, whole; ``None`` where there is none."""

    def put(self, name: str, content: bytes) -> None:
        """Keep a file."""


class SharedStages:
    """The stages of compilations of one model on the same samples, whatever their targets are.

    The first that asks for a stage works it out; the others get the same. Who changes the model or the samples, or says that
    groups must stay whole, takes another one of these.
    """

    def __init__(self, shelf: Shelf | None = None) -> None:
        """Nothing is known yet in this process.

        Args:
            shelf: where other processes find what this one worked out, and the other way round; ``None`` for nowhere.
        """
        self._shelf = shelf
        self._kept: dict[str, Any] = {}

    def normal(self, original: Model, file: Model, make: Callable[[], Normalized]) -> Normalized:
        """The normalised model, which remembers what ``original`` does of how it came about."""
        known = "normal" in self._kept
        found: Normalized = self._once("normal", make)
        return replace(found, model=_remembering(found.model, original) if known else found.model, source=file)

    def coupling(self, recipe: Recipe, make: Callable[[], Coupling]) -> Coupling:
        """The groups."""
        return self._once(stage_name("groups", recipe), make)

    def observed(self, recipe: Recipe, original: Analysis, calibration: Calibration, make: Callable[[], Observed]) -> Observed:
        """What samples show of a model in float32."""

        def read(arrays: Arrays) -> Observed | None:
            return _read_observed(arrays, original, calibration)

        found = self._shared(stage_name("statistics", recipe), make, _written_observed, read)
        return replace(found, calibration=calibration)

    def scores(self, recipe: Recipe, coupling: Coupling, make: Callable[[], Mapping[str, Scores]]) -> Mapping[str, Scores]:
        """The importance of each position, by group id."""

        def read(arrays: Arrays) -> Mapping[str, Scores] | None:
            return _read_scores(arrays, coupling)

        return self._shared(stage_name("scores", recipe), make, _written_scores, read)

    def curves(self, recipe: Recipe, coupling: Coupling, make: Callable[[], Mapping[str, Curve]]) -> Mapping[str, Curve]:
        """What each group costs, by its id."""

        def read(arrays: Arrays) -> Mapping[str, Curve] | None:
            return _read_curves(arrays, coupling)

        return self._shared(stage_name("curves", recipe), make, _written_curves, read)

    def _once(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._kept:
            self._kept[name] = make()
        found: T = self._kept[name]
        return found

    def _shared(self, name: str, make: Callable[[], T], write: Callable[[T], Arrays], read: Callable[[Arrays], T | None]) -> T:
        """What is known in this process, else what a file says, else what is worked out, which becomes a file."""

        def find() -> T:
            content = None if self._shelf is None else self._shelf.get(name)
            arrays = None if content is None else unpack(content)
            found = None if arrays is None else read(arrays)
            if found is None:
                found = make()
                if self._shelf is not None:
                    self._shelf.put(name, pack(write(found)))
            return found

        return self._once(name, find)


def _remembering(model: Model, original: Model) -> Model:
    """A model that says of how it came about what ``original`` says."""
    result, told = model.copy(), original.proto
    result.proto.producer_name, result.proto.producer_version = told.producer_name, told.producer_version
    del result.proto.metadata_props[:]
    result.proto.metadata_props.extend(told.metadata_props)
    return result


def _written_observed(found: Observed) -> Arrays:
    arrays: Arrays = {("moment", name, 0): one.array for name, one in found.statistics.moments.items()}
    arrays |= {("energy", name, axis): array for (name, axis), array in found.statistics.energies.items()}
    for name, basis in found.bases.items():
        arrays |= {("basis", name, part): one for part, one in enumerate((basis.forth, basis.back, basis.lost))}
    return arrays


def _read_observed(arrays: Arrays, original: Analysis, calibration: Calibration) -> Observed | None:
    moments = {name: array for (kind, name, _), array in arrays.items() if kind == "moment"}
    energies = {(name, axis): array for (kind, name, axis), array in arrays.items() if kind == "energy"}
    parts: dict[str, list[Any]] = {}
    for (kind, name, _), array in arrays.items():
        if kind == "basis":
            parts.setdefault(name, []).append(array)
    statistics = restored_statistics(original.model, original.coupling, moments, energies)
    bases = restored_bases(original.model, original.coupling, parts)
    return None if statistics is None or bases is None else Observed(calibration, statistics, bases)


def _written_scores(found: Mapping[str, Scores]) -> Arrays:
    return {("score", name, 0): scores for name, scores in found.items()}


def _read_scores(arrays: Arrays, coupling: Coupling) -> Mapping[str, Scores] | None:
    found = {name: array for (_, name, _), array in arrays.items()}
    if found.keys() != {group.id for group in coupling.groups}:
        return None
    sound = all(_is_row(found[group.id], group.size) for group in coupling.groups)
    return found if sound else None


def _written_curves(found: Mapping[str, Curve]) -> Arrays:
    arrays: Arrays = {}
    for name, curve in found.items():
        measured = np.array([[kept, error] for kept, error in curve.measured.items()], np.float64).reshape(-1, 2)
        arrays |= {("curve", name, part): one for part, one in enumerate((curve.order, curve.error, measured))}
    return arrays


def _read_curves(arrays: Arrays, coupling: Coupling) -> Mapping[str, Curve] | None:
    names = dict.fromkeys(name for _, name, _ in arrays)
    sizes = {group.id: group.size for group in coupling.groups}
    if names.keys() != sizes.keys() or len(arrays) != 3 * len(names):
        return None
    found: dict[str, Curve] = {}
    for name in names:
        order, error, measured = (arrays.get(("curve", name, part)) for part in range(3))
        if order is None or error is None or measured is None or not _is_curve(order, error, measured, sizes[name]):
            return None
        found[name] = Curve(order, error, {int(kept): float(lost) for kept, lost in measured})
    return found


def _is_curve(order: Any, error: Any, measured: Any, size: int) -> bool:
    if order.dtype != np.intp or not np.array_equal(np.sort(order), np.arange(size)):
        return False
    if not _is_row(error, size + 1) or (np.diff(error) < 0).any():
        return False
    if measured.dtype != np.float64 or measured.ndim != 2 or measured.shape[1] != 2 or not np.isfinite(measured).all():
        return False
    kept = measured[:, 0]
    return bool(((kept >= 1) & (kept <= size) & (kept == np.round(kept))).all())


def _is_row(array: Any, size: int) -> bool:
    """Tell whether an array is so many finite numbers of float64."""
    return array.dtype == np.float64 and array.shape == (size,) and bool(np.isfinite(array).all())
