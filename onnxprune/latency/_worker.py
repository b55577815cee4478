"""One benchmark candidate: its session, its feeds, its bound run; run as a program, its memory.

``onnxprune.latency.benchmark`` compares candidates with the functions of this module. ``python -m onnxprune.latency._worker``
reads a job (JSON) on standard input, loads and runs its model once in this fresh process, and writes the memory it took as
JSON on standard output.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import ModelError, OptionError, ProviderError
from onnxprune.runtime.session import session_options

__all__ = [
    "EXECUTION_PROVIDERS",
    "Resolved",
    "SessionInput",
    "bind",
    "fallback_note",
    "make_feeds",
    "onnxruntime",
    "open_session",
    "require_provider",
    "resolve",
    "slots_of",
]

EXECUTION_PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""What ONNX Runtime is asked for, by our name: the provider itself first, then those that may take what it refuses."""

_INSTALL_GPU = 'pip uninstall onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"'
_REINSTALL_GPU = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "onnxruntime-gpu[cuda,cudnn]"'

_BATCH_NAME = re.compile(r"n|b|bs|batch.*|.*[_.]batch(_?size)?", re.IGNORECASE)
_SEQUENCE_NAME = re.compile(r"seq|len|token|time|frame|past|step", re.IGNORECASE)
_IMAGE_NAME = re.compile(r"h|w|height|width|.*_(h|w|height|width)|(height|width|image|img)_.*", re.IGNORECASE)
_SEQUENCE_SIZE = 64
_IMAGE_SIZE = 224
_IMAGE_RANK = 4
_COLOURS = 4  # a last axis of at most this many is the channel axis of an NHWC image

_BFLOAT16 = 16  # TensorProto.BFLOAT16, which numpy does not have
_NUMPY_TYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "float32",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class SessionInput:
    """An input of a model: ``type`` as ONNX Runtime writes it, a dimension a size, a symbol or None (unknown)."""

    name: str
    type: str
    dims: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The shapes one candidate is fed with, by input; the batch they amount to; what was guessed or could not be met.

    ``shapes`` is always complete and without symbols; ``guessed`` holds "input: axis=size" for each default taken.
    """

    batch: int
    shapes: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]
    guessed: tuple[str, ...]


def onnxruntime() -> Any:
    """Return the onnxruntime module, imported on first use because that takes a second; ProviderError without it."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(f"benchmarking needs ONNX Runtime ({error}): pip install onnxruntime") from error


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _way_out(provider: str) -> str:
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        return f"onnxruntime and onnxruntime-gpu are both installed and overwrite each other: {_REINSTALL_GPU}"
    if _installed("onnxruntime-gpu"):
        libraries = "TensorRT" if provider == "tensorrt" else "CUDA and cuDNN"
        return (
            f"onnxruntime-gpu is installed but could not use it: check the NVIDIA driver and the {libraries} libraries "
            '(pip install "onnxruntime-gpu[cuda,cudnn]")'
        )
    return f"this onnxruntime has no GPU provider: {_INSTALL_GPU}"


def require_provider(provider: str) -> None:
    """Return only if ONNX Runtime offers ``provider``; OptionError for an unknown name, ProviderError with a way out.

    CUDA's libraries are loaded here, before the first session, so that those installed by pip are found.
    """
    if provider not in EXECUTION_PROVIDERS:
        raise OptionError(f"unknown provider {provider!r}: choose from {', '.join(EXECUTION_PROVIDERS)}")
    ort = onnxruntime()
    available = ort.get_available_providers()
    if EXECUTION_PROVIDERS[provider][0] not in available:
        msg = f"provider {provider!r} is not available here (ONNX Runtime offers {', '.join(available)}): "
        raise ProviderError(msg + _way_out(provider))
    if provider != "cpu" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def first_line(error: BaseException) -> str:
    """Return the first line of what ONNX Runtime said, without its bracketed preamble."""
    lines = str(error).strip().splitlines()
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", lines[0]) if lines else type(error).__name__


