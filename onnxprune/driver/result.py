"""What commands return: a model that is ready to be written, and what pruning came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.driver.destination import Destination
from onnxprune.ir.history import made
from onnxprune.ir.model import Model
from onnxprune.pages.brief import brief
from onnxprune.passes.repair import unrepaired_bodies

if TYPE_CHECKING:
    from onnx import ModelProto

    from onnxprune.axes.plan import Plan
    from onnxprune.driver.judgement import Judgement
    from onnxprune.latency.device_table import DeviceTable
    from onnxprune.linear.reconstruction import Repaired
    from onnxprune.options.prune import Recipe
    from onnxprune.passes.analysis import Analysis
    from onnxprune.verify.verdicts import Check

__all__ = ["ModelResult", "Predicted", "Pruned"]

_NAMED = 3
"""Layers that a note names."""


@dataclass(frozen=True, repr=False)
class ModelResult:
    """A model that was made, and what is known of it.

    Attributes:
        compiled: the model.
    """

    compiled: Model = field(kw_only=True, repr=False)

    @cached_property
    def model(self) -> ModelProto:
        """The model, as a protobuf; one over 2 GB can only be saved."""
        return self.compiled.to_proto()

    def to_dict(self) -> dict[str, Any]:
        """What the command prints with ``--json``."""
        report: Any = getattr(self, "report", {"model": self.compiled.name})
        return {**(report if isinstance(report, Mapping) else report.to_dict()), **made(self.compiled)}

    def __repr__(self) -> str:
        """Accuracy, costs and the proof."""
        return brief(type(self).__name__, self.to_dict())

    def _repr_html_(self) -> str | None:
        """What notebooks show: accuracy, costs and the proof; nothing of that where Jinja is not installed."""
        if find_spec("jinja2") is None:
            return None
        from onnxprune.pages.page import summary

        return summary(self.to_dict())

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model: whole or not at all.

        A model that lies in a folder of Hugging Face (with a ``config.json``) may be saved as a folder: what loads the one
        loads the other.

        Args:
            path: an ``.onnx`` file, or a folder.
            force: whether existing files are replaced.

        Raises:
            OutputError: the path cannot be written, or exists and ``force`` is not set.
        """
        Destination.of(path, Path(self.compiled.name), force=force).save(self.compiled, self.to_dict())


@dataclass(frozen=True, slots=True)
class Pruned:
    """A small model, and how it came about.

    Attributes:
        analysis: the model that was cut, and its groups.
        plan: what remains of it.
        model: the small model.
        params: its parameters; those that its nodes make, too.
        check: the proof of the surgery, before any repair; ``None`` if it was not asked for.
        repairs: the readers that were repaired since, with their errors before and after.
        frozen: groups that were left whole because they break the proof, by id, with the reason.
        judgement: how good it is beside the original; ``None`` if that was not asked for.
    """

    analysis: Analysis
    plan: Plan
    model: Model
    params: int = 0
    check: Check | None = None
    repairs: tuple[Repaired, ...] = ()
    frozen: Mapping[str, str] = field(default_factory=dict)
    judgement: Judgement | None = None

    def notes(self, recipe: Recipe, *, samples: bool) -> Iterator[str]:
        """What the user should know of it; ``samples`` tells whether there were any to repair on."""
        groups, frozen = self.analysis.coupling.groups, self.frozen
        if frozen:
            yield f"left whole, because they failed verification: {len(frozen)} of {len(groups) + len(frozen)} groups"
        if any(not group.exact and group.id in self.plan.keep for group in groups):
            yield "inexact groups were pruned: equality with the masked model was proven for the exact ones only"
        if not recipe.repair:
            return
        if recipe.blind and self.repairs:
            yield "repaired on noise, not on data: samples repair better"
        elif recipe.blind:
            yield "repair on noise did not help, and was left out"
        unrepaired = unrepaired_bodies(self.analysis, self.plan) if samples else []
        if unrepaired:
            few = ", ".join(unrepaired[:_NAMED]) + (f" and {len(unrepaired) - _NAMED} more" if len(unrepaired) > _NAMED else "")
            yield f"in branches or loops, where samples do not show what is computed: {few} read less, and were not repaired"


@dataclass(frozen=True, slots=True)
class Predicted:
    """The latency of a model on another device, as its table predicts it.

    Attributes:
        device: the table.
        before: milliseconds of the original.
        after: milliseconds of the result.
    """

    device: DeviceTable
    before: float
    after: float

    @property
    def share(self) -> float:
        """What remains, as a fraction of the original."""
        return self.after / self.before

    @property
    def note(self) -> str:
        """What the user must know."""
        return f"latency was planned for {self.device}: it is predicted from {self.device.path.name}, not measured here"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        machine, table = dict(self.device.machine), self.device.path.name
        return {"machine": machine, "table": table, "before_ms": self.before, "after_ms": self.after, "ratio": self.share}
