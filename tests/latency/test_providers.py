"""Sessions on providers: bound runs, providers that are missing, nodes that run elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import ModelError, OptionError, ProviderError
from onnxprune.latency import providers
from onnxprune.latency.benchmark import benchmark
from onnxprune.latency.inputs import make_feeds, resolve_shapes, session_inputs
from onnxprune.latency.providers import bind_session, fallback_note, open_session, require_provider
from timed_models import EXP, QUICK, dense, model

# The bound run: the same function serves CUDA, with another device


class Spy:
    """A session that keeps the binding it gave out."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def io_binding(self) -> Any:
        self.binding = self.session.io_binding()
        return self.binding


def bound(source: bytes, device: str = "cpu", provider: str = "cpu") -> tuple[Spy, Callable[[int], None], dict[str, Any]]:
    session = Spy(open_session(source, label="m", provider=provider, threads=1))
    inputs = session_inputs(session)
    feeds = make_feeds(inputs, resolve_shapes(inputs, 2, {}).shapes, 0)
    return session, bind_session(session, inputs, feeds, device), feeds


def test_bound_run_computes_what_run_computes_and_reuses_its_output() -> None:
    session, run, feeds = bound(dense(8))
    run(1)
    (first,) = session.binding.get_outputs()
    run(3)
    (again,) = session.binding.get_outputs()
    assert np.array_equal(again.numpy(), session.run(None, feeds)[0])
    assert again.numpy().shape == (2, 8)
    assert again.device_name() == "cpu"
    assert again.data_ptr() == first.data_ptr()


def test_bound_run_feeds_bfloat16() -> None:
    session, run, feeds = bound(model("g (bfloat16[N, 3] x) => (float[N, 3] y) { y = Cast<to = 1>(x) }"))
    run(1)
    got = session.binding.get_outputs()[0].numpy()
    assert np.array_equal(got.view(np.uint32) >> 16, feeds["x"])
    assert 0.01 < np.abs(got).max() < 10


# Providers


def test_unknown_and_missing_providers_are_named_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="unknown provider 'tpu': choose from cpu, cuda, tensorrt"):
        benchmark([EXP], providers=["tpu"])
    fake = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(providers, "onnxruntime", lambda: fake)
    installed = {"onnxruntime"}
    monkeypatch.setattr(providers, "_installed", lambda name: name in installed)
    with pytest.raises(ProviderError, match=r'pip uninstall onnxruntime && pip install "onnxruntime-gpu\[cuda,cudnn\]"'):
        benchmark([EXP], providers=["cpu", "cuda"])
    installed.add("onnxruntime-gpu")
    with pytest.raises(ProviderError, match="both installed and overwrite each other: pip uninstall -y onnx"):
        benchmark([EXP], providers=["cuda"])
    installed.remove("onnxruntime")
    with pytest.raises(ProviderError, match="check the NVIDIA driver and the TensorRT libraries"):
        benchmark([EXP], providers=["tensorrt"])


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match="pip install onnxruntime"):
        benchmark([EXP])


class FakeRuntime:
    """onnxruntime on a machine whose wheel has CUDA; ``works`` are the providers that start."""

    def __init__(self, *works: str, raises: bool = False) -> None:
        self.works, self.raises, self.preloaded = works, raises, 0

    @staticmethod
    def get_available_providers() -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        self.preloaded += 1

    def InferenceSession(  # noqa: N802 - onnxruntime's name
        self, source: bytes, options: Any, *, providers: list[str], enable_fallback: int
    ) -> Any:
        assert not enable_fallback
        if self.raises and providers[0] not in self.works:
            raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : {providers[0]} broke\nat line 3")
        return SimpleNamespace(get_providers=lambda: [name for name in providers if name in self.works])


def test_a_provider_that_does_not_start_is_an_error_and_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(runtime: FakeRuntime) -> None:
        monkeypatch.setattr(providers, "onnxruntime", lambda: runtime)
        require_provider("cuda")
        assert runtime.preloaded == 1
        open_session(b"", label="net", provider="cuda", threads=1)

    attempt(FakeRuntime("CUDAExecutionProvider", "CPUExecutionProvider"))
    with pytest.raises(ProviderError, match="'cuda' did not start and ONNX Runtime fell back"):
        attempt(FakeRuntime("CPUExecutionProvider"))
    with pytest.raises(ProviderError, match="'cuda' failed on net: FAIL : CUDAExecutionProvider broke; "):
        attempt(FakeRuntime("CPUExecutionProvider", raises=True))
    with pytest.raises(ModelError, match=r"cannot load net: FAIL : CPUExecutionProvider broke$"):
        attempt(FakeRuntime(raises=True))


def test_nodes_off_the_provider_are_counted_and_a_row_without_any_on_it_is_refused() -> None:
    def placed(**ops: list[str]) -> Any:
        parts = [
            SimpleNamespace(
                ep_name=f"{name}ExecutionProvider",
                get_nodes=lambda ops=ops: [SimpleNamespace(op_type=op) for op in ops],
            )
            for name, ops in ops.items()
        ]
        return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)

    mixed = placed(CUDA=["Conv", "Relu"], CPU=["Shape", "Gather", "Shape"])
    note = fallback_note(mixed, label="net", provider="cuda")
    assert note == "3 of 5 nodes are not on cuda: 2 Shape on CPU, 1 Gather on CPU"
    assert fallback_note(placed(CUDA=["Conv"]), label="net", provider="cuda") is None
    with pytest.raises(ProviderError, match="'cuda' runs none of the 1 nodes of net"):
        fallback_note(placed(CPU=["Conv"]), label="net", provider="cuda")


def has_cuda() -> bool:
    try:
        require_provider("cuda")
    except ProviderError:
        return False
    return True


@pytest.mark.skipif(not has_cuda(), reason="needs an NVIDIA GPU and onnxruntime-gpu")
def test_cuda_rows_are_measured_on_the_device() -> None:
    session, run, feeds = bound(dense(8), "cuda", "cuda")
    run(2)
    (output,) = session.binding.get_outputs()
    assert output.device_name() == "cuda"
    assert np.allclose(output.numpy(), feeds["x"] @ np.full((64, 8), 0.01, np.float32), atol=1e-2)
    report = benchmark([dense(8), dense(16)], providers=["cpu", "cuda"], **QUICK)
    assert [row.latency.clock for row in report.rows] == ["cpu", "cpu", "wall", "wall"]
    assert report.machine["gpu"]
