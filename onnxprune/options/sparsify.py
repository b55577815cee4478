"""How sparse a model becomes, as data: the same fields for the Python API, the command line and a recipe file."""

from __future__ import annotations

import dataclasses
from dataclasses import InitVar, dataclass
from typing import Annotated, Any

from onnxprune.errors import OptionError
from onnxprune.options.fields import Option, Parsed
from onnxprune.options.gates import Gates
from onnxprune.options.registries import ALLOCATIONS, ENCODINGS, METHODS, PATTERNS
from onnxprune.options.registry import SAMPLES
from onnxprune.options.shared import Preprocess, RequireProof, Samples, Seed, Shape
from onnxprune.options.targets import Goal, by_layer, number

__all__ = ["MODES", "VALUES", "EncodeRecipe", "SparseRecipe", "read_pattern"]


MODES = ("smallest", "fast")
VALUES = ("float32", "float16")


def read_pattern(text: str) -> Any:
    """A pattern, by what is registered; see `onnxprune.sparse.patterns.Pattern`.

    Raises:
        OptionError: no entry of `PATTERNS` reads it.
    """
    for entry in PATTERNS.values():
        found = entry.value(text)
        if found is not None:
            return found
    raise OptionError(f"pattern {text!r}: write {', '.join(entry.brief for entry in PATTERNS.values())}")


def _goal(text: str) -> Goal | None:
    return None if text == "auto" else Goal.parse(text)


