"""The speed of models in ONNX Runtime, measured side by side.

Candidates take turns, and the figure to quote is the median of the per-round ratios. With one thread on the CPU the clock is
that thread's processor time, which other load does not touch.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onnxprune.errors import InputError, ModelError, OptionError
from onnxprune.ir.sizes import given_shapes
from onnxprune.latency.fitting import fitting_shapes
from onnxprune.latency.inputs import ResolvedShapes, SessionInput, make_feeds, resolve_shapes, session_inputs, to_ask
from onnxprune.latency.interleave import Quartiles, TimedRun, interleave, quartiles
from onnxprune.latency.machines import machine
from onnxprune.latency.peak_memory import PeakMemory, peak_memory
from onnxprune.latency.providers import (
    bind_session,
    error_text,
    fallback_note,
    kernels_note,
    onnxruntime,
    open_session,
    require_provider,
)
from onnxprune.options.documents import absent

__all__ = ["BenchReport", "BenchRow", "LatencyStats", "benchmark", "machine_of"]

Clock = Literal["auto", "cpu", "wall"]


@dataclass(frozen=True, slots=True)
class LatencyStats:
    """Milliseconds per run, over ``rounds`` samples; ``clock`` is "cpu" (time of the one thread) or "wall"."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    rounds: int
    clock: str


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One candidate on one provider at one batch.

    ``batch`` is the batch that was run, which for a model with a fixed batch is the model's own (``notes`` says so).
    ``ratio`` is candidate / first candidate of the same provider and batch, round by round: below 1 is faster. It is
    None for the first candidate itself and where the shapes fed differ. ``session_s`` is the median time in seconds
    to create a session, by the wall clock. ``loaded_mib`` and ``peak_mib`` are what loading, and loading and one run,
    add to the host memory of a fresh process at the peak, in MiB; None unless asked for. ``inputs`` is what was fed.
    """

    label: str
    provider: str
    batch: int
    threads: int
    latency: LatencyStats
    ratio: Quartiles | None
    session_s: float
    loaded_mib: float | None
    peak_mib: float | None
    inputs: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All rows (by provider, then batch, then candidate) and the machine they hold for."""

    rows: tuple[BenchRow, ...]
    machine: Mapping[str, str | int]

    def to_dict(self) -> dict[str, Any]:
        """Return the report in plain dicts, lists, strings and numbers, as JSON has them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A candidate with its session on one provider, and what is known of it there."""

    label: str
    source: str | bytes
    session: Any
    inputs: tuple[SessionInput, ...]
    session_s: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Settings:
    threads: int
    seconds: float
    min_rounds: int
    warmup: int
    shapes: Mapping[str, Sequence[int]] | Sequence[str]
    seed: int
    memory: bool
    clock: Clock

    def clock_on(self, provider: str) -> Literal["cpu", "wall"]:
        """Return the clock that fits; a thread's processor time says nothing about other threads or a GPU."""
        fits = provider == "cpu" and self.threads == 1
        if self.clock == "cpu" and not fits:
            raise OptionError(
                f"the cpu clock sees one thread only: use the wall clock for {provider} with {self.threads} thread(s)"
            )
        # Windows counts a thread's time in ticks of 16 ms, too coarse for samples of a millisecond.
        return "cpu" if fits and self.clock != "wall" and sys.platform != "win32" else "wall"


def _candidates(models: Sequence[str | Path | bytes], labels: Sequence[str] | None) -> list[tuple[str, str | bytes]]:
    if not models:
        raise OptionError("no model to benchmark: give at least one")
    if labels is not None and len(labels) != len(models):
        raise OptionError(f"{len(labels)} labels for {len(models)} models: give one for each")
    names = [f"model {n}" if isinstance(model, bytes) else Path(model).name for n, model in enumerate(models, 1)]
    count = Counter(names)
    names = [str(model) if count[name] > 1 else name for name, model in zip(names, models, strict=True)]
    names = [f"{name} ({names[:n].count(name) + 1})" if name in names[:n] else name for n, name in enumerate(names)]
    for model in models:
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise ModelError(f"{model}: {absent(Path(model), '.onnx')}")
    sources = [model if isinstance(model, bytes) else str(model) for model in models]
    return list(zip(labels or names, sources, strict=True))


