"""No command writes a file that is larger than the one it was given, or that the onnx package refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from models.test_zoo import ALL, load
from onnxprune import Recipe, SparseRecipe, decode, encode, prune, quantize, sparsify
from onnxprune.driver.apply import apply
from onnxprune.driver.result import ModelResult
from onnxprune.ir import files
from onnxprune.ir.model import Model

MODELS = sorted(Path(__file__).resolve().parents[2].joinpath("models").glob("*.onnx"))
SPARE = 1.01
"""What a file without anything removed may be larger: names of constants, and attributes that are spelled out."""


def pruned(source: Any) -> ModelResult:
    return prune(source, Recipe(target="channels=0.5", align="1"), agreement=False)


def sparse(source: Any) -> ModelResult:
    return sparsify(source, SparseRecipe(target="sparsity=0.5", ends=True), agreement=False)


def masked(source: Any) -> ModelResult:
    return ModelResult(compiled=apply(source, prune(source, Recipe(target="channels=0.5"), agreement=False).plan, masked=True))


def quantized(source: Any) -> ModelResult:
    model, rng = Model.of(source), np.random.default_rng(0)
    sizes = {v.name: [d.dim_value or 8 for d in v.type.tensor_type.shape.dim] for v in model.inputs}
    samples = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    return quantize(source, samples=samples, agreement=False)


WRITERS: dict[str, Callable[[Any], ModelResult]] = {
    "prune": pruned, "sparsify": sparse, "apply --masked": masked, "quantize": quantized, "encode": encode, "decode": decode,
}  # fmt: skip
SHRINKING = ("prune", "quantize")


def check(source: Any, command: str, taken: int, folder: Path) -> None:
    """The file that a command writes is valid, and no larger."""
    out = folder / "out.onnx"
    WRITERS[command](source).save(out)
    onnx.checker.check_model(out, full_check=True)
    assert files.size_on_disk(out) <= taken * (1 if command in SHRINKING else SPARE)


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models(path: Path, command: str, tmp_path: Path) -> None:
    check(path, command, files.size_on_disk(path), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["prune", "sparsify", "encode"])
@pytest.mark.parametrize("name", ALL)
def test_whole_zoo(shared: Callable[[str], Path], name: str, command: str, tmp_path: Path) -> None:
    source = load(shared, name)
    check(source, command, source.ByteSize(), tmp_path)
