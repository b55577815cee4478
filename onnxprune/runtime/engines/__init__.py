"""Engines: they call functions in other processes, of this machine or of a cluster.

`pool` is what all have in common: calls wait there for a process and for memory. `local` has processes of this machine (joblib's
loky), `dask` those of a Dask cluster, `ray` those of a Ray cluster. Each is an extra of the package, and imported when an engine
is opened.

An engine is an executor whose processes may die:

- What a function raises arrives in its future, with its type if that can be pickled.
- Where a process dies (killed, out of memory, a crash in a compiled library), its call is repeated, in a new process. If it dies
  again, the call raises `WorkerDied`. Other calls do not notice.
- A call that takes longer than the timeout raises `TimedOut`, and its process is gone.
- Processes keep what they imported. Their threads are bounded before any library is loaded.
- After `close`, or an interrupt of the process that opened it, no process is left.

Functions are found by name in the other process, so they stand at the top of a module that is installed there; arguments and
results are pickled. A call may run twice, so it must not matter whether it does.

Change here: how work reaches other processes, what happens when one dies, or another engine.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from onnxprune.errors import OptionError

if TYPE_CHECKING:
    from onnxprune.options.engines import EngineOptions
    from onnxprune.runtime.engines.pool import Pool

__all__ = ["demand_installed", "open_engine"]

_NEEDED = {"local": ("joblib", "sweep"), "dask": ("distributed", "dask"), "ray": ("ray", "ray")}
"""The package of each engine, and the extra that installs it."""


def demand_installed(options: EngineOptions) -> None:
    """Nothing happens if the package of an engine is installed.

    Raises:
        OptionError: it is not; says how to install it.
    """
    package, extra = _NEEDED[options.engine]
    if find_spec(package) is None:
        raise OptionError(f'--engine {options.engine} needs {package}: run pip install "onnxprune[{extra}]"')


def open_engine(options: EngineOptions) -> Pool:
    """An engine, whose processes start now or with their first calls; close it, or use it as a context.

    Raises:
        OptionError: its package is not installed, there is no such cluster, or workers have another version of this package.
    """
    demand_installed(options)
    if options.engine == "local":
        from onnxprune.runtime.engines.local import open_local

        return open_local(options)
    if options.engine == "dask":
        from onnxprune.runtime.engines.dask import open_dask

        return open_dask(options)
    from onnxprune.runtime.engines.ray import open_ray

    return open_ray(options)