def open_session(source: str | bytes, *, label: str, provider: str, threads: int, lent: Mapping[str, Any] | None = None) -> Any:
    """Return a fresh, silent session of the model at path ``source`` (or of these bytes) on ``provider``.

    ``lent`` are the weights that these bytes declare as lying in memory (``runtime.lend``); hold them as long as the session.

    ``threads`` is the intra-op thread count; with 1 the model runs on the calling thread. Operators run one after the
    other. With more threads ONNX Runtime's pool spins inside a run as it does by default, but stops when the run
    ends: otherwise the threads of one candidate would take the cores of the next.

    Raises ModelError where ONNX Runtime cannot load the model, ProviderError where it can but not on ``provider``.
    """
    ort = onnxruntime()
    wanted = EXECUTION_PROVIDERS[provider]
    options = session_options(threads=threads, lent=lent)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if provider != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    offered = [name for name in wanted if name in ort.get_available_providers()]
    try:
        # Without enable_fallback=0 a failing provider prints to standard output and is replaced by the CPU.
        session = ort.InferenceSession(source, options, providers=offered, enable_fallback=0)
    except Exception as error:
        if provider != "cpu":
            # Whose fault is it? If the CPU loads the model, then the provider's; if not, this raises the ModelError.
            open_session(source, label=label, provider="cpu", threads=threads, lent=lent)
            raise ProviderError(f"provider {provider!r} failed on {label}: {first_line(error)}; {_way_out(provider)}") from error
        raise ModelError(f"ONNX Runtime cannot load {label}: {first_line(error)}") from error
    if session.get_providers()[0] != wanted[0]:
        raise ProviderError(f"provider {provider!r} did not start and ONNX Runtime fell back to the CPU: {_way_out(provider)}")
    return session


def fallback_note(session: Any, *, label: str, provider: str) -> str | None:
    """Return which nodes run elsewhere than on ``provider``, or None when all run there or nobody can say.

    Some on the CPU are normal (shape arithmetic belongs there), so they are told and not refused. ProviderError when
    the provider took no node at all: its row would be a row of the CPU's under another name.
    """
    wanted = EXECUTION_PROVIDERS[provider][0]
    if provider == "cpu" or not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    parts = session.get_provider_graph_assignment_info()
    placed = [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]
    elsewhere = Counter(f"{op} on {name.removesuffix('ExecutionProvider')}" for name, op in placed if name != wanted)
    if placed and elsewhere.total() == len(placed):
        raise ProviderError(f"provider {provider!r} runs none of the {len(placed)} nodes of {label}: benchmark it on cpu")
    if not elsewhere:
        return None
    listed = ", ".join(f"{count} {what}" for what, count in elsewhere.most_common(4))
    more = ", ..." if len(elsewhere) > 4 else ""
    return f"{elsewhere.total()} of {len(placed)} nodes are not on {provider}: {listed}{more}"


def slots_of(session: Any) -> tuple[SessionInput, ...]:
    """Return the inputs of the session's model."""
    return tuple(SessionInput(item.name, item.type, tuple(item.shape)) for item in session.get_inputs())


def _batch_symbols(slots: Sequence[SessionInput]) -> set[str]:
    """Return the symbols that mean the batch: those named like it, else those that lead an input and no sequence."""
    symbols = {dim for slot in slots for dim in slot.dims if isinstance(dim, str)}
    leading = {dim for slot in slots for dim in slot.dims[:1] if isinstance(dim, str)}
    named = {symbol for symbol in symbols if _BATCH_NAME.fullmatch(symbol)}
    return named or {symbol for symbol in leading if not _SEQUENCE_NAME.search(symbol)}


