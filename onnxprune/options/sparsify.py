"""How sparse a model shall become, as data: the same fields for the Python API and the command line."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.errors import OptionError
from onnxprune.options.prune import GRADIENT

if TYPE_CHECKING:
    from onnxprune.sparse.patterns import Pattern

__all__ = ["ALLOCATIONS", "ENCODINGS", "FITTED", "METHODS", "Goal", "SparseRecipe"]

FITTED = ("admm", "obs", "wanda")
"""Methods that go by what layers read."""
METHODS = ("auto", *FITTED, *GRADIENT, "magnitude", "random")
ALLOCATIONS = ("auto", "sensitivity", "uniform", "erk", "lamp", "global")
ENCODINGS = ("dense", "auto", "bitmask", "delta", "nm", "coo")
_BLIND = frozenset({"magnitude", "random"})
"""Methods that need no data."""
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_GOALS = "sparsity=0.8, threshold=1.0, size=2MB, size=0.3 (of the original file), gzip=1.5MB"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked for.

    Attributes:
        metric: ``sparsity``, the share of zeros in the layers that may be sparse; ``threshold``, the magnitude below which
            weights go, in standard deviations of their layer; ``size``, the bytes of the file; ``gzip``, its bytes after gzip.
        value: the number; of sizes bytes, or below 1 a fraction of the original's.
    """

    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Read ``sparsity=0.8``, ``threshold=1.5``, ``size=2MB``, ``gzip=0.3``.

        Raises:
            OptionError: none of these.
        """
        metric, _, number = (part.strip() for part in text.partition("="))
        found = re.fullmatch(r"(\d+\.?\d*(?:e-?\d+)?|\.\d+)\s*([kKMG]?i?B?)", number)
        sized = metric in {"size", "gzip"}
        known = sized or metric in {"sparsity", "threshold"}
        if not known or not found or found[2] not in _UNITS or (found[2] and not sized):
            raise OptionError(f"target {text!r}: write one of {_GOALS}")
        value = float(found[1]) * _UNITS[found[2]]
        if metric == "sparsity" and not 0 <= value < 1:
            raise OptionError(f"target {text!r}: a sparsity is the share of zeros, at least 0 and below 1, as sparsity=0.8")
        if not math.isfinite(value) or (sized and value <= 0):
            raise OptionError(f"target {text!r}: write one of {_GOALS}")
        return cls(metric, value)

    def __str__(self) -> str:
        return f"{self.metric}={self.value:g}"


@dataclass(frozen=True, slots=True)
class SparseRecipe:
    """How to make a model sparse.

    Attributes:
        target: what is asked for, see `Goal`; a pattern N:M needs none.
        pattern: which weights may stay, see `onnxprune.sparse.patterns.parse_pattern`.
        method: how they are chosen: ``admm`` or ``obs`` (by the layer's error, after the others made up for it), ``wanda``
            (weights times what they read), by gradients, which need PyTorch, ``taylor``, ``fisher``, ``synflow``, and with
            labels ``snip``, ``grasp``, ``movement``; ``magnitude`` or ``random``; ``auto`` is ``admm`` where there is data, else
            ``magnitude``.
        allocation: how a sparsity is shared out: ``sensitivity``, by what each layer is measured to cost, which needs data;
            ``uniform``, ``erk``, ``lamp``, or ``global``, by magnitude, or by gradients where the method goes by them; ``auto``
            is ``sensitivity`` with data, else ``erk``.
        layers: sparsities of their own for layers, as ``GLOB=0.5`` over names of nodes and weights; the first that fits counts.
        protect: globs over names of nodes and weights that stay as they are.
        ends: whether the first and the last layers may be sparse, too.
        repair: whether weights that stay make up for those that go, where there is data.
        permute: whether channels change places where that keeps larger weights under N:M; the model computes the same.
        encoding: how weights with zeros are written, see `onnxprune.passes.Encode`; ``dense`` leaves them as they are.
        calib: samples: a file, a folder or ``package.module:function``; empty for none.
        preprocess: how the images of a folder become arrays; empty for what follows from the model.
        seed: of everything drawn.

    Raises:
        OptionError: a field has no sensible value.
    """

    target: str = "auto"
    pattern: str = "unstructured"
    method: str = "auto"
    allocation: str = "auto"
    layers: tuple[str, ...] = ()
    protect: tuple[str, ...] = ()
    ends: bool = False
    repair: bool = True
    permute: bool = True
    encoding: str = "dense"
    calib: str = ""
    preprocess: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pattern != "unstructured":
            _ = self.shape
        pattern, fixed = self.pattern, self._fixed
        if fixed and self.target != "auto":
            raise OptionError(f"--pattern {pattern} says how much stays: leave {self.target} out, or use another pattern")
        if fixed and (self.layers or self.allocation != "auto"):
            raise OptionError(f"--pattern {pattern} says how much of each layer stays: leave --layer and --allocation out")
        goal = self.goal
        if goal and goal.metric == "size" and self.encoding == "dense":
            raise OptionError(f"target {goal}: zeros alone save nothing: add --encoding auto, or ask for gzip={goal.value:g}")
        choices = (("method", METHODS), ("allocation", ALLOCATIONS), ("encoding", ENCODINGS))
        for field, known in choices:
            value = getattr(self, field)
            if value not in known:
                raise OptionError(f"there is no {field} {value!r}; there are {', '.join(known)}")
        if goal and goal.metric == "threshold" and self.allocation != "auto":
            raise OptionError(f"target {goal}: a threshold says how much of each layer stays: leave --allocation out")
        if self.seed < 0:
            raise OptionError(f"seed {self.seed}: write 0 or a positive number")
        _ = self.own

    @property
    def shape(self) -> Pattern:
        """The pattern, read."""
        from onnxprune.sparse.patterns import parse_pattern  # numpy: not for a command line that only prints its help

        return parse_pattern(self.pattern)

    @property
    def _fixed(self) -> bool:
        """Whether the pattern, N:M, says how much stays."""
        return ":" in self.pattern

    @property
    def goal(self) -> Goal | None:
        """The target, read; ``None`` where the pattern says all."""
        if self._fixed:
            return None
        return Goal.parse("sparsity=0.5" if self.target == "auto" else self.target)

    @property
    def own(self) -> tuple[tuple[str, float], ...]:
        """Globs with the sparsity of the layers they name."""
        found = []
        for text in self.layers:
            glob, equals, number = text.rpartition("=")
            try:
                value = float(number)
            except ValueError:
                value = math.nan
            if not glob or not equals or not 0 <= value < 1:
                raise OptionError(f"--layer {text!r}: write GLOB=SPARSITY, as '*conv1*=0.5', at least 0 and below 1")
            found.append((glob, value))
        return tuple(found)

    def settled(self, *, data: bool) -> SparseRecipe:
        """The same recipe with every ``auto`` decided, by whether there is calibration data.

        Raises:
            OptionError: it needs data and there is none.
        """
        method = ("admm" if data else "magnitude") if self.method == "auto" else self.method
        free = self.goal is not None and self.goal.metric != "threshold"
        allocation = ("sensitivity" if data else "erk") if free and self.allocation == "auto" else self.allocation
        if not data and method not in _BLIND:
            raise OptionError(f"method {method!r} needs samples: add --calib DATA, or use --method magnitude")
        if not data and allocation == "sensitivity":
            raise OptionError("allocation 'sensitivity' needs samples: add --calib DATA, or use --allocation erk")
        return dataclasses.replace(self, method=method, allocation=allocation)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)
