"""How models are timed, as data: the same fields for the command line and a recipe file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxprune.errors import OptionError
from onnxprune.options.fields import Option, Options
from onnxprune.options.shared import Shape

__all__ = ["BenchmarkRecipe"]


@dataclass(frozen=True)
class BenchmarkRecipe(Options):
    """How models are timed side by side; see `onnxprune.latency.benchmark.benchmark`.

    Attributes:
        providers: execution providers, comma-separated: ``cpu``, ``cuda``.
        batch: batch sizes, comma-separated.
        threads: threads of each session.
        seconds: time for each candidate.
        memory: also measure peak memory, in fresh processes.

    Raises:
        OptionError: a field has no sensible value.
    """

    providers: Annotated[str, Option(metavar="NAMES")] = "cpu"
    batch: Annotated[str, Option(metavar="N,...")] = "1"
    threads: Annotated[int, Option(range="[1, inf)", metavar="N")] = 1
    seconds: Annotated[float, Option(range="[0.01, inf)", metavar="S")] = 2.0
    memory: bool = False
    shape: Shape = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.batches

    @property
    def batches(self) -> list[int]:
        """The batch sizes."""
        try:
            values = [int(part) for part in self.batch.split(",")]
        except ValueError:
            values = []
        if not values or min(values) < 1:
            raise OptionError(f"--batch {self.batch!r}: write positive numbers, comma-separated, as 1,8")
        return values

    @property
    def names(self) -> list[str]:
        """The execution providers."""
        return [name.strip() for name in self.providers.split(",")]