@dataclass(frozen=True)
class SparseRecipe(Gates):
    """How to make a model sparse. One attribute for each option.

    Fields without a text here are described in `onnxprune.options.shared` and `onnxprune.options.gates`.

    Attributes:
        target: ``sparsity=0.8``; ``threshold=1.5`` (standard deviations of each layer); ``size=2MB`` or ``size=0.3``;
            ``gzip=1MB`` or ``gzip=0.3``; with ``kernels`` ``latency=0.4``, measured here. ``auto`` is ``sparsity=0.5``; a
            pattern N:M needs none.
        sparsity: the share of zeros, as 0.8: short for a target of ``sparsity=0.8``.
        pattern: which weights may stay.
        method: how weights are chosen. ``auto`` is ``admm`` with samples, else ``magnitude``.
        allocation: how a sparsity is shared out; with a method by gradients ``global`` goes by them. ``auto`` is ``sensitivity``
            with samples, else ``erk``, or ``uniform`` for a latency.
        layers: a sparsity of its own for layers whose nodes or weights have this name; the first that fits counts; may be
            repeated.
        protect: leave nodes and weights of this name alone; may be repeated.
        ends: also layers that no other comes before or after: the first, the classifier.
        repair: let weights that stay make up for those that go, where there are samples; without, they stay as they are.
        permute: under N:M, let channels change places where that keeps larger weights; the model computes the same.
        values: the type whose numbers weights are rounded to. Layers compute in float32; with ``float16`` an encoding takes two
            bytes for each weight, and kernels read half as much from memory for few tokens.
        encoding: how weights with zeros are written: ``dense`` as they are, ``auto`` the smallest.
        kernels: let ONNX Runtime compute layers by sparse kernels where these are faster; see `onnxprune.kernels`.

    Raises:
        OptionError: a field has no sensible value.
    """

    target: Annotated[Parsed[Goal | None], Option(metavar="T")] = Parsed(_goal, "auto")
    sparsity: InitVar[Annotated[float | None, Option(metavar="S")]] = None
    pattern: Annotated[str, Option(names=(PATTERNS,), free=True, metavar="P")] = "unstructured"
    method: Annotated[str, Option(names=("auto", METHODS), noun="method", metavar="NAME")] = "auto"
    allocation: Annotated[str, Option(names=("auto", ALLOCATIONS), noun="allocation", metavar="NAME")] = "auto"
    layers: Annotated[tuple[str, ...], Option(flags="--layer", metavar="GLOB=S")] = ()
    protect: Annotated[tuple[str, ...], Option(metavar="GLOB")] = ()
    ends: bool = False
    repair: bool = True
    permute: bool = True
    values: Annotated[str, Option(names=VALUES, says="there are", metavar="TYPE")] = "float32"
    encoding: Annotated[str, Option(names=("dense", "auto", ENCODINGS), noun="encoding", metavar="NAME")] = "dense"
    kernels: bool = False
    calib: Samples = ""
    preprocess: Preprocess = ""
    seed: Seed = 0
    require_proof: RequireProof = False
    shape: Shape = ()

    def __post_init__(self, sparsity: float | None) -> None:
        if sparsity is not None:
            if self.target:
                raise OptionError(f"--sparsity {number(sparsity)} and --target {self.target}: give one of them")
            object.__setattr__(self, "target", f"sparsity={number(sparsity)}")
        if self.pattern != "unstructured":  # which needs no numpy
            _ = self.parsed
        pattern, fixed, goal = self.pattern, self._fixed, self.goal
        if fixed and self.target:
            raise OptionError(f"--pattern {pattern} says how much stays: leave {self.target} out, or use another pattern")
        if fixed and (self.layers or self.allocation != "auto"):
            raise OptionError(f"--pattern {pattern} says how much of each layer stays: leave --layer and --allocation out")
        if goal and goal.metric == "size" and self.encoding == "dense":
            asked = f"gzip={number(goal.value)}"
            raise OptionError(f"target {goal}: zeros alone save nothing: add --encoding auto, or ask for {asked}")
        if goal and goal.metric == "latency" and not self.kernels:
            raise OptionError(f"target {goal}: zeros alone save no time: add --kernels, or remove channels with prune")
        super().__post_init__()
        if goal and goal.metric == "threshold" and self.allocation != "auto":
            raise OptionError(f"target {goal}: a threshold says how much of each layer stays: leave --allocation out")
        _ = self.own

    @property
    def parsed(self) -> Any:
        """The pattern, read; an `onnxprune.sparse.patterns.Pattern`."""
        return read_pattern(self.pattern)

    @property
    def _fixed(self) -> bool:
        """Whether the pattern, N:M, says how much stays."""
        return self.pattern != "unstructured" and bool(self.parsed.fixed)

    @property
    def goal(self) -> Goal | None:
        """The target; ``None`` where the pattern says all."""
        return None if self._fixed else self.target or Goal("sparsity", 0.5)

    @property
    def own(self) -> tuple[tuple[str, float], ...]:
        """Globs with the sparsity of the layers they name."""
        return by_layer(self.layers, "GLOB=SPARSITY, as '*conv1*=0.5', at least 0 and below 1", lambda value: 0 <= value < 1)

    def settled(self, *, data: bool) -> SparseRecipe:
        """The same recipe with every ``auto`` decided, by whether there is calibration data.

        Raises:
            OptionError: it needs data and there is none.
        """
        method = ("admm" if data else "magnitude") if self.method == "auto" else self.method
        free = self.goal is not None and self.goal.metric != "threshold"
        timed = self.goal is not None and self.goal.metric == "latency"
        blind = "uniform" if timed else "erk"  # which goes by numbers of weights, and not by time
        allocation = ("sensitivity" if data else blind) if free and self.allocation == "auto" else self.allocation
        if not data and SAMPLES in METHODS[method].needs:
            raise OptionError(f"method {method!r} needs samples: add --calib DATA, or use --method magnitude")
        if not data and allocation == "sensitivity":
            raise OptionError("allocation 'sensitivity' needs samples: add --calib DATA, or use --allocation erk")
        return dataclasses.replace(self, method=method, allocation=allocation)


@dataclass(frozen=True)
class EncodeRecipe(Gates):
    """How zeros are stored; see `onnxprune.driver.encode.encode`.

    Attributes:
        encoding: ``auto`` is the smallest for each weight, ``dense`` leaves weights as they are.
        mode: ``smallest``, or ``fast``: what is quick to decode at load.
        keep_negative_zeros: store negative zeros, which masks leave behind, as they are.
        kernels: let ONNX Runtime compute layers by sparse kernels where these are faster; see `onnxprune.kernels`.

    Raises:
        OptionError: no such encoding or mode.
    """

    encoding: Annotated[str, Option(names=("auto", ENCODINGS, "dense"), says="there are", metavar="NAME")] = "auto"
    mode: Annotated[str, Option(names=MODES, says="there are", metavar="MODE")] = "smallest"
    keep_negative_zeros: bool = False
    kernels: bool = False
    require_proof: RequireProof = False
    shape: Shape = ()
