"""No command writes a file that is larger than the one it was given, or that the onnx package refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models.test_zoo import ALL, load
from onnxprune import Recipe, SparseRecipe, decode, encode, prune, quantize, sparsify
from onnxprune.driver.apply import apply
from onnxprune.driver.result import ModelResult
from onnxprune.errors import OnnxPruneError
from onnxprune.ir import files
from onnxprune.ir.model import Model
from onnxprune.options.train import Sparse, Training

MODELS = sorted(Path(__file__).resolve().parents[2].joinpath("models").glob("*.onnx"))
TWICE = 1.002
"""What a file with zeros may be larger: layers that share a constant, and lose other positions of it, no longer share it."""


def pruned(source: Any) -> ModelResult:
    return prune(source, Recipe(target="channels=0.5", align="1"), agreement=False)


def sparse(source: Any) -> ModelResult:
    return sparsify(source, SparseRecipe(target="sparsity=0.5", ends=True), agreement=False)


def masked(source: Any) -> ModelResult:
    return ModelResult(compiled=apply(source, prune(source, Recipe(target="channels=0.5"), agreement=False).plan, masked=True))


def quantized(source: Any) -> ModelResult:
    return quantize(source, samples=noise(source, 8), agreement=False)


def noise(source: Any, count: int) -> dict[str, Any]:
    """So many samples."""
    rng = np.random.default_rng(0)
    sizes = {v.name: [d.dim_value or count for d in v.type.tensor_type.shape.dim] for v in Model.of(source).inputs}
    return {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}


def encoded(source: Any) -> ModelResult:
    """Encoded where that pays, which is not much where a tenth of the weights are zeros."""
    return sparsify(source, SparseRecipe(target="sparsity=0.1", ends=True, encoding="auto"), agreement=False)


def trained(source: Any, recipe: Sparse | None) -> ModelResult:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from onnxprune.training.finetune import finetune
    from onnxprune.training.inputs import TrainingInputs
    from onnxprune.training.train import train

    inputs, options = TrainingInputs(noise(source, 32), source), Training(epochs=1, device="cpu")
    return finetune(source, inputs, options) if recipe is None else train(source, inputs, recipe, options)


WRITERS: dict[str, Callable[[Any], ModelResult]] = {
    "prune": pruned, "sparsify": sparse, "sparsify --encoding": encoded, "apply --masked": masked, "quantize": quantized,
    "encode": encode, "decode": decode, "finetune": lambda source: trained(source, None),
    "train": lambda source: trained(source, Sparse(sparsity=0.5)),
    "train --target": lambda source: trained(source, Sparse(target="channels=0.9")),
}  # fmt: skip


def check(source: Any, command: str, taken: int, folder: Path) -> None:
    """The file that a command writes is valid, and no larger."""
    out = folder / "out.onnx"
    WRITERS[command](source).save(out)
    onnx.checker.check_model(out, full_check=True)
    assert files.size_on_disk(out) - history_bytes(out) <= taken * (TWICE if command == "apply --masked" else 1)


def history_bytes(out: Path) -> int:
    """What a file takes for how it was made, which is all that it may take more: at most 1 kB."""
    proto = onnx.load(out, load_external_data=False)
    whole = proto.ByteSize()
    for entry in [entry for entry in proto.metadata_props if entry.key.startswith("onnxprune.")]:
        proto.metadata_props.remove(entry)
    taken: int = whole - proto.ByteSize() + len(proto.producer_name + proto.producer_version)
    assert 0 < taken < 1024
    return taken


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models(path: Path, command: str, tmp_path: Path) -> None:
    check(path, command, files.size_on_disk(path), tmp_path)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_refitted_layers_add_their_own_biases_and_nothing_else(path: Path, tmp_path: Path) -> None:
    """Exporters let layers share a vector of zeros; each layer that is refitted gets a bias of its own."""
    recipe = SparseRecipe(target="sparsity=0.8", pattern="4x1")
    sparsify(path, recipe, samples=noise(path, 64), agreement=False).save(tmp_path / "out.onnx")
    was, now = (
        {one.name: numpy_helper.to_array(one) for one in onnx.load(at).graph.initializer} for at in (path, tmp_path / "out.onnx")
    )
    added = [array for name, array in now.items() if name not in was]
    assert was.keys() <= now.keys()
    assert all(array.ndim == 1 for array in added)
    assert len({array.tobytes() for array in added}) == len(added)
    told = history_bytes(tmp_path / "out.onnx")
    assert files.size_on_disk(tmp_path / "out.onnx") - told <= files.size_on_disk(path) + sum(
        array.nbytes + 64 for array in added
    )


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize("name", ["squeezenet", "inception_v1", "resnet50"])
def test_weights_that_nodes_fill(name: str, tmp_path: Path) -> None:
    """The light models of the onnx package fill their weights at load: 2,000 times less than the weights take."""
    path = LIGHT / f"light_{name}.onnx"
    small = prune(path, Recipe(target="channels=0.9", align="1", verify=False), agreement=False)
    small.save(tmp_path / "out.onnx")
    assert files.size_on_disk(tmp_path / "out.onnx") <= files.size_on_disk(path)


FILLED = tuple(f"file_light_{name}" for name in ("densenet121", "inception_v1", "resnet50", "zfnet512"))
"""Files of the zoo all of whose weights nodes make, of next to nothing."""
REFUSED = {(name, "sparsify"): "is made by nodes, and would be stored if it had zeros" for name in FILLED} | {
    ("file_light_densenet121", "encode"): "operator set 9 lacks what decodes weights: .* or encode as coo"
}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["prune", "sparsify", "encode"])
@pytest.mark.parametrize("name", ALL)
def test_whole_zoo(shared: Callable[[str], Path], name: str, command: str, tmp_path: Path) -> None:
    source = load(shared, name)
    if (name, command) in REFUSED:
        with pytest.raises(OnnxPruneError, match=REFUSED[name, command]):
            check(source, command, source.ByteSize(), tmp_path)
        return
    check(source, command, source.ByteSize(), tmp_path)
