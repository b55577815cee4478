"""Sessions on the execution providers that ONNX Runtime offers: opened, checked for what runs elsewhere, bound to a device."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from onnxprune.errors import ModelError, OptionError, ProviderError
from onnxprune.kernels.loading import has_kernels, instruction_set, library, register
from onnxprune.latency.inputs import SessionInput
from onnxprune.latency.interleave import TimedRun
from onnxprune.latency.stopwatch import bind
from onnxprune.runtime.custom_operators import libraries
from onnxprune.runtime.session import session_options
from onnxprune.runtime.stopping import run_options

__all__ = [
    "EXECUTION_PROVIDERS",
    "bind_session",
    "error_text",
    "fallback_note",
    "kernels_note",
    "onnxruntime",
    "open_session",
    "require_provider",
]

EXECUTION_PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""ONNX Runtime's names by ours: the provider itself first, then those that may run the nodes that it refuses."""

_INSTALL_GPU = 'pip uninstall onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"'
_REINSTALL_GPU = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "onnxruntime-gpu[cuda,cudnn]"'


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


def error_text(error: BaseException) -> str:
    """Return the first line of what ONNX Runtime said, without its bracketed preamble."""
    lines = str(error).strip().splitlines()
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", lines[0]) if lines else type(error).__name__


def open_session(
    source: str | bytes, *, label: str, provider: str, threads: int, lent: Mapping[str, Any] | None = None, profile: str = ""
) -> Any:
    """Return a fresh, silent session of the model at path ``source`` (or of these bytes) on ``provider``.

    ``lent`` are the weights that these bytes declare as lying in memory, as `onnxprune.runtime.session.lend` returns them; hold
    them as long as the session. With ``profile``, the time of each node is recorded until ``end_profiling``, in a file whose path
    begins so.

    ``threads`` is the intra-op thread count; with 1 the model runs on the calling thread. Operators run one after the
    other. With more threads ONNX Runtime's pool spins inside a run as it does by default, but stops when the run
    ends: otherwise the threads of one candidate would take the cores of the next.

    Raises ModelError where ONNX Runtime cannot load the model, ProviderError where it can but not on ``provider``.
    """
    ort = onnxruntime()
    wanted = EXECUTION_PROVIDERS[provider]
    options = session_options(threads=threads, lent=lent)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if provider == "cpu" and has_kernels(source):
        with contextlib.suppress(OptionError):  # `kernels_note` says it
            if str(library().resolve()) not in libraries():  # which every session has: no library is registered twice
                register(options)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
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
            raise ProviderError(f"provider {provider!r} failed on {label}: {error_text(error)}; {_way_out(provider)}") from error
        raise ModelError(f"ONNX Runtime cannot load {label}: {error_text(error)}") from error
    if session.get_providers()[0] != wanted[0]:
        raise ProviderError(f"provider {provider!r} did not start and ONNX Runtime fell back to the CPU: {_way_out(provider)}")
    return session


def kernels_note(source: str | bytes, *, provider: str) -> str | None:
    """Return how the sparse kernels that a model has are run; None where it has none."""
    if provider != "cpu" or not has_kernels(source):
        return None
    try:
        return f"by sparse kernels ({instruction_set()})"
    except OptionError as error:
        return f"without its sparse kernels: {error}"


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


def bind_session(session: Any, inputs: Sequence[SessionInput], feeds: Mapping[str, Any], device: str) -> TimedRun:
    """Return ``run(times)`` as `onnxprune.latency.stopwatch.bind` does, which a signal that ends the process stops."""
    return bind(session, {item.name: item.type for item in inputs}, feeds, device, run_options())