def _check(providers: Sequence[str], batches: Sequence[int], sessions: int, settings: _Settings) -> None:
    wrong = {
        "providers: name at least one": not providers or isinstance(providers, str),
        "batches: give at least one, all 1 or more": not batches or min(batches) < 1,
        "threads must be 1 or more": settings.threads < 1,
        "min_rounds must be 1 or more": settings.min_rounds < 1,
        "sessions must be 1 or more": sessions < 1,
        "warmup and seconds must not be negative": settings.warmup < 0 or not settings.seconds >= 0,
    }
    for msg, is_wrong in wrong.items():
        if is_wrong:
            raise OptionError(msg)
    for provider in providers:
        require_provider(provider)
        settings.clock_on(provider)


def _load(candidates: Sequence[tuple[str, str | bytes]], provider: str, threads: int, sessions: int) -> list[_Loaded]:
    """Return each candidate with its last session of ``sessions``, which took turns as the runs do."""
    times: list[list[float]] = [[] for _ in candidates]
    opened: list[Any] = [None] * len(candidates)
    order = list(range(len(candidates)))
    for _ in range(sessions):
        for index in order:
            opened[index] = None  # the previous one goes first, so that its memory is free and its end is not timed
            label, source = candidates[index]
            start = time.perf_counter()
            opened[index] = open_session(source, label=label, provider=provider, threads=threads)
            times[index].append(time.perf_counter() - start)
        order.reverse()
    loaded = []
    for (label, source), session, taken in zip(candidates, opened, times, strict=True):
        notes = (fallback_note(session, label=label, provider=provider), kernels_note(source, provider=provider))
        inputs = session_inputs(session)
        loaded.append(_Loaded(label, source, session, inputs, quartiles(taken).median, tuple(filter(None, notes))))
    return loaded


def _first_run(one: _Loaded, resolved: ResolvedShapes, provider: str, seed: int) -> TimedRun:
    """Return the candidate's bound run after it has run once; OptionError or ModelError where it does not run."""
    feeds = make_feeds(one.inputs, resolved.shapes, seed)
    try:
        run = bind_session(one.session, one.inputs, feeds, "cpu" if provider == "cpu" else "cuda")
        run(1)
    except Exception as error:
        told = error_text(error)
        if resolved.guessed:
            raise OptionError(
                f"{one.label} does not run with guessed sizes ({', '.join(resolved.guessed)}), give its shapes: {told}"
            ) from error
        shapes = ", ".join(f"{name} {list(shape)}" for name, shape in resolved.shapes.items())
        raise ModelError(f"ONNX Runtime cannot run {one.label} on {provider} with inputs {shapes or 'none'}: {told}") from error
    return run


def _resolved(
    loaded: Sequence[_Loaded], batch: int, asked: Mapping[str, Sequence[int]], provider: str, seed: int
) -> list[ResolvedShapes]:
    """The shapes that every candidate is fed; where the first one does not run with guessed sizes, with such as it asks for."""
    first, *others = loaded
    plain = resolve_shapes(first.inputs, batch, asked)
    chosen = plain
    if plain.guessed and not _runs(first, plain, provider, seed):
        found = fitting_shapes(first.source, first.inputs, batch, asked)
        chosen = next((shapes for shapes in found if _runs(first, shapes, provider, seed)), plain)
    taken = asked if chosen is plain else {**to_ask(first.inputs, chosen.shapes), **asked}
    names = [{item.name for item in one.inputs} for one in others]
    rest = [{name: shape for name, shape in taken.items() if name in known} for known in names]
    return [
        chosen,
        *(resolve_shapes(one.inputs, max(batch, chosen.batch), shapes) for one, shapes in zip(others, rest, strict=True)),
    ]


def _runs(one: _Loaded, resolved: ResolvedShapes, provider: str, seed: int) -> bool:
    try:
        _first_run(one, resolved, provider, seed)
    except InputError:
        return False
    return True


