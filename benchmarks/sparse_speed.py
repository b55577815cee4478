"""Measure how much faster sparse kernels make networks, and write docs/sparse-speed.md.

In each weight of a convolution or a matrix product with at least 16 input channels, the blocks of the pattern with the smallest
sums of magnitudes are zero, the same share in each. Layers get kernels as `encode --kernels` gives them. All models take turns
with the dense one, and the figure is the median of the ratios round by round.

    python benchmarks/sparse_speed.py measure FILE... --json RESULTS      FILE: ONNX models; names are those of the files
    python benchmarks/sparse_speed.py layers FILE --json RESULTS          the same for each distinct layer of a model alone
    python benchmarks/sparse_speed.py write RESULTS...                    put results into docs/sparse-speed.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.ir import files
from onnxprune.ir.inferred import infer_shapes, typed_values
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.kernels import instruction_set
from onnxprune.latency.benchmark import benchmark
from onnxprune.latency.timer import OrtTimer
from onnxprune.passes import UseKernels
from onnxprune.sparse.kernel_nodes import KernelLayer, is_plain, is_transposed, rows_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sparse-speed.md"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
SPARSITIES = (0.7, 0.8, 0.9)
PATTERNS = {"unstructured": 1, "4x1": 4}
NARROW = 16

Array = NDArray[Any]
Row = dict[str, Any]


def masked(rows: Array, height: int, sparsity: float) -> Array:
    """The matrix with the smallest blocks of some height zero; rows that are left over are blocks of one. [outputs, inputs]"""
    whole = len(rows) // height * height
    blocks = np.abs(rows[:whole]).reshape(-1, height, rows.shape[1]).sum(axis=1)
    kept = np.repeat(blocks > np.quantile(blocks, sparsity), height, axis=0) if whole else np.zeros((0, rows.shape[1]), bool)
    rest = np.abs(rows[whole:])
    kept = np.concatenate([kept, rest > np.quantile(rest, sparsity)]) if len(rest) else kept
    return np.where(kept, rows, 0).astype(rows.dtype)


def sparse(model: Model, height: int, sparsity: float) -> Model:
    """The model with zeros in the weights that kernels take."""
    result = model.copy()
    for node in result.graph.node:
        weight = result.weights.get(node.input[1]) if is_plain(node) else None
        if weight is None or weight.dtype != TensorProto.FLOAT or weight.shape[1 if node.op_type == "Conv" else 0] < NARROW:
            continue
        array, transposed = weight.array(), is_transposed(node)
        rows = masked(rows_of(array, node.op_type, transposed=transposed), height, sparsity)
        back = rows.reshape(array.shape) if node.op_type == "Conv" or transposed else np.ascontiguousarray(rows.T)
        result.weights[weight.name] = Weight(weight.name, None, back)
    return result


def timed(model: Model, threads: int, batch: int, seconds: float) -> tuple[list[Row], tuple[KernelLayer, ...]]:
    """The model without zeros, and with each pattern and sparsity and kernels; the layers that have kernels in the last."""
    layers: tuple[KernelLayer, ...] = ()
    with TemporaryDirectory() as folder:
        paths = [Path(folder, "dense.onnx")]
        files.save(model, paths[0])
        for pattern, height in PATTERNS.items():
            for sparsity in SPARSITIES:
                found = UseKernels(OrtTimer()).run(sparse(model, height, sparsity))
                layers = found.layers
                paths.append(Path(folder, f"{pattern} {sparsity}.onnx"))
                files.save(found.model, paths[-1])
        report = benchmark(paths, threads=threads, batches=[batch], seconds=seconds, sessions=1)
    rows = []
    for row in report.rows:
        pattern, _, sparsity_text = row.label.removesuffix(".onnx").partition(" ")
        ratio = 1.0 if row.ratio is None else row.ratio.median
        rows.append({"pattern": pattern, "sparsity": sparsity_text, "ms": row.latency.median_ms, "ratio": ratio})
    return rows, layers


def measure(args: argparse.Namespace) -> list[Row]:
    """Whole models."""
    results = []
    for path in args.files:
        for threads in args.threads:
            rows, layers = timed(Model.of(path), threads, args.batch, args.seconds)
            about = {
                "model": path.stem,
                "threads": threads,
                "batch": args.batch,
                "kernels": len(layers),
                "machine": machine(threads),
            }
            results.append({**about, "rows": rows})
            report(results[-1])
    return results


def single_layers(model: Model) -> Iterator[tuple[str, int, ModelProto]]:
    """Each distinct convolution of a model alone, how often it is there, and what it is called."""
    graph = infer_shapes(model.skeleton(), model.name)
    shapes = {value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim] for value in typed_values(graph)}
    found: dict[str, tuple[NodeProto, list[int], Weight]] = {}
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        if not is_plain(node) or node.op_type != "Conv" or model.weights[node.input[1]].shape[1] < NARROW:
            continue
        weight, shape = model.weights[node.input[1]], shapes[node.input[0]]
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        stride = given.get("strides", [1])[0]
        sizes = "x".join(map(str, weight.shape[2:]))
        name = f"{weight.shape[1]} -> {weight.shape[0]}, {sizes}, stride {stride}, {shape[-1]} px"
        counts[name] += 1
        found[name] = (node, shape, weight)
    for name, (node, shape, weight) in found.items():
        alone = NodeProto()
        alone.CopyFrom(node)
        del alone.input[2:]
        value = helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [1, *shape[1:]])
        output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
        constant = numpy_helper.from_array(weight.array(), weight.name)
        made = helper.make_graph([alone], "layer", [value], [output], [constant])
        yield name, counts[name], helper.make_model(made, opset_imports=[helper.make_opsetid("", model.opset)], ir_version=8)


def measure_layers(args: argparse.Namespace) -> list[Row]:
    """Layers of one model, one by one."""
    results = []
    for name, count, proto in single_layers(Model.of(args.files[0])):
        rows, _ = timed(Model.of(proto), args.threads[0], 1, args.seconds)
        results.append(
            {"layer": name, "count": count, "model": args.files[0].stem, "rows": rows, "machine": machine(args.threads[0])}
        )
        report(results[-1])
    return results


def machine(threads: int) -> str:
    """The processor and what runs on it."""
    from onnxprune.latency.benchmark import machine_of

    about = machine_of(["cpu"], threads)
    return f"{about['cpu']}, {about['cores']} cores, ONNX Runtime {about['onnxruntime']}, kernels by {instruction_set()}"


def report(result: Row) -> None:
    said = ", ".join(f"{row['pattern']} {row['sparsity']}: {1 / row['ratio']:.2f} x" for row in result["rows"][1:])
    print(f"{result.get('layer', result['model'])}: {result['rows'][0]['ms']:.2f} ms; {said}", flush=True)


def table(results: Sequence[Row], named: str) -> str:
    """Times as fast as dense, a row for each result."""
    head = [f"{pattern}, {sparsity:.0%}" for pattern in PATTERNS for sparsity in SPARSITIES]
    lines = [f"| {named} | dense, ms | " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) + 1)]
    for result in results:
        first, *rest = result["rows"]
        threads = result.get("threads", 1)
        name = result.get("layer", f"{result['model']}, {threads} thread{'s' * (threads > 1)}, batch {result.get('batch')}")
        cells = " | ".join(f"{1 / row['ratio']:.2f}" for row in rest)
        lines.append(f"| {name} | {first['ms']:.2f} | {cells} |")
    return "\n".join(lines)


def write(paths: Sequence[Path]) -> None:
    """Put the tables of results into the page."""
    results = [result for path in paths for result in json.loads(path.read_text(encoding="utf-8"))]
    whole = [result for result in results if "layer" not in result]
    layers = [result for result in results if "layer" in result]
    machines = dict.fromkeys(result["machine"] for result in results)
    parts = [f"Measured on: {'; '.join(machines)}.", table(whole, "network")]
    if layers:
        parts += [f"The distinct layers of {layers[0]['model']}, each alone, without what follows it:", table(layers, "layer")]
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "layers", "write"))
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    if args.what == "write":
        write(args.files)
        return
    results = (measure if args.what == "measure" else measure_layers)(args)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    else:
        json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
