"""Measure how many bytes zeros save, and what they cost at load: encoded weights, sparse tensors, gzip, zstd and the entropy.

The networks have well-known shapes and random weights. In each weight of 2,048 elements or more with two axes or more, the
smallest elements are zero, or two of every four along the input channels (2:4). In int8, each of these weights is quantised by
itself and dequantised in the graph. In random weights a packer finds hardly more than the zeros, and the cost of the zeros
depends on nothing else.

    python benchmarks/sparse.py sizes     bytes of files, as fractions of the dense file
    python benchmarks/sparse.py loads     session creation, run time and memory in ONNX Runtime
    python benchmarks/sparse.py write FILE...     put results (of --json FILE) into docs/sparse.md

`to beat` is the smallest file that an early prototype made of the same shapes, one decoder for each weight.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.driver import encode

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "sparse.md"
MODELS = ("resnet50", "mobilenet_v2")
SPARSITIES = ("0.5", "0.7", "0.8", "0.9", "0.95", "2:4")
KINDS = ("fp32", "fp16", "int8")
TO_BEAT = {
    ("resnet50", "fp32"): (0.532, 0.332, 0.232, 0.126, 0.063, 0.532),
    ("resnet50", "fp16"): (0.563, 0.364, 0.260, 0.151, 0.076, 0.564),
    ("resnet50", "int8"): (0.627, 0.427, 0.313, 0.192, 0.102, 0.627),
    ("mobilenet_v2", "fp32"): (0.537, 0.338, 0.239, 0.133, 0.071, 0.544),
    ("mobilenet_v2", "fp16"): (0.573, 0.376, 0.275, 0.166, 0.092, 0.579),
    ("mobilenet_v2", "int8"): (0.643, 0.449, 0.340, 0.221, 0.133, 0.647),
}
ALLOWED = 1.01
"""Largest ratio to the prototype's file."""
SESSIONS = 5
NUMBERS = ("smallest", "fast", "entropy", "coo", "gzip", "zstd", "smallest+zstd", "to beat")

Row = dict[str, Any]


def built(name: str) -> ModelProto:
    """A model of `models/build.py`, made in a process of its own if it is not there."""
    path = ROOT / "build" / f"{name}.onnx"
    if not path.exists():
        subprocess.run([sys.executable, ROOT / "models" / "build.py", name, "-o", path], check=True, stdout=sys.stderr)
    return onnx.load(path)


def zeroed(array: np.ndarray, sparsity: str) -> np.ndarray:
    """The array without its smallest elements."""
    if sparsity != "2:4":
        flat = array.reshape(-1).copy()
        count = round(float(sparsity) * flat.size)
        flat[np.argpartition(np.abs(flat), count)[:count]] = 0
        return flat.reshape(array.shape)
    if array.shape[1] % 4:
        return array
    moved = np.moveaxis(array, 1, -1).copy()
    groups = moved.reshape(-1, 4)
    np.put_along_axis(groups, np.argsort(np.abs(groups), axis=1)[:, :2], 0, axis=1)
    return np.ascontiguousarray(np.moveaxis(groups.reshape(moved.shape), -1, 1))


def pruned(model: ModelProto, sparsity: str, kind: str) -> ModelProto:
    """A model with zeros, in a type."""
    result = ModelProto()
    result.CopyFrom(model)
    quantised = []
    for tensor in list(result.graph.initializer):
        name, array = tensor.name, numpy_helper.to_array(tensor)
        large = array.ndim > 1 and array.size >= 2048
        if large:
            array = zeroed(array, sparsity)
        if kind == "fp16" and array.dtype == np.float32:
            array = array.astype(np.float16)
        if kind == "int8" and large:
            scale = np.float32(np.abs(array).max() / 127)
            array = np.clip(np.round(array / scale), -127, 127).astype(np.int8)
            result.graph.initializer.append(numpy_helper.from_array(np.asarray(scale), f"{name}_scale"))
            quantised.append(helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name]))
            name = f"{name}_int8"
        tensor.CopyFrom(numpy_helper.from_array(array, name))
    nodes = [*quantised, *result.graph.node]
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    if kind == "fp16":
        for value in (*result.graph.input, *result.graph.output):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return result


