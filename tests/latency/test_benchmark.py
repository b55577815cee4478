from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from onnxprune.errors import ModelError, OptionError, ProviderError
from onnxprune.latency import _worker as worker
from onnxprune.latency import benchmark as bench
from onnxprune.latency._worker import SessionInput
from onnxprune.latency.benchmark import benchmark
from onnxprune.latency.interleave import Quartiles

QUICK: dict[str, Any] = {"seconds": 0.0, "min_rounds": 3, "warmup": 1, "sessions": 1}


def model(text: str, **weights: np.ndarray) -> bytes:
    parsed = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]>\n' + text)
    for name, weight in weights.items():
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return bytes(parsed.SerializeToString())


def dense(width: int) -> bytes:
    weight = np.full((64, width), 0.01, np.float32)
    return model("g (float[N, 64] x) => (float[N, M] y) { y = MatMul(x, w) }", w=weight)


EXP = model("g (float[N, 4] x) => (float[N, 4] y) { y = Exp(x) }")
EXP_OF_ONE = model("g (float[1, 4] x) => (float[1, 4] y) { y = Exp(x) }")


# Shapes and feeds


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (("N", 3, 32, 32), (8, 3, 32, 32)),
        ((None, 5), (8, 5)),
        (("rows", 5), (8, 5)),
        (("seq", "batch", 5), (64, 8, 5)),  # time first, as recurrent networks have it
        (("sequence_length",), (64,)),
        (("N", 3, "H", "W"), (8, 3, 224, 224)),
        (("N", 3, None, None), (8, 3, 224, 224)),
        ((None, None, None, 3), (8, 224, 224, 3)),
        (("batch_size", 12, "past_len", 64), (8, 12, 64, 64)),
        ((), ()),
    ],
)
def test_batch_and_defaults_of_dynamic_axes(dims: tuple[int | str | None, ...], shape: tuple[int, ...]) -> None:
    assert worker.resolve([SessionInput("x", "tensor(float)", dims)], 8, {}).shapes == {"x": shape}


def test_guessed_sizes_are_noted_and_known_ones_are_not() -> None:
    slots = [SessionInput("ids", "tensor(int64)", ("N", "seq")), SessionInput("mask", "tensor(int64)", ("N", "seq"))]
    (note,) = worker.resolve(slots, 2, {}).notes
    assert "ids: seq=64" in note
    known = worker.resolve(slots, 2, {"mask": [-1, 7]})
    assert known.shapes == {"ids": (2, 7), "mask": (2, 7)}  # a symbol has one size
    assert known.notes == ()


def test_a_fixed_batch_is_kept_and_noted() -> None:
    fixed = worker.resolve([SessionInput("x", "tensor(float)", (4, 3))], 8, {})
    assert fixed.batch == 4
    assert fixed.shapes == {"x": (4, 3)}
    assert fixed.notes == ("the model's batch is fixed at 4; 8 was asked for",)
    assert worker.resolve([SessionInput("x", "tensor(float)", (8, 3))], 8, {}).notes == ()
    assert worker.resolve([], 8, {}).batch == 1


