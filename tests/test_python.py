"""What programs call: the public names, as their documentation shows them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "digits.onnx"


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).random((40, 1, 8, 8), np.float32)


def test_one_line_in_memory() -> None:
    small = onnxprune.prune(MODEL, "macs=0.6").model
    assert small.graph.input[0].name == "image"
    assert small.ByteSize() < MODEL.stat().st_size


def test_one_glob_is_one_glob() -> None:
    assert onnxprune.Recipe(protect="stem*").protect == ("stem*",)  # type: ignore[arg-type]  # programs forget the comma
    assert onnxprune.Recipe(protect=["a*", "b*"]).protect == ("a*", "b*")  # type: ignore[arg-type]  # or write a list
    free = [len(onnxprune.analyze(MODEL, protect=given).coupling.groups) for given in ((), "stem*", ("stem*",))]
    assert free[0] - 1 == free[1] == free[2]


@pytest.mark.parametrize("form", [lambda x: x, lambda x: {"image": x}, lambda x: (part for part in np.split(x, 4))])
def test_samples_of_any_form_prune_alike(images: Any, form: Any) -> None:
    recipe = onnxprune.Recipe(target="macs=0.6", verify=False)
    plans = [onnxprune.prune(MODEL, recipe, samples=given, agreement=False) for given in ({"image": images}, form(images))]
    assert plans[0].plan.equals(plans[1].plan)
    assert plans[0].model.SerializeToString() == plans[1].model.SerializeToString()


def test_a_metric_of_the_programs(images: Any) -> None:
    def closeness(outputs: Any, reference: Any, labels: Any) -> float:
        return 1 - float(np.abs(outputs[0] - reference[0]).mean())

    recipe = onnxprune.Recipe(target="macs=0.9", metric=closeness, min_score="0")
    score = onnxprune.prune(MODEL, recipe, samples=images).report.score
    assert score is not None
    assert (score.metric, score.original) == ("closeness", 1)
    assert score.pruned < 1
    assert recipe.to_dict()["metric"].endswith(":test_a_metric_of_the_programs.<locals>.closeness")


def test_results_fit_on_a_screen() -> None:
    result = onnxprune.prune(MODEL, "macs=0.6")
    shown = repr(result).splitlines()
    assert shown[0] == f"Result of {MODEL}"
    assert shown[-1].startswith("  exact: 1 of 1 outputs tested")
    assert "  MACs 1.95 M -> " in repr(result.report)
    assert repr(result.plan).startswith("<Plan of digits.onnx: ")
    assert repr(onnxprune.analyze(MODEL)) == f"<Analysis of {MODEL}: 13 groups with 528 positions, 1 axes that stay>"
    for one in (result, result.report, result.plan, result.coupling):
        assert len(repr(one)) < 24 * 80


def test_training_takes_samples_alone(images: Any) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    options = onnxprune.Training(epochs=1, steps=1, batch=4)
    tuned = onnxprune.finetune(MODEL, (images, np.arange(40) % 10), options)
    assert repr(tuned).startswith(f"TrainedModel of {MODEL}")
    inputs = onnxprune.TrainingInputs(iter(images), teacher=MODEL)
    sparse = onnxprune.train(MODEL, inputs, onnxprune.Sparse(sparsity=0.5), options)
    assert sparse.report["loss"]


@pytest.mark.slow
def test_the_page_about_python_runs(images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODEL, "model.onnx")
    Path("recipe.toml").write_text('model = "model.onnx"\noutput = "small.onnx"\n[prune]\ntarget = "macs=0.75"\n')
    np.savez("test.npz", image=images, label=np.arange(40) % 10)
    names = {"onnxprune": onnxprune, "model": onnx.load("model.onnx"), "images": images}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guide" / "python.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) > 2
    for block in blocks:
        exec(block, names)  # noqa: S102 - the page is ours
    assert isinstance(names["small"], onnx.ModelProto)


def test_every_command_is_a_function() -> None:
    for name in ("prune", "sparsify", "quantize", "optimize", "encode", "decode", "release", "apply", "benchmark", "sensitivity"):
        assert callable(getattr(onnxprune, name))
