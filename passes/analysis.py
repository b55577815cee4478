"""What is known of a model before anything is chosen: its shapes and its groups, and what follows from these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from onnxprune.data.calibration import Calibration
from onnxprune.ir.precision import as_float32, float_types
from onnxprune.passes.constants import tie
from onnxprune.passes.footprint import footprint, footprint_of_file
from onnxprune.passes.restore import Restore
from onnxprune.pruning.cost import CostModel, Footprint
from onnxprune.shapes.run_memory import demand_room

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model
    from onnxprune.shapes.probes import Shapes

__all__ = ["Analysis", "Normalized"]


@dataclass(frozen=True, repr=False)
class Normalized:
    """A model in one spelling.

    Attributes:
        model: the model.
        shapes: the sizes of its values.
        source: the model that it was made from, as it was read.
    """

    model: Model
    shapes: Shapes
    source: Model

    @cached_property
    def is_float32(self) -> bool:
        """Whether it has no other floating-point type."""
        return float_types(self.model) <= {"float32"}

    @cached_property
    def float32(self) -> Self:
        """The same for a copy in float32, which ONNX Runtime runs and in which weights are fitted; no copy where it is that."""
        return self if self.is_float32 else replace(self, model=as_float32(self.model))

    def calibration(self, samples: Samples) -> Calibration:
        """Samples as batches for the float32 copy.

        Raises:
            OptionError: they do not fit the model, or the memory that is left does not do for one of them.
        """
        demand_room(self.model, self.shapes.shapes, "calibration", samples=max(self.shapes.batch, 1))
        return Calibration.of(samples, self.shapes, float32=not self.is_float32)


@dataclass(frozen=True, repr=False)
class Analysis(Normalized):
    """A normalised model and what may be pruned in it.

    Attributes:
        coupling: the groups that can only be pruned together, and why the rest may not be pruned.
    """

    coupling: Coupling

    def __repr__(self) -> str:
        """How much may go."""
        return f"<Analysis of {self.source.name}: {self.coupling!r}>"

    @cached_property
    def costs(self) -> CostModel:
        """What the model costs under any plan, written like `onnxprune.passes.Restore` leaves it."""
        tied, file = tie(self.model), footprint_of_file(self.source)
        restored = Restore().run(tied, self.source)
        params, uncut = footprint(tied).params, footprint(restored)
        # What nodes make are parameters that take no bytes, in the file and in what is written.
        file = Footprint(file.params + params - uncut.params, file.size)
        made = tied.weights.keys() - restored.weights.keys()
        return CostModel(self.model, self.coupling, self.shapes.batch, file, Footprint(params, uncut.size), made)