@pytest.mark.parametrize(
    ("dims", "shape", "says"),
    [
        (("N", 3), [1, 3, 5], "rank 3"),
        (("N", 3), [1, 4], "axis 1"),
        (("N", "seq"), [1, 0], "axis 1"),
        (("N", "seq"), [4, 5], "ask for batch 4"),
        (("N", "C", "H", "W"), None, "axis 1 has no plausible size: give its shape"),
        (("N", 3, None, 8, 8), None, "axis 2 has no plausible size: give its shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(dims: tuple[int | str | None, ...], shape: list[int] | None, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        worker.resolve([SessionInput("pic", "tensor(float)", dims)], 2, {"pic": shape} if shape else {})
    assert "'pic'" in str(caught.value)


def test_one_symbol_cannot_be_given_two_sizes() -> None:
    slots = [SessionInput("a", "tensor(float)", ("N", "seq")), SessionInput("b", "tensor(float)", ("N", "seq"))]
    with pytest.raises(OptionError, match="'seq' is given two sizes, 3 and in input 'b' 4"):
        worker.resolve(slots, 1, {"a": [-1, 3], "b": [-1, 4]})


def test_feeds_depend_on_seed_and_name_alone() -> None:
    x, y = SessionInput("x", "tensor(float)", ()), SessionInput("y", "tensor(float)", ())
    shapes = {"x": (3, 4), "y": (3, 4)}
    both, alone = worker.make_feeds([y, x], shapes, 0), worker.make_feeds([x], shapes, 0)
    assert np.array_equal(both["x"], alone["x"])
    assert not np.array_equal(both["x"], both["y"])
    assert not np.array_equal(alone["x"], worker.make_feeds([x], shapes, 1)["x"])


@pytest.mark.parametrize("name", ["float16", "float", "double", "int8", "uint8", "int32", "int64", "bool"])
def test_feeds_have_the_type_of_the_input(name: str) -> None:
    data = worker.make_feeds([SessionInput("x", f"tensor({name})", ())], {"x": (50,)}, 0)["x"]
    assert data.dtype == np.dtype({"float": "float32", "double": "float64"}.get(name, name))
    assert (len(set(data.tolist())) == 2) == (data.dtype.kind != "f")  # 0 and 1; floats are normal
    assert worker.make_feeds([SessionInput("x", f"tensor({name})", ())], {"x": ()}, 0)["x"].shape == ()


def test_an_input_without_numbers_is_refused() -> None:
    text = model("g (string[N] words) => (string[N] same) { same = Identity(words) }")
    with pytest.raises(OptionError, match=r"'words' is a tensor\(string\)"):
        benchmark([text], **QUICK)


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
    session = Spy(worker.open_session(source, label="m", provider=provider, threads=1))
    slots = worker.slots_of(session)
    feeds = worker.make_feeds(slots, worker.resolve(slots, 2, {}).shapes, 0)
    return session, worker.bind(session, slots, feeds, device), feeds


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
    monkeypatch.setattr(worker, "onnxruntime", lambda: fake)
    installed = {"onnxruntime"}
    monkeypatch.setattr(worker, "_installed", lambda name: name in installed)
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
        monkeypatch.setattr(worker, "onnxruntime", lambda: runtime)
        worker.require_provider("cuda")
        assert runtime.preloaded == 1
        worker.open_session(b"", label="net", provider="cuda", threads=1)

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
    note = worker.fallback_note(mixed, label="net", provider="cuda")
    assert note == "3 of 5 nodes are not on cuda: 2 Shape on CPU, 1 Gather on CPU"
    assert worker.fallback_note(placed(CUDA=["Conv"]), label="net", provider="cuda") is None
    with pytest.raises(ProviderError, match="'cuda' runs none of the 1 nodes of net"):
        worker.fallback_note(placed(CPU=["Conv"]), label="net", provider="cuda")


def has_cuda() -> bool:
    try:
        worker.require_provider("cuda")
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


# The whole


def test_same_model_twice_is_about_as_fast_and_the_report_is_json() -> None:
    report = benchmark([dense(256), dense(256)], labels=["a", "b"], batches=[1, 4], **{**QUICK, "min_rounds": 15})
    assert [(row.label, row.batch) for row in report.rows] == [("a", 1), ("b", 1), ("a", 4), ("b", 4)]
    for first, second in (report.rows[:2], report.rows[2:]):
        assert first.ratio is None
        assert second.ratio is not None
        assert 0.5 < second.ratio.median < 2
        assert second.latency.q1_ms <= second.latency.median_ms <= second.latency.q3_ms
        assert second.latency.rounds == 15
        assert second.latency.clock == ("wall" if sys.platform == "win32" else "cpu")
        assert 0 < second.session_s < 5
        assert second.peak_mib is None
        assert second.notes == ()
        assert second.inputs == {"x": (second.batch, 64)}
    plain = report.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["rows"][3]["inputs"] == {"x": [4, 64]}
    assert {"cpu", "cores", "onnxruntime", "threads"} <= set(plain["machine"])


def test_less_work_shows_in_the_ratio() -> None:
    report = benchmark([dense(4096), dense(16)], batches=[16], **QUICK)
    ratio = report.rows[1].ratio
    assert ratio is not None
    assert ratio.median < 0.5  # 256 times fewer multiplications


def test_ratio_is_the_median_of_the_rounds_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    # Drift: everything slows threefold in the last round. Medians of each alone would say 4 / 2.
    monkeypatch.setattr(bench, "interleave", lambda *_, **__: [[1e-3, 2e-3, 9e-3], [3e-3, 4e-3, 27e-3]])
    row = benchmark([EXP, EXP], **QUICK).rows[1]
    assert row.ratio == Quartiles(3.0, 2.5, 3.0)
    assert (row.latency.q1_ms, row.latency.median_ms, row.latency.q3_ms) == pytest.approx((3.5, 4.0, 15.5))
    assert row.latency.rounds == 3


def test_a_fixed_batch_is_run_as_it_is_and_gets_no_ratio() -> None:
    at_one, at_eight = (benchmark([EXP, EXP_OF_ONE], batches=[batch], **QUICK).rows[1] for batch in (1, 8))
    assert (at_one.batch, at_eight.batch) == (1, 1)
    assert at_one.notes == ()
    assert at_one.ratio is not None
    assert at_eight.notes == (
        "the model's batch is fixed at 1; 8 was asked for",
        "no ratio: model 1 was fed other shapes",
    )
    assert at_eight.ratio is None


def test_the_clock_is_the_one_that_fits() -> None:
    (row,) = benchmark([EXP], threads=2, **QUICK).rows
    assert (row.latency.clock, row.threads) == ("wall", 2)
    (row,) = benchmark([EXP], clock="wall", **QUICK).rows
    assert row.latency.clock == "wall"
    with pytest.raises(OptionError, match="one thread only"):
        benchmark([EXP], threads=2, clock="cpu", **QUICK)


def test_labels_are_file_names_made_unique(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.onnx").write_bytes(EXP)
    (tmp_path / "other.onnx").write_bytes(EXP)
    paths: list[str | Path] = [str(tmp_path / "a" / "net.onnx"), tmp_path / "b" / "net.onnx", tmp_path / "other.onnx"]
    labels = [row.label for row in benchmark([*paths, EXP, paths[0]], **QUICK).rows]
    assert labels == [str(paths[0]), str(paths[1]), "other.onnx", "model 4", f"{paths[0]} (2)"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"models": []}, "no model"),
        ({"labels": ["a", "b"]}, "2 labels for 1 models"),
        ({"providers": []}, "providers"),
        ({"providers": "cpu"}, "providers"),
        ({"batches": []}, "batches"),
        ({"batches": [0]}, "batches"),
        ({"threads": 0}, "threads"),
        ({"min_rounds": 0}, "min_rounds"),
        ({"warmup": -1}, "warmup"),
        ({"seconds": float("nan")}, "seconds"),
        ({"sessions": 0}, "sessions"),
        ({"shapes": {"img": [1, 3]}}, "no model has an input 'img' .* inputs are: x"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        benchmark(**{"models": [EXP], **QUICK, **options})


def test_models_that_do_not_load_or_run_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"no such model file: .*gone\.onnx"):
        benchmark([tmp_path / "gone.onnx"], **QUICK)
    garbage = tmp_path / "bad.onnx"
    garbage.write_bytes(b"this is no model")
    with pytest.raises(ModelError, match=r"cannot load bad\.onnx: INVALID_PROTOBUF") as caught:
        benchmark([EXP, garbage], **QUICK)
    assert "\n" not in str(caught.value)
    reshape = "g (float[{}] x) => (float[P] y) {{ five = Constant<value_ints = [5]>() y = Reshape(x, five) }}"
    with pytest.raises(ModelError, match=r"cannot run model 1 on cpu with inputs x \[2, 3\]: .*Reshape"):
        benchmark([model(reshape.format("N, 3"))], batches=[2], **QUICK)
    with pytest.raises(OptionError, match=r"guessed sizes \(x: seq=64\), give its shapes: .*Reshape"):
        benchmark([model(reshape.format("N, seq"))], **QUICK)
    assert len(benchmark([model(reshape.format("N, seq"))], shapes={"x": [-1, 5]}, **QUICK).rows) == 1
    assert capfd.readouterr() == ("", "")  # ONNX Runtime logs nothing of all this


def test_progress_counts_every_step() -> None:
    calls: list[tuple[str, int, int]] = []
    benchmark([EXP, EXP], batches=[1, 2], progress=lambda *call: calls.append(call), **QUICK)
    assert calls == [("sessions on cpu", 0, 3), ("cpu, batch 1", 1, 3), ("cpu, batch 2", 2, 3), ("done", 3, 3)]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own peak of the process")
def test_memory_is_the_model_s_own_and_not_that_of_this_process() -> None:
    hog = np.ones(128 << 20, np.uint8)  # getrusage in a child would start at this
    weight = np.ones((2048, 4096), np.float32)  # 32 MiB
    big = model("g (float[N, 2048] x) => (float[N, M] y) { y = MatMul(x, w) }", w=weight)
    calls: list[tuple[str, int, int]] = []
    report = benchmark([big, EXP], memory=True, progress=lambda *call: calls.append(call), **QUICK)
    del hog
    large, small = report.rows
    assert large.loaded_mib is not None
    assert large.peak_mib is not None
    assert 32 < large.loaded_mib <= large.peak_mib < 150
    assert small.peak_mib is not None
    assert 0 < small.peak_mib < 30
    assert [done for _, done, _ in calls] == [0, 1, 2, 3, 4]
    assert calls[-1][1:] == (4, 4)


def test_memory_that_cannot_be_measured_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: dead)
    (row,) = benchmark([EXP], memory=True, **QUICK).rows
    assert row.peak_mib is None
    assert row.notes == ("memory not measured: the process ended with status -9",)
    assert row.latency.median_ms > 0


def test_the_worker_answers_an_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    job = {"model": str(tmp_path / "gone.onnx"), "provider": "cpu", "threads": 1, "seed": 0, "slots": []}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(job)))
    # This process keeps its peak: resetting it is the business of a fresh one.
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: 0)
    assert worker.main() == 1
    assert "cannot load" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for nvidia-smi is a shell script")
def test_the_gpu_is_named_only_where_one_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.1'\n", encoding="utf-8")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert bench.machine_of(["cpu", "cuda"], 1)["gpu"] == "NVIDIA H200, 570.1"
    assert "gpu" not in bench.machine_of(["cpu"], 1)


def test_importing_the_benchmark_does_not_import_onnxruntime() -> None:
    code = "import sys, onnxprune.latency.benchmark; sys.exit('onnxruntime' in sys.modules)"
    root = Path(bench.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