def _default(slot: SessionInput, axis: int) -> int:
    """Return a plausible size of a dynamic axis; OptionError where none is."""
    symbol = slot.dims[axis]
    rank = len(slot.dims)
    if isinstance(symbol, str) and _SEQUENCE_NAME.search(symbol):
        return _SEQUENCE_SIZE
    if isinstance(symbol, str) and _IMAGE_NAME.fullmatch(symbol):
        return _IMAGE_SIZE
    if rank < _IMAGE_RANK:
        return _SEQUENCE_SIZE
    last = slot.dims[-1]
    channels_last = isinstance(last, int) and last <= _COLOURS and not isinstance(slot.dims[1], int)
    if rank == _IMAGE_RANK and axis in ((1, 2) if channels_last else (2, 3)):
        return _IMAGE_SIZE
    raise OptionError(f"input {slot.name!r} has shape {list(slot.dims)} and axis {axis} has no plausible size: give its shape")


def _asked(slot: SessionInput, shape: Sequence[int], batch: int, batch_axes: frozenset[int]) -> dict[int, int]:
    """Return the sizes that ``shape`` gives to dynamic axes of the input, by axis; OptionError if it does not fit."""
    if len(shape) != len(slot.dims):
        raise OptionError(f"shape {list(shape)} of input {slot.name!r} has rank {len(shape)}, the model says {list(slot.dims)}")
    sizes = {}
    for axis, (size, dim) in enumerate(zip(shape, slot.dims, strict=True)):
        if size in (-1, dim):
            continue
        if isinstance(dim, int) or size < 1:
            raise OptionError(
                f"shape {list(shape)} of input {slot.name!r} does not fit axis {axis} of the model's {list(slot.dims)}"
            )
        if axis in batch_axes and size not in (1, batch):
            raise OptionError(f"axis {axis} of input {slot.name!r} is the batch: write -1 in its shape and ask for batch {size}")
        if axis not in batch_axes:
            sizes[axis] = size
    return sizes


def resolve(slots: Sequence[SessionInput], batch: int, shapes: Mapping[str, Sequence[int]]) -> Resolved:
    """Return the shape of every input at this batch.

    The batch sets every axis whose symbol is named like a batch (N, batch, batch_size, ...); where no symbol is, the
    symbolic first axes that are not named like a sequence; and unnamed first axes. ``shapes`` (input name to full
    shape, -1 for "as without it") sets other dynamic axes, and with them every axis of the same symbol. What is left
    gets a default that is noted: 224 for the height and width of an image, else 64.

    A model whose batch is fixed keeps it, with a note. OptionError for a shape that does not fit its input, and for
    an axis that has no plausible default.
    """
    symbols = _batch_symbols(slots)
    sizes: dict[tuple[str, int], int] = {}  # by input and axis
    given: dict[str, int] = {}  # by symbol
    dynamic = False
    for slot in slots:
        batch_axes = frozenset(i for i, dim in enumerate(slot.dims) if dim in symbols or (dim is None and i == 0))
        dynamic = dynamic or bool(batch_axes)
        sizes |= {(slot.name, axis): batch for axis in batch_axes}
        asked = _asked(slot, shapes[slot.name], batch, batch_axes) if slot.name in shapes else {}
        for axis, size in asked.items():
            sizes[slot.name, axis] = size
            symbol = slot.dims[axis]
            if isinstance(symbol, str) and given.setdefault(symbol, size) != size:
                raise OptionError(f"axis {symbol!r} is given two sizes, {given[symbol]} and in input {slot.name!r} {size}")
    guessed = []
    for slot in slots:
        for axis, dim in enumerate(slot.dims):
            if (slot.name, axis) in sizes:
                continue
            known = dim if isinstance(dim, int) else given.get(dim or "")
            if known is None:
                known = _default(slot, axis)
                guessed.append(f"{slot.name}: {dim or f'axis {axis}'}={known}")
            sizes[slot.name, axis] = known
    notes = [f"sizes guessed, give shapes to set them: {', '.join(guessed)}"] if guessed else []
    if not dynamic:
        fixed = next((slot.dims[0] for slot in slots if slot.dims and isinstance(slot.dims[0], int)), 1)
        if fixed != batch:
            notes.append(f"the model's batch is fixed at {fixed}; {batch} was asked for")
        batch = fixed
    shapes_fed = {slot.name: tuple(sizes[slot.name, axis] for axis in range(len(slot.dims))) for slot in slots}
    return Resolved(batch, shapes_fed, tuple(notes), tuple(guessed))


