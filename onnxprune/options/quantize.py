"""How a model becomes int8, as data: the same fields for the Python API, the command line and a recipe file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from onnxprune.errors import OptionError

__all__ = ["ACTIVATIONS", "METHODS", "QuantRecipe"]

METHODS = ("minmax", "entropy", "percentile")
ACTIVATIONS = ("uint8", "int8")
REDUCED = ("auto", "yes", "no")


@dataclass(frozen=True, slots=True)
class QuantRecipe:
    """How to quantise a model.

    Attributes:
        calib: samples: a file, a folder or ``package.module:function``. Ranges of activations are measured on them.
        preprocess: how the images of a folder become arrays; empty for what follows from the model.
        method: how a range follows from what was measured: ``minmax`` (all of it), ``percentile`` (all but outliers) or
            ``entropy`` (where a histogram loses least; slow).
        percentile: of an activation's values that its range holds, in percent, with ``percentile``.
        per_channel: whether each output channel of a weight has a scale of its own, or the whole weight has one.
        activations: ``uint8``, what CPUs compute fastest, or ``int8``, symmetric, as TensorRT wants them.
        reduce_range: whether weights take 7 bits, ``yes`` or ``no``: x86 CPUs without VNNI add products of 8 bits in 16, which
            overflow. ``auto`` is ``yes`` with ``uint8`` and ``no`` with ``int8``.
        exclude: globs over names of nodes and weights, and over operators, that stay in floating point.
        eval: samples that the score before and after is taken on; forms as ``calib``.
        metric: the score: ``top1``, ``agreement``, ``mse``, ``cosine`` or ``package.module:function``; ``auto`` chooses.

    Raises:
        OptionError: a field has no sensible value.
    """

    calib: str = ""
    preprocess: str = ""
    method: str = "minmax"
    percentile: float = 99.99
    per_channel: bool = True
    activations: str = "uint8"
    reduce_range: str = "auto"
    exclude: tuple[str, ...] = ()
    eval: str = ""
    metric: str = "auto"

    def __post_init__(self) -> None:
        for field, known in (("method", METHODS), ("activations", ACTIVATIONS), ("reduce_range", REDUCED)):
            value = getattr(self, field)
            if value not in known:
                raise OptionError(f"--{field.replace('_', '-')} {value!r}: write one of {', '.join(known)}")
        if not 50 < self.percentile <= 100:
            raise OptionError(f"--percentile {self.percentile:g}: write the share of values to cover, above 50 and up to 100")

    @property
    def reduced(self) -> bool:
        """Whether weights take 7 bits."""
        return self.activations == "uint8" if self.reduce_range == "auto" else self.reduce_range == "yes"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)
