"""Milliseconds of runs in ONNX Runtime, taken in short bursts, in turns; the least time counts: what disturbs only ever adds.

With one thread on the CPU the clock is the thread's processor time, which other load does not touch. Needs nothing but numpy and
ONNX Runtime, because devices run this module, too.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["NUMPY_TYPES", "bind", "clock", "draw", "least", "ready", "stand_in"]

NUMPY_TYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "float32",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""Types of inputs as ONNX Runtime spells them, and those of the data that they are fed."""
_BFLOAT16_TYPE, _BFLOAT16_CODE = "tensor(bfloat16)", 16  # of TensorProto; numpy does not have it
_BURSTS = 5
_BURST = 0.002
"""Seconds of a burst, which is one run at least."""
_SLOW, _ENOUGH = 0.02, 2
"""Seconds of a run from which so many bursts are enough."""

Run = Callable[[int], None]
"""Runs as many times as it is told."""


def clock(provider: str, threads: int) -> Callable[[], float]:
    """What takes the seconds of a run."""
    # Windows counts a thread's time in ticks of 16 ms.
    alone = provider == "cpu" and threads == 1 and sys.platform != "win32"
    return time.thread_time if alone else time.perf_counter


def least(runs: Sequence[Run | None], now: Callable[[], float]) -> list[float | None]:
    """The least milliseconds of one run of each, timed in turns; ``None`` where there is none."""
    samples: list[list[float]] = [[] for _ in runs]
    for burst in range(_BURSTS):
        for run, taken in zip(runs, samples, strict=True):
            if run is not None and (burst < _ENOUGH or min(taken) < _SLOW):
                taken += _burst(run, now)
    return [1e3 * min(taken) if taken else None for taken in samples]


def _burst(run: Run, now: Callable[[], float]) -> list[float]:
    """Seconds of single runs, after one that brings the weights into the caches."""
    run(1)
    taken: list[float] = []
    end = time.perf_counter() + _BURST
    while not taken or time.perf_counter() < end:
        start = now()
        run(1)
        taken.append(now() - start)
    return taken


def stand_in(dtype: np.dtype[Any], shape: Sequence[int], rng: np.random.Generator) -> Any:
    """Data for a constant: floats from 0.25 to 0.75, which no kernel is slow or quick for; integers are zero."""
    if dtype.kind in "iubOSU":
        return np.zeros(tuple(shape), dtype)
    return (rng.random(tuple(shape), np.float32) * 0.5 + 0.25).astype(dtype, copy=False)


def draw(name: str, kind: str, shape: Sequence[int], seed: int) -> Any:
    """Random data for an input: normal floats, integers 0 or 1, booleans; bfloat16 as its bits in uint16.

    The data depend on the seed and on the input's name, type and shape only.

    Raises:
        KeyError: ``kind`` is none of `NUMPY_TYPES`.
    """
    rng, shape = np.random.default_rng([seed, zlib.crc32(name.encode())]), tuple(shape)
    dtype = np.dtype(NUMPY_TYPES[kind])
    data = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
    array = np.ascontiguousarray(np.asarray(data).astype(dtype)).reshape(shape)
    return (array.view(np.uint32) >> 16).astype(np.uint16) if kind == _BFLOAT16_TYPE else array


def bind(session: Any, kinds: Mapping[str, str], feeds: Mapping[str, Any], device: str, options: Any = None) -> Run:
    """``run(times)``, with inputs and outputs kept on ``device`` ("cpu" or "cuda") from run to run.

    Nothing is copied between host and device while it runs, the outputs' buffers are reused, and it returns when the device has
    finished.

    Args:
        session: of ONNX Runtime.
        kinds: the type of each input, by name.
        feeds: data of each input, by name.
        device: see above.
        options: of each run.
    """
    import onnxruntime as ort

    binding = session.io_binding()
    for name, kind in kinds.items():
        if kind == _BFLOAT16_TYPE:  # binding copies it to the device
            value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(feeds[name], _BFLOAT16_CODE)
        else:
            value = ort.OrtValue.ortvalue_from_numpy(feeds[name], device, 0)
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, device, 0)
    misdeclared: list[str] | None = None

    def run(times: int) -> None:
        nonlocal misdeclared
        for _ in range(times):
            session.run_with_iobinding(binding, options)
            if misdeclared is None:
                misdeclared = _misdeclared(session, binding)
            for name in misdeclared:  # their buffers would be refused in the next run
                binding.bind_output(name, device, 0)

    return run


def _misdeclared(session: Any, binding: Any) -> list[str]:
    """The outputs that have another rank than the model says: ONNX Runtime warns of them, and computes them."""
    pairs = zip(session.get_outputs(), binding.get_outputs(), strict=True)
    return [output.name for output, value in pairs if value.is_tensor() and len(value.shape()) != len(output.shape)]


def ready(session: Any, held: Mapping[str, Any], device: str, options: Any = None) -> Run:
    """A model that was made to be timed, after its first run: the size of each symbol is in its metadata.

    Args:
        session: of it.
        held: the constants that the session was lent, which must live as long.
        device: as for `bind`.
        options: as for `bind`.
    """
    sizes = session.get_modelmeta().custom_metadata_map
    kinds = {item.name: item.type for item in session.get_inputs()}
    shapes = {i.name: [dim if isinstance(dim, int) else int(sizes[str(dim)]) for dim in i.shape] for i in session.get_inputs()}
    bound = bind(session, kinds, {name: draw(name, kind, shapes[name], 0) for name, kind in kinds.items()}, device, options)
    bound(1)

    def run(times: int, _held: Mapping[str, Any] = held) -> None:
        bound(times)

    return run
