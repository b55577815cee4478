"""How fast or small a model must become, and what it may lose, as data: for Python, the command line and recipe files."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

from onnxprune.errors import OptionError
from onnxprune.options.fields import Option, Options, Parsed
from onnxprune.options.quantize import RANGES
from onnxprune.options.shared import Metric, Preprocess, RequireProof, Samples, Seed, Shape
from onnxprune.options.targets import Target

__all__ = ["OptimizeRecipe", "seconds"]

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_NONE = Target("latency", 1.0)
"""Stands for no target, by its identity."""
_DROP = "1%"


def _target(text: str) -> Target:
    if not text:
        return _NONE
    target = Target.parse(text)
    if target.metric not in {"latency", "size"}:
        raise OptionError(f"--target {text}: write latency=0.25 or size=0.2; other targets are prune's")
    return target


def seconds(text: str) -> float:
    """Read ``10m``, ``90s``, ``1h`` or ``600``.

    Raises:
        OptionError: none of these.
    """
    found = re.fullmatch(r"(\d+\.?\d*)\s*([smh]?)", text.strip())
    value = float(found[1]) * _UNITS[found[2]] if found else math.nan
    if not value > 0:
        raise OptionError(f"--time {text!r}: write how long to search, as 10m, 90s or 1h")
    return value


@dataclass(frozen=True)
class OptimizeRecipe(Options):
    """How to make a model faster or smaller. Fields without a text here are described in `onnxprune.options.shared`.

    Attributes:
        target: the most accurate model that takes no more than this fraction of the original: ``latency=0.25``, measured here, or
            ``size=0.2``.
        max_drop: the fastest model whose score is at most this much below the original's, as 1%, which it is unless there is a
            target.
        eval: samples that models are judged by, which ``calib`` should not have; forms as there. Without, each fourth of
            ``calib`` is held out for that.
        data: samples to distil the best model on, so that it outputs what the original does; an eighth of them is held out,
            and where it is no better on these, the model stays as it was. Needs no labels, but PyTorch; forms as ``calib``.
        time: how long to search, about, as 10m, 90s or 1h; then the best so far is taken. What was begun is finished.
        protect: leave nodes and tensors of this name alone, whole and in floating point; may be repeated.
        method: how ranges of activations follow from what was measured, as in `quantize`.
        reduce_range: whether int8 weights take 7 bits, as in `quantize`.
        kernels: zeros are mixed in, too, in layers that sparse kernels make faster; see `onnxprune.kernels`.

    Raises:
        OptionError: a field has no sensible value, or there is both a target and a drop.
    """

    calib: Samples = ""
    preprocess: Preprocess = ""
    target: Annotated[Parsed[Target], Option(metavar="T")] = Parsed(_target, "")
    max_drop: Annotated[str, Option(metavar="D")] = ""
    eval: Annotated[str, Option(metavar="DATA")] = ""
    data: Annotated[str, Option(metavar="DATA")] = ""
    metric: Metric = "auto"
    time: Annotated[str, Option(metavar="T")] = "10m"
    protect: Annotated[tuple[str, ...], Option(metavar="GLOB")] = ()
    method: Annotated[str, Option(names=RANGES, metavar="NAME")] = "minmax"
    reduce_range: Annotated[str, Option(names=("auto", "yes", "no"), metavar="WHEN")] = "auto"
    kernels: bool = False
    seed: Seed = 0
    require_proof: RequireProof = False
    shape: Shape = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        seconds(self.time)
        if self.max_drop and self.targeted:
            raise OptionError(
                f"--target {self.target} wants the most accurate model, --max-drop {self.max_drop} the fastest: leave one out"
            )
        if not self.max_drop and not self.targeted:
            object.__setattr__(self, "max_drop", _DROP)

    @property
    def targeted(self) -> bool:
        """Whether there is a target, and no drop."""
        return self.target is not _NONE

    @property
    def by_size(self) -> bool:
        """Whether the size counts, not the latency."""
        return self.targeted and self.target.metric == "size"
