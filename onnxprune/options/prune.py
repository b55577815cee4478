"""How a model is pruned, as data: the same fields for the Python API, the command line and a TOML file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from onnxprune.errors import OptionError
from onnxprune.options.documents import load_toml
from onnxprune.options.engines import EngineName, EngineOptions, Scheduler, Workers
from onnxprune.options.fields import Option, Parsed
from onnxprune.options.gates import Gates
from onnxprune.options.registries import CRITERIA
from onnxprune.options.registry import SAMPLES
from onnxprune.options.shared import NOISE, Calib, Criterion, Preprocess, RequireProof, Scope, Seed, Shape
from onnxprune.options.targets import Align, Target, by_layer

__all__ = ["KINDS", "Recipe"]

KINDS = ("channels", "heads", "mlp", "residual")
"""Kinds of coupling groups."""
_AUTO = Target("channels", 1.0)
"""Stands for a target that is not given, by its identity."""


def _target(text: str) -> Target:
    return _AUTO if text == "auto" else Target.parse(text)


@dataclass(frozen=True)
class Recipe(Gates):
    """How to prune a model. One attribute for each option.

    Fields without a text here are described in `onnxprune.options.shared`, `onnxprune.options.engines` and
    `onnxprune.options.gates`.

    Attributes:
        target: what remains, as a fraction of the original: ``macs=0.5``, ``params=0.4``, ``size=0.25``, ``channels=0.5``, or
            ``latency=0.5``, measured here. ``auto`` is ``macs=0.5``; with ``lossless`` nothing else is removed.
        align: widths are multiples of this: ``auto`` (16, in narrow layers 8 or 4; 4 where latency is the target), 1 or N. With
            samples and MACs as the target, ``auto`` also weighs what kernels compute against what a width loses.
        protect: leave nodes and tensors of this name alone; may be repeated.
        only: kinds of groups that may shrink: ``channels``, ``heads``, ``mlp``, ``residual``; may be repeated.
        allow_inexact: also prune what a normalisation or statistic runs over; equality is not verified there.
        verify: prove that pruned equals masked, and compare outputs; without, the model is never run.
        repair: re-solve what reads pruned channels, where there are samples; without, the weights that remain stay as they are.
        max_drop: search the smallest model whose score is at most this much below the original's, as 1%, from ``target`` on.
        lossless: first remove dead, constant and duplicated channels, exactly; the rest takes over what they did. Without a
            target, nothing else.
        layers: the share that remains of the outputs of layers whose nodes or weights have this name; the target is met by the
            others; the first that fits counts; may be repeated.
        device_table: a table of latencies that was measured on another device, as `latency measure` writes it: ``latency=0.5`` is
            planned for that device, and predicted.

    Raises:
        OptionError: a field has no sensible value.
    """

    target: Annotated[Parsed[Target], Option(metavar="T")] = Parsed(_target, "auto")
    criterion: Criterion = "auto"
    scope: Scope = "auto"
    align: Annotated[Parsed[Align], Option(metavar="N")] = Parsed(Align.parse, "auto")
    protect: Annotated[tuple[str, ...], Option(metavar="GLOB")] = ()
    only: Annotated[tuple[str, ...], Option(names=KINDS, noun="kind of group", metavar="KIND")] = ()
    allow_inexact: bool = False
    verify: bool = True
    seed: Seed = 0
    repair: bool = True
    calib: Calib = ""
    preprocess: Preprocess = ""
    lossless: bool = False
    layers: Annotated[tuple[str, ...], Option(flags="--layer", metavar="GLOB=F")] = ()
    require_proof: RequireProof = False
    shape: Shape = ()
    device_table: Annotated[str, Option(metavar="FILE")] = ""
    engine: EngineName = ""
    workers: Workers = 0
    scheduler: Scheduler = ""

    def __post_init__(self) -> None:
        if self.target is _AUTO:
            object.__setattr__(self, "target", Target("channels", 1.0) if self.lossless else Target("macs", 0.5))
        super().__post_init__()
        if "residual" in self.only and not self.allow_inexact:
            raise OptionError("only 'residual': a normalisation runs over those groups; add --allow-inexact")
        if self.max_drop and not self.eval:
            raise OptionError(f"--max-drop {self.max_drop} needs samples to judge by: add --eval DATA, other than --calib")
        if self.device_table and not self.target.timed:
            raise OptionError(
                f"--device-table says what latency costs, and the target is {self.target}: give --target latency=0.5"
            )
        if (self.workers or self.scheduler) and not self.engine:
            raise OptionError("--workers and --scheduler say of an engine how it works: add --engine local, dask or ray")
        _ = self.own, self.engines

    @property
    def engines(self) -> EngineOptions | None:
        """Who shares in the work on samples; ``None`` where nobody does."""
        return EngineOptions(self.engine, self.workers, self.scheduler) if self.engine else None

    @property
    def own(self) -> tuple[tuple[str, float], ...]:
        """Globs with the share that remains of what the layers they name output."""
        says = "GLOB=FRACTION, as '*conv1*=0.5', the fraction that remains, above 0 and at most 1"
        return by_layer(self.layers, says, lambda value: 0 < value <= 1)

    @property
    def blind(self) -> bool:
        """Whether noise stands in for samples."""
        return self.calib == NOISE

    def settled(self, *, data: bool) -> Recipe:
        """The same recipe with every ``auto`` decided, by whether there is calibration data.

        Raises:
            OptionError: it needs data and there is none.
        """
        if not data and self.criterion != "auto" and SAMPLES in CRITERIA[self.criterion].needs:
            raise OptionError(f"criterion {self.criterion!r} needs samples: add --calib DATA, or use --criterion l2")
        if not data and self.scope == "sensitivity":
            raise OptionError("scope 'sensitivity' needs samples: add --calib DATA, or use --scope global")
        if not data and self.engine:
            raise OptionError(f"--engine {self.engine}: shares out the work on samples: add --calib DATA, or leave it out")
        criterion, scope = ("obs", "sensitivity") if data else ("l2", "global")
        return dataclasses.replace(
            self,
            criterion=criterion if self.criterion == "auto" else self.criterion,
            scope=scope if self.scope == "auto" else self.scope,
        )

    @property
    def only_exact(self) -> bool:
        """Whether nothing but what goes without loss is asked for."""
        return self.lossless and self.target.fraction == 1

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the table ``[prune]`` of a TOML file.

        Raises:
            OptionError: no such file, not TOML, or not a recipe.
        """
        table = load_toml(path).get("prune")
        if not isinstance(table, dict):
            raise OptionError(f"{path}: has no table [prune]: write the fields of the recipe below that line")
        try:
            return cls.from_dict(table)
        except OptionError as error:
            raise OptionError(f"{path}: {error}") from error
