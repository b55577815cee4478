"""Runs nodes whose numbers are not what they were: `mutations.py LIBRARY COUNT`. Each is refused, or computed without harm."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import kernel_cases as cases

ODD = (-1, 0, 1, 2, 3, 7, 1 << 31, 1 << 62, -(1 << 63))


def mutated(case: cases.Case, rng: np.random.Generator) -> cases.Case:
    """The node with another attribute, weight, operator or order of inputs."""
    kind = rng.integers(0, 4)
    if kind == 0 and case.attributes:
        name = str(rng.choice(list(case.attributes)))
        value = case.attributes[name]
        other = int(rng.choice(ODD))
        if isinstance(value, list):
            value = [*value]
            value[int(rng.integers(len(value)))] = other
            value = value[: int(rng.integers(0, len(value) + 1))] if rng.random() < 0.3 else value
        else:
            value = other
        return replace(case, attributes={**case.attributes, name: value})
    if kind == 1:
        name = str(rng.choice(list(case.weights)))
        shape = [int(size) for size in case.weights[name].shape]
        if shape:
            shape[int(rng.integers(len(shape)))] = int(rng.choice([0, 1, 2, 5]))
        shape = shape[: int(rng.integers(0, len(shape) + 1))] if rng.random() < 0.3 else shape
        return replace(case, weights={**case.weights, name: rng.standard_normal(shape).astype(np.float32)})
    if kind == 2:
        name = str(rng.choice(list(case.feeds)))
        shape = [int(size) for size in case.feeds[name].shape]
        shape[int(rng.integers(len(shape)))] = int(rng.choice([0, 1, 2, 5]))
        return replace(case, feeds={**case.feeds, name: rng.standard_normal(shape).astype(np.float32)})
    names = ["SparseConv", "SparseConvAddRelu", "SparseConvClip", "SparseMatMul", "SparseMatMulAdd", "SparseGemm"]
    return replace(case, operator=str(rng.choice(names)))


def main(library: Path, count: int) -> None:
    for height in cases.HEIGHTS:
        for tokens in (1, 70):
            cases.of_every_half(height, tokens)[0].run(library)
    ran = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        case = (cases.convolution if seed % 2 else cases.product)(rng)
        try:
            mutated(case, rng).run(library)
            ran += 1
        except Exception:  # noqa: BLE001, S112 - onnxruntime derives its exceptions from Exception alone
            continue
    sys.stdout.write(f"{count} nodes, {ran} of them were computed\n")


main(Path(sys.argv[1]), int(sys.argv[2]))
