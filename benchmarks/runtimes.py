"""Time the files that one may deploy side by side: in ONNX Runtime, with sparse kernels where they have them, and in OpenVINO.

    pip install openvino
    python benchmarks/runtimes.py model.onnx int8.onnx pruned.onnx --threads 1 2 [--data samples.npz]

All take turns, and a figure is the median over rounds of the first file's time in ONNX Runtime by the other's. OpenVINO computes
in float32, and in bfloat16 where the processor has instructions for it; a quantised file computes in int8 in both. Threads of
ONNX Runtime do not wait in a loop while OpenVINO runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

import onnxprune.kernels
from onnxprune.data.samples import open_samples
from onnxprune.ir.model import Model
from onnxprune.runtime.session import random_feeds

Run = Callable[[], Any]
"""One inference."""
PRECISIONS = ("f32", "bf16")
"""Of OpenVINO, as it spells them."""


def by_onnxruntime(path: Path, feeds: Mapping[str, Any], threads: int) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    onnxprune.kernels.register(options)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, dict(feeds))


def by_openvino(path: Path, feeds: Mapping[str, Any], threads: int, precision: str) -> Run:
    import openvino

    config = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: array.shape for name, array in feeds.items()})
    request = core.compile_model(model, "CPU", config).create_infer_request()
    return lambda: request.infer(dict(feeds), share_inputs=True)


def fed(path: Path, data: Path | None) -> Mapping[str, Any]:
    """The first of some samples, or random numbers of the sizes that the file declares, open ones 1."""
    inputs = Model.of(path).graph.input
    if data:
        return next(open_samples(str(data), inputs).batches(1)).feeds
    shapes = {value.name: tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim) for value in inputs}
    return random_feeds(inputs, shapes, seed=0)


def runs_of(paths: Sequence[Path], feeds: Mapping[str, Any], threads: int) -> dict[str, Run]:
    """Every file in every runtime, by the name of both."""
    found = {}
    for path in paths:
        found[f"{path.stem}, ONNX Runtime"] = by_onnxruntime(path, feeds, threads)
        for precision in PRECISIONS:
            try:
                found[f"{path.stem}, OpenVINO {precision}"] = by_openvino(path, feeds, threads, precision)
            except RuntimeError as error:
                print(f"{path.name}: OpenVINO does not run it: {str(error).splitlines()[0]}")
                break
    return found


def timed(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Milliseconds, in turns; each runs once before it is timed, so that its weights are where they would be."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            begin = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - begin) * 1e3)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--data", type=Path, help="samples, of which the first is what is timed")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    feeds = fed(args.files[0], args.data)
    for threads in args.threads:
        taken = timed(runs_of(args.files, feeds, threads), args.rounds)
        first = next(iter(taken.values()))
        print(f"\n| {threads} {'thread' if threads == 1 else 'threads'} | ms | times as fast |\n|---|--:|--:|")
        for name, times in taken.items():
            ratio = statistics.median(a / b for a, b in zip(first, times, strict=True))
            print(f"| {name} | {statistics.median(times):.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