def _rows(
    loaded: Sequence[_Loaded],
    resolved: Sequence[ResolvedShapes],
    provider: str,
    settings: _Settings,
    step: Callable[[str], None],
) -> list[BenchRow]:
    """Return the rows of one provider and one batch."""
    clock = settings.clock_on(provider)
    runs = [_first_run(one, shape, provider, settings.seed) for one, shape in zip(loaded, resolved, strict=True)]
    samples = interleave(
        runs,
        clock=time.thread_time if clock == "cpu" else time.perf_counter,
        seconds=settings.seconds,
        min_rounds=settings.min_rounds,
        warmup=settings.warmup,
    )
    rows = []
    for index, (one, shape, seconds) in enumerate(zip(loaded, resolved, samples, strict=True)):
        took = quartiles([1e3 * value for value in seconds])
        ratio = None
        notes = [*one.notes, *shape.notes]
        if index and sorted(shape.shapes.values()) == sorted(resolved[0].shapes.values()):
            ratio = quartiles([value / first for value, first in zip(seconds, samples[0], strict=True)])
        elif index:
            notes.append(f"no ratio: {loaded[0].label} was fed other shapes")
        memory = PeakMemory(None, None)
        if settings.memory:
            step(f"memory of {one.label} on {provider}, batch {shape.batch}")
            memory = peak_memory(
                one.source, one.inputs, shape.shapes, provider=provider, threads=settings.threads, seed=settings.seed
            )
        rows.append(
            BenchRow(
                label=one.label,
                provider=provider,
                batch=shape.batch,
                threads=settings.threads,
                latency=LatencyStats(took.median, took.q1, took.q3, len(seconds), clock),
                ratio=ratio,
                session_s=one.session_s,
                loaded_mib=memory.loaded_mib,
                peak_mib=memory.peak_mib,
                inputs=shape.shapes,
                notes=(*notes, *memory.notes),
            )
        )
    return rows


def machine_of(providers: Sequence[str], threads: int) -> dict[str, str | int]:
    return machine(providers, threads, str(onnxruntime().__version__))


def _asked_shapes(shapes: Mapping[str, Sequence[int]] | Sequence[str], loaded: Sequence[_Loaded]) -> Mapping[str, Sequence[int]]:
    """Shapes by input, of mappings and of texts.

    Raises:
        OptionError: a shape is given for an input that no model has.
    """
    asked = shapes if isinstance(shapes, Mapping) else given_shapes(shapes, {item.name: item.dims for item in loaded[0].inputs})
    inputs = {item.name for one in loaded for item in one.inputs}
    unknown = asked.keys() - inputs
    if unknown:
        have = ", ".join(sorted(inputs))
        raise OptionError(f"no model has an input {min(unknown)!r} to give a shape to; inputs are: {have}")
    return asked


def benchmark(
    models: Sequence[str | Path | bytes],
    *,
    labels: Sequence[str] | None = None,
    providers: Sequence[str] = ("cpu",),
    batches: Sequence[int] = (1,),
    threads: int = 1,
    seconds: float = 2.0,
    min_rounds: int = 10,
    warmup: int = 3,
    sessions: int = 3,
    shapes: Mapping[str, Sequence[int]] | Sequence[str] = (),
    seed: int = 0,
    memory: bool = False,
    clock: Clock = "auto",
    progress: Callable[[str, int, int], None] | None = None,
) -> BenchReport:
    """Return the latency of every model on every provider at every batch, side by side; nothing is printed.

    A model is a path or the bytes of an ONNX file; the first is what the others are compared with. ``labels`` default
    to the file names. ``providers`` are of "cpu", "cuda" and "tensorrt". ``batches`` set the batch axis of the inputs,
    ``shapes`` (by input name, -1 for an axis to leave alone; or texts, as ``image=?x3x224x224`` and ``height=224``) their
    other dynamic axes; sizes that neither gives get a default that the row notes. A model with a fixed batch is run at
    that, and its row says so.

    ``seconds`` is the time per candidate of one measurement, which takes ``min_rounds`` rounds at least, after
    ``warmup`` runs. ``sessions`` is how many are created for the median creation time. ``memory`` measures peak host
    memory in a fresh process per row. ``clock`` "auto" takes the thread's processor time with one thread on the CPU
    and the wall clock otherwise. ``progress`` is called with (what is next, steps done, steps in all).

    Raises ModelError for a model that ONNX Runtime cannot load or run, OptionError for an option that makes no sense
    and ProviderError for a provider that this machine does not have: a benchmark never falls back to another one.
    """
    settings = _Settings(threads, seconds, min_rounds, warmup, shapes, seed, memory, clock)
    candidates = _candidates(models, labels)
    _check(providers, batches, sessions, settings)
    steps = len(providers) * (1 + len(batches) * (1 + (len(models) if memory else 0)))
    done = 0

    def step(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(what, done, steps)
        done += 1

    rows: list[BenchRow] = []
    for provider in providers:
        step(f"sessions on {provider}")
        loaded = _load(candidates, provider, threads, sessions)
        asked = _asked_shapes(settings.shapes, loaded)
        for batch in batches:
            resolved = _resolved(loaded, batch, asked, provider, settings.seed)
            step(f"{provider}, batch {batch}")
            rows.extend(_rows(loaded, resolved, provider, settings, step))
    if progress is not None:
        progress("done", steps, steps)
    return BenchReport(tuple(rows), machine_of(providers, threads))