def zstd(data: bytes, level: int) -> int:
    import zstandard

    return len(zstandard.ZstdCompressor(level=level).compress(data))


def sizes(name: str, sparsities: Sequence[str]) -> Iterator[Row]:
    """Bytes of files, as fractions of the dense one."""
    model = built(name)
    level = 9 if name == "resnet50" else 19
    for sparsity in sparsities:
        for kind in KINDS:
            proto = pruned(model, sparsity, kind)
            dense = proto.SerializeToString()
            small = onnxprune.encode(proto)
            found, data = small.to_dict(), small.model.SerializeToString()
            counts = {
                "smallest": len(data),
                "fast": onnxprune.encode(proto, mode="fast").model.ByteSize(),
                "entropy": found["bound_bytes"] + found["rest_bytes"],
                "coo": _all_sparse(proto),
                "gzip": len(gzip.compress(dense, 6)),
                "zstd": zstd(dense, level),
                "smallest+zstd": zstd(data, level),
            }
            row: Row = {"model": name, "sparsity": sparsity, "type": kind, "dense": len(dense)}
            row |= {key: count / len(dense) for key, count in counts.items()}
            yield row | {"to beat": TO_BEAT[name, kind][SPARSITIES.index(sparsity)]}


def _all_sparse(proto: ModelProto) -> int:
    """Bytes of the file when every weight with zeros is a sparse tensor of the standard, even where that is larger."""
    rows = [row for row in encode.survey(proto) if row.sparsity >= 0.1 and row.elements >= 2048]
    size = int(proto.ByteSize())
    return size + sum(round((1 - row.sparsity) * row.elements) * (8 + row.dense // row.elements) - row.dense for row in rows)


def loads(name: str, sparsities: Sequence[str]) -> Iterator[Row]:
    """Session creation in processor time, latency and memory, against the dense file in the same run."""
    from onnxprune.latency.benchmark import benchmark

    model = built(name)
    with TemporaryDirectory(prefix="onnxprune-") as folder:
        for sparsity in sparsities:
            proto = pruned(model, sparsity, "fp32")
            files = {"dense": Path(folder) / "dense.onnx"}
            onnx.save(proto, files["dense"])
            for label, encoding, mode in (
                ("smallest", "auto", "smallest"),
                ("fast", "auto", "fast"),
                ("coo", "coo", "smallest"),
            ):
                files[label] = Path(folder) / f"{label}.onnx"
                onnxprune.encode(proto, encoding, mode=mode).save(files[label], force=True)
            first, created = _first(files), _created(files)
            exact = _same_outputs(files)
            report = benchmark(list(files.values()), labels=list(files), seconds=0.5, memory=True)
            for label, timed in zip(files, report.rows, strict=True):
                yield {
                    "model": name,
                    "sparsity": sparsity,
                    "stored": label,
                    "bytes": files[label].stat().st_size,
                    "size": files[label].stat().st_size / files["dense"].stat().st_size,
                    "first ms": 1000 * median(first[label]),
                    "first": median(one / base for one, base in zip(first[label], first["dense"], strict=True)),
                    "create ms": 1000 * median(created[label]),
                    "create": median(one / base for one, base in zip(created[label], created["dense"], strict=True)),
                    "run": timed.ratio.median if timed.ratio else 1.0,
                    "run quartiles": [timed.ratio.q1, timed.ratio.q3] if timed.ratio else [1.0, 1.0],
                    "peak MiB": timed.peak_mib,
                    "same outputs": exact[label],
                    "machine": report.machine,
                }


def _session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


FIRST = """
import sys, time
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
start = time.thread_time()
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(time.thread_time() - start)
"""


def _first(files: Mapping[str, Path]) -> dict[str, list[float]]:
    """Processor seconds of creating the first session of a process, in turns."""
    seconds: dict[str, list[float]] = {label: [] for label in files}
    for _ in range(SESSIONS):
        for label, path in files.items():
            done = subprocess.run([sys.executable, "-c", FIRST, path], capture_output=True, text=True, check=True)
            seconds[label].append(float(done.stdout))
    return seconds


def _created(files: Mapping[str, Path]) -> dict[str, list[float]]:
    """Processor seconds of session creation in this process, in turns; the first round warms up."""
    seconds: dict[str, list[float]] = {label: [] for label in files}
    for _ in range(SESSIONS + 1):
        for label, path in files.items():
            start = time.thread_time()
            _session(path)
            seconds[label].append(time.thread_time() - start)
    return {label: found[1:] for label, found in seconds.items()}


def _same_outputs(files: Mapping[str, Path]) -> dict[str, bool]:
    """Tell whether the outputs equal those of the dense file to the last bit."""
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    outputs = {label: _session(path).run(None, {"image": image})[0] for label, path in files.items()}
    return {label: bool(np.array_equal(output, outputs["dense"])) for label, output in outputs.items()}


def sizes_table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [f"| model | zeros | type | dense MB | {' | '.join(NUMBERS)} |", "|---|---|---|" + "--:|" * (1 + len(NUMBERS))]
    for row in rows:
        numbers = " | ".join(f"{row[key]:.3f}" for key in NUMBERS)
        zeros = row["sparsity"] if ":" in row["sparsity"] else f"{float(row['sparsity']):.0%}"
        lines.append(f"| {row['model']} | {zeros} | {row['type']} | {row['dense'] / 1e6:.1f} | {numbers} |")
    return "\n".join(lines)


def loads_table(rows: Sequence[Row]) -> str:
    """Markdown."""
    sessions = ("first session ms", "of dense", "later sessions ms", "of dense")
    columns = ("model", "zeros", "stored", "size", *sessions, "run time of dense (quartiles)", "peak MiB", "outputs")
    lines = [f"| {' | '.join(columns)} |", "|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for row in rows:
        zeros = row["sparsity"] if ":" in row["sparsity"] else f"{float(row['sparsity']):.0%}"
        low, high = row["run quartiles"]
        run = "" if row["stored"] == "dense" else f"{row['run']:.3f} ({low:.3f}-{high:.3f})"
        lines.append(
            f"| {row['model']} | {zeros} | {row['stored']} | {row['size']:.3f} | {row['first ms']:.0f} | "
            f"{row['first']:.2f} | {row['create ms']:.0f} | {row['create']:.2f} | "
            f"{run} | {row['peak MiB']:.0f} | {'equal' if row['same outputs'] else 'DIFFERENT'} |"
        )
    machine = ", ".join(f"{key} {value}" for key, value in rows[0]["machine"].items()) if rows else ""
    return "\n".join(lines) + f"\n\n{machine}"


def write(rows: Sequence[Row]) -> None:
    """Replace the tables of the page for which there are rows; the rest of it is left alone."""
    measured = {"sizes": [row for row in rows if "smallest" in row], "loads": [row for row in rows if "create" in row]}
    draw = {"sizes": sizes_table, "loads": loads_table}
    tables = {name: draw[name](found) for name, found in measured.items() if found}
    text = PAGE.read_text()
    for name, table in tables.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}{table}\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("sizes", "loads", "write"))
    parser.add_argument("files", nargs="*", type=Path, help="for write: files that --json wrote")
    parser.add_argument("--model", choices=MODELS, action="append", help="only this one; may be repeated")
    parser.add_argument("--zeros", choices=SPARSITIES, action="append", help="only this share; may be repeated")
    parser.add_argument("--json", type=Path, help="also write the rows to a file")
    args = parser.parse_args()
    if args.part == "write":
        write([row for path in args.files for row in json.loads(path.read_text())])
        return 0
    rows = []
    for name in args.model or MODELS:
        for row in (sizes if args.part == "sizes" else loads)(name, args.zeros or SPARSITIES):
            rows.append(row)
            print(", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if k != "machine"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    worse = [row for row in rows if "to beat" in row and row["smallest"] > ALLOWED * row["to beat"]]
    changed = [row for row in rows if not row.get("same outputs", True)]
    for row in (*worse, *changed):
        print(
            f"{row['model']} {row['sparsity']}: {'larger than the prototype' if row in worse else 'outputs differ'}",
            file=sys.stderr,
        )
    return int(bool(worse or changed))


if __name__ == "__main__":
    sys.exit(main())
