"""Who does the work where it can be shared out: processes of this machine, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxprune.errors import OptionError
from onnxprune.options.fields import Option, Options

__all__ = ["ENGINES", "EngineName", "EngineOptions", "Scheduler", "Workers"]

ENGINES = ("local", "dask", "ray")
"""The engines, by the name that a user gives them."""


def _check_engine(name: str) -> None:
    """Nothing happens if a name is an engine's, or empty, which stands for none."""
    if name and name not in ENGINES:
        raise OptionError(f"there is no engine {name!r}; there are {', '.join(ENGINES)}")


EngineName = Annotated[
    str,
    Option(
        help="Who does the work: local (processes of this machine), dask or ray (a cluster).",
        names=ENGINES,
        free=True,
        reads=_check_engine,
        metavar="NAME",
    ),
]
Workers = Annotated[
    int,
    Option(help="Processes that the work is shared out to; 0 for as many as there are cores.", range="[0, inf)", metavar="N"),
]
Scheduler = Annotated[
    str,
    Option(
        help="The cluster: the scheduler of Dask, as tcp://host:8786; the address of Ray, as host:6379 or ray://host:10001. "
        "Without, one is started on this machine.",
        metavar="URI",
    ),
]


@dataclass(frozen=True)
class EngineOptions(Options):
    """Who does the work, and within which bounds; see `onnxprune.runtime.engines`.

    Attributes:
        threads: of each worker; 0 for its share of the cores.
        timeout: seconds that a part of the work may take; 0 for as long as it takes.

    Raises:
        OptionError: a field has no sensible value, or there is a scheduler for an engine that has none.
    """

    engine: EngineName = "local"
    workers: Workers = 0
    scheduler: Scheduler = ""
    threads: Annotated[int, Option(range="[0, inf)", metavar="N")] = 0
    timeout: Annotated[float, Option(range="[0, inf)", metavar="S")] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheduler and self.engine not in {"dask", "ray"}:
            raise OptionError(f"--scheduler {self.scheduler}: is of a cluster: add --engine dask or --engine ray")
