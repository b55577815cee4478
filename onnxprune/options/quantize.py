"""How a model becomes int8, as data: the same fields for the Python API, the command line and a recipe file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxprune.options.fields import Option
from onnxprune.options.gates import Gates
from onnxprune.options.shared import Preprocess, RequireProof, Samples, Shape

__all__ = ["RANGES", "ROUNDINGS", "QuantRecipe"]

RANGES = ("minmax", "entropy", "percentile")
"""How the range of an activation follows from what was measured."""
ROUNDINGS = ("refit", "nearest")
"""How weights become integers."""


@dataclass(frozen=True)
class QuantRecipe(Gates):
    """How to quantise a model.

    Fields without a text here are described in `onnxprune.options.shared` and `onnxprune.options.gates`.

    Attributes:
        method: how a range follows from what was measured: ``minmax`` (all of it), ``percentile`` (all but outliers) or
            ``entropy`` (where a histogram loses least; slow).
        percentile: of an activation's values that its range holds, in percent, with ``percentile``.
        per_channel: whether each output channel of a weight has a scale of its own, or the whole weight has one.
        activations: ``uint8``, what CPUs compute fastest, or ``int8``, symmetric, as TensorRT wants them.
        reduce_range: whether weights take 7 bits, ``yes`` or ``no``: x86 CPUs without VNNI add products of 8 bits in 16, which
            overflow. ``auto`` is ``yes`` with ``uint8`` and ``no`` with ``int8``.
        rounding: how weights become integers: ``refit``, layer by layer, so that each outputs what the original did from what the
            int8 model feeds it, or ``nearest``.
        exclude: leave nodes and weights of this name, and operators, in floating point; may be repeated.

    Raises:
        OptionError: a field has no sensible value.
    """

    calib: Samples = ""
    preprocess: Preprocess = ""
    method: Annotated[str, Option(names=RANGES, metavar="NAME")] = "minmax"
    percentile: Annotated[
        float, Option(range="(50, 100]", says="write the share of values to cover, above 50 and up to 100", metavar="P")
    ] = 99.99
    per_channel: Annotated[bool, Option(flags="--per-channel/--per-tensor")] = True
    activations: Annotated[str, Option(names=("uint8", "int8"), metavar="TYPE")] = "uint8"
    reduce_range: Annotated[str, Option(names=("auto", "yes", "no"), metavar="WHEN")] = "auto"
    rounding: Annotated[str, Option(names=ROUNDINGS, metavar="NAME")] = "refit"
    exclude: Annotated[tuple[str, ...], Option(metavar="GLOB")] = ()
    require_proof: RequireProof = False
    shape: Shape = ()

    @property
    def reduced(self) -> bool:
        """Whether weights take 7 bits."""
        return self.activations == "uint8" if self.reduce_range == "auto" else self.reduce_range == "yes"
