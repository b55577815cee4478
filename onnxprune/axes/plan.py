"""Plans: which positions of each group remain. Reviewable and reproducible, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from onnxprune.axes.factors import Factor, Positions, index
from onnxprune.errors import PlanError
from onnxprune.options.documents import absent, load_json

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling

__all__ = ["PLAN_FORMAT", "Plan"]

PLAN_FORMAT = "onnxprune-plan/1"
T = TypeVar("T")
_LARGEST = 2**63 - 1
"""Positions that a tensor may have."""


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """The positions that remain.

    Attributes:
        keep: for each group that loses positions, those that remain: int64, ascending, at least one.
        file: the model it was made for; empty when it was made in memory.
        sha256: of that file, which need not hold the weights: those in external data are not looked at.
        sizes: how many positions each group had; empty when it was made in memory.
        pruned: the SHA-256 of the pruned model that was written with it; empty for none. As with ``sha256``, of one file.
        samples: the name of the calibration samples that it was made with; empty for none.
        recipe: the options that it was made with, as `onnxprune.ir.history.recipe_text` spells them; empty where nobody knows.
    """

    keep: Mapping[str, Positions] = field(default_factory=dict)
    file: str = ""
    sha256: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    pruned: str = ""
    samples: str = ""
    recipe: str = ""

    def __repr__(self) -> str:
        """How much remains."""
        of = f" of {self.file}" if self.file else ""
        return f"<Plan{of}: {sum(map(len, self.keep.values()))} positions remain of {len(self.keep)} groups that lose some>"

    def positions(self, coupling: Coupling) -> dict[Factor, Positions]:
        """The kept positions by factor, for index maps.

        Raises:
            PlanError: the graph has no such group, or a position is out of its range.
        """
        groups = {group.id: group for group in coupling.groups}
        found = {}
        for name, kept in self.keep.items():
            group = groups.get(name)
            if group is None:
                raise PlanError(f"the plan prunes {name!r}, which is no prunable group of this model: make a plan for it")
            if self.sizes.get(name, group.size) != group.size:
                raise PlanError(f"the plan is for a model where {name!r} has {self.sizes[name]} positions, not {group.size}")
            if len(kept) == 0 or kept[0] < 0 or kept[-1] >= group.size or np.any(np.diff(kept) <= 0):
                raise PlanError(f"the plan's positions for {name!r} are not ascending positions below {group.size}")
            found[group.factor] = kept
        return found

    @property
    def digest(self) -> str:
        """The SHA-256 of what remains."""
        found = hashlib.sha256()
        for name, kept in sorted(self.keep.items()):
            found.update(f"{name}\0{len(kept)}\0".encode() + np.asarray(kept, "<i8").tobytes())
        return found.hexdigest()

    def equals(self, other: Plan) -> bool:
        """Whether the same positions remain."""
        return self.keep.keys() == other.keep.keys() and all(np.array_equal(self.keep[n], other.keep[n]) for n in self.keep)

    def without(self, groups: set[str]) -> Plan:
        """The same plan with some groups left whole."""
        return replace(self, keep={name: kept for name, kept in self.keep.items() if name not in groups})

    def to_dict(self, coupling: Coupling) -> dict[str, Any]:
        """Spell the plan as JSON: every group of the graph with the positions it keeps and its members, and every refusal.

        A member's ``value`` is a constant of the pruned model. In the original an initializer of that name is longer along
        ``axis``, or nodes compute that value from constants alone. Where several nodes read one initializer, the pruned model has
        a copy for each of them: then ``of`` names the initializer.

        A member whose axis is more than the group alone (a flattened, concatenated or grouped axis) also lists ``removed``, the
        indices of that axis that go with the group's removed positions.
        """
        groups = []
        for group in coupling.groups:
            kept = self.keep.get(group.id)
            members = []
            for member in group.members:
                entry: dict[str, Any] = {"value": member.value, "axis": member.axis}
                if member.origin != member.value:
                    entry["of"] = member.origin
                if not member.alone:
                    entry["removed"] = _removed(coupling.axes[member.value][member.axis], group.factor, kept)
                members.append(entry)
            keep = list(range(group.size)) if kept is None else kept.tolist()
            groups.append({"id": group.id, "size": group.size, "keep": keep, "exact": group.exact, "members": members})
        model = {"file": self.file, "sha256": self.sha256}
        refusals = [refusal.to_dict() for refusal in coupling.refusals]
        pruned = {"pruned": {"sha256": self.pruned}} if self.pruned else {}
        samples = {"samples": self.samples} if self.samples else {}
        recipe = {"recipe": json.loads(self.recipe)} if self.recipe else {}
        return {"format": PLAN_FORMAT, "model": model, **pruned, **samples, **recipe, "groups": groups, "refusals": refusals}

    @classmethod
    def from_dict(cls, data: Any) -> Plan:
        """Read a plan.

        Raises:
            PlanError: it is not a plan of this format.
        """
        if not isinstance(data, dict) or data.get("format") != PLAN_FORMAT:
            raise PlanError(f"not a plan: its 'format' is not {PLAN_FORMAT!r}; `onnxprune plan` writes one")
        groups: dict[str, tuple[Positions, int]] = {}
        for group in _read(data, "groups", list):
            name = _read(group, "id", str)
            if name in groups:
                raise PlanError(f"the plan is damaged: it lists group {name!r} twice")
            groups[name] = _positions(name, _read(group, "keep", list), _read(group, "size", int))
        model = _read(data, "model", dict)
        pruned = _read(data["pruned"], "sha256", str) if "pruned" in data else ""
        return cls(
            {name: kept for name, (kept, size) in groups.items() if len(kept) != size},
            _read(model, "file", str),
            _read(model, "sha256", str),
            {name: size for name, (_, size) in groups.items()},
            pruned,
            _read(data, "samples", str) if "samples" in data else "",
            json.dumps(_read(data, "recipe", dict), separators=(",", ":"), sort_keys=True) if "recipe" in data else "",
        )

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file.

        Raises:
            PlanError: no such file, or it is not a plan.
        """
        try:
            return cls.from_dict(load_json(path))
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error
        except FileNotFoundError as error:
            raise PlanError(f"{path}: {absent(Path(path), '.json')}") from error
        except OSError as error:
            raise PlanError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise PlanError(f"{path}: not JSON that a plan can be: {error}; `onnxprune plan` writes one") from error


def _read(data: Any, name: str, kind: type[T]) -> T:
    """A part of a plan, if it is there and is what it must be."""
    if not isinstance(data, dict) or type(data.get(name)) is not kind:
        raise PlanError(f"the plan is damaged: {name!r} is missing, or is not of the JSON type that it must be")
    return cast("T", data[name])


def _positions(name: str, kept: list[Any], size: int) -> tuple[Positions, int]:
    """Check the positions that a group keeps, and its size."""
    if not kept or not all(type(k) is int for k in kept) or kept != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= size:
        raise PlanError(f"'keep' of group {name!r} is not a list of ascending positions below {size}")
    if size > _LARGEST:
        raise PlanError(f"'size' of group {name!r} is {size}, which no axis has")
    return np.array(kept, np.int64), size


def _removed(axis: Factor, leaf: Factor, kept: Positions | None) -> list[int]:
    if kept is None:
        return []
    remaining = np.zeros(axis.root.size, bool)
    remaining[index(axis, {leaf: kept})] = True
    removed: list[int] = np.flatnonzero(~remaining).tolist()
    return removed