def make_feeds(slots: Sequence[SessionInput], shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Any]:
    """Return random data for every input: normal floats, integers 0 or 1, booleans; OptionError for other types.

    The data depend on the seed and on the input's name, type and shape only, so candidates with the same interface
    get the same. A bfloat16 input gets its bits as uint16.
    """
    feeds: dict[str, Any] = {}
    for slot in slots:
        if slot.type not in _NUMPY_TYPES:
            raise OptionError(f"input {slot.name!r} is a {slot.type}: the benchmark feeds tensors of numbers and booleans only")
        rng = np.random.default_rng([seed, zlib.crc32(slot.name.encode())])
        dtype = np.dtype(_NUMPY_TYPES[slot.type])
        shape = tuple(shapes[slot.name])
        data = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        array = np.ascontiguousarray(np.asarray(data).astype(dtype)).reshape(shape)
        bits = slot.type == "tensor(bfloat16)"
        feeds[slot.name] = (array.view(np.uint32) >> 16).astype(np.uint16) if bits else array
    return feeds


def bind(session: Any, slots: Sequence[SessionInput], feeds: Mapping[str, Any], device: str) -> Callable[[int], None]:
    """Return ``run(times)``, with inputs and outputs kept on ``device`` ("cpu" or "cuda") from run to run.

    Nothing is copied between host and device while it runs, the outputs' buffers are reused, and it returns when the
    device has finished.
    """
    ort = onnxruntime()
    binding = session.io_binding()
    for slot in slots:
        data = feeds[slot.name]
        if slot.type == "tensor(bfloat16)":
            value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(data, _BFLOAT16)  # binding copies it to the device
        else:
            value = ort.OrtValue.ortvalue_from_numpy(data, device, 0)
        binding.bind_ortvalue_input(slot.name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, device, 0)

    def run(times: int) -> None:
        for _ in range(times):
            session.run_with_iobinding(binding)

    return run


def _peak_kib() -> int:
    """Return this process's peak resident memory so far in KiB; OSError where the platform does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: its ru_maxrss survives exec, so a child of a big process starts at its parent's peak.
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return int(found[1])
    try:
        resource = importlib.import_module("resource")
    except ImportError as error:
        raise OSError("peak memory is not available on this platform") from error
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak // 1024 if sys.platform == "darwin" else peak


def _measure(job: Mapping[str, Any]) -> dict[str, float]:
    """Return the MiB that loading, then loading and one run, add at their peak to what the process held before.

    Before it come the interpreter, onnxruntime and the feeds.
    """
    require_provider(job["provider"])
    slots = [SessionInput(slot["name"], slot["type"], ()) for slot in job["slots"]]
    feeds = make_feeds(slots, {slot["name"]: slot["shape"] for slot in job["slots"]}, job["seed"])
    with contextlib.suppress(OSError):
        # Start the peak afresh from what is resident now: importing peaked higher than what it left.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak_kib()
    session = open_session(job["model"], label=job["model"], provider=job["provider"], threads=job["threads"])
    loaded = _peak_kib()
    bind(session, slots, feeds, "cpu" if job["provider"] == "cpu" else "cuda")(1)
    return {"loaded_mib": (loaded - before) / 1024, "peak_mib": (_peak_kib() - before) / 1024}


def main() -> int:
    """Measure the job on standard input; status 0 with the measure, 1 with {"error": one line}."""
    try:
        answer: dict[str, Any] = _measure(json.load(sys.stdin))
    except Exception as error:  # noqa: BLE001 - whatever went wrong belongs in the answer, the parent reads nothing else
        answer = {"error": first_line(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return int("error" in answer)


if __name__ == "__main__":
    sys.exit(main())
