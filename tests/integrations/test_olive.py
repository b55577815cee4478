from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from command import DIGITS, ENV, ROOT, within
from nets import parse
from onnxprune.ir.model import Model
from onnxprune.options.fields import fields_of
from onnxprune.pipeline.steps import STEPS

pytestmark = pytest.mark.skipif(not find_spec("olive"), reason="Olive is not installed: pip install 'onnxprune[olive]'")

CALIB, TEST = (ROOT / "onnxprune" / "cli" / "digits" / f"{name}.npz" for name in ("calib", "test"))
MLP = """(float[N,8] x) => (float[N,4] y) <float[8,32] w, float[32] b, float[32,4] v> {
  a = MatMul(x, w) h = Add(a, b) r = Relu(h) y = MatMul(r, v)
}"""
SCRIPT = """
import numpy as np
import torch
from olive.data.registry import Registry


class Digits(torch.utils.data.Dataset):
    def __init__(self, path):
        self.images, self.labels = (np.load(path)[name] for name in ("image", "label"))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        return {{"image": self.images[number], "unused": self.images[number]}}, int(self.labels[number])


@Registry.register_dataset("digits_of_tests")
def digits_of_tests(**_):
    return Digits({path!r})
"""


def run(folder: Path, passes: dict[str, Any], **more: Any) -> subprocess.CompletedProcess[str]:
    """A workflow of Olive on the digits, carried out in a process of its own; its output goes to the folder ``out``."""
    local = {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}
    places = {"output_dir": str(folder / "out"), "cache_dir": str(folder / "cache")}
    model = {"type": "ONNXModel", "model_path": DIGITS}
    workflow = {"input_model": model, "systems": {"local": local}, "target": "local", "passes": passes, **places, **more}
    (folder / "workflow.json").write_text(json.dumps(workflow))
    make = [sys.executable, "-m", "onnxprune.integrations.olive_config"]
    known = subprocess.run(make, env=ENV, capture_output=True, text=True, check=True)
    (folder / "passes.json").write_text(known.stdout)
    olive = shutil.which("olive", path=Path(sys.executable).parent)
    assert olive
    command = [olive, "run", "--config", "workflow.json", "--package-config", "passes.json"]
    return subprocess.run(
        command, cwd=folder, env={**ENV, "OLIVE_DISABLE_TELEMETRY": "1"}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_prune_with_a_path_writes_the_weights_of_the_command(tmp_path: Path) -> None:
    done = run(tmp_path, {"prune": {"type": "OnnxPrune", "target": "macs=0.5", "calib": str(CALIB), "align": 4}})
    assert not done.returncode, done.stderr
    direct = within("prune", DIGITS, "-o", "direct.onnx", "--calib", CALIB, "--align", 4, "--no-benchmark", cwd=tmp_path)
    assert not direct.status, direct.err
    made, wanted = (Model.of(tmp_path / name).weights for name in ("out/model.onnx", "direct.onnx"))
    assert made.keys() == wanted.keys()
    assert all(np.array_equal(made[name].array(), wanted[name].array()) for name in wanted)
    report = json.loads((tmp_path / "out" / "OnnxPrune.json").read_text())
    assert report["verification"]["ok"]
    assert report["requested"] == "macs=0.5"


@pytest.mark.slow
def test_samples_and_labels_from_a_data_config_through_two_passes(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(SCRIPT.format(path=str(TEST)))
    data = {
        "name": "digits",
        "type": "DataContainer",
        "user_script": str(tmp_path / "data.py"),
        "load_dataset_config": {"type": "digits_of_tests"},
        "dataloader_config": {"params": {"batch_size": 16}},
    }
    prune = {"type": "OnnxPrune", "target": "macs=0.6", "data_config": "digits"}
    quantize = {"type": "OnnxPruneQuantize", "data_config": "digits", "eval": str(TEST), "min_score": "0.9"}
    done = run(tmp_path, {"prune": prune, "quantize": quantize}, data_configs=[data])
    assert not done.returncode, done.stderr
    assert {"model.onnx", "OnnxPrune.json", "OnnxPruneQuantize.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    pruned, quantized = (
        json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("OnnxPrune", "OnnxPruneQuantize")
    )
    assert pruned["score"]["metric"] == "top1"
    assert quantized["score"]["pruned"] > 0.9
    assert any(node.op_type == "QuantizeLinear" for node in Model.of(tmp_path / "out" / "model.onnx").graph.node)


@pytest.mark.slow
def test_sizes_in_configs_that_go_with_the_model_follow(tmp_path: Path) -> None:
    onnx.save(parse(MLP), tmp_path / "mlp.onnx")
    (tmp_path / "config.json").write_text('{"model_type": "mlp", "intermediate_size": 32}')
    (tmp_path / "tokenizer.json").write_text("{}")
    files = [str(tmp_path / name) for name in ("config.json", "tokenizer.json")]
    model = {"type": "ONNXModel", "model_path": str(tmp_path / "mlp.onnx"), "model_attributes": {"additional_files": files}}
    done = run(tmp_path, {"prune": {"type": "OnnxPrune", "target": "channels=0.5", "align": 1}}, input_model=model)
    assert not done.returncode, done.stderr
    written = {path.name: path for path in (tmp_path / "out").rglob("*")}
    assert {"model.onnx", "tokenizer.json", "OnnxPrune.json"} <= set(written)
    assert json.loads(written["config.json"].read_text())["intermediate_size"] == 16


@pytest.mark.slow
def test_what_makes_no_sense_is_said_and_nothing_written(tmp_path: Path) -> None:
    done = run(tmp_path, {"prune": {"type": "OnnxPrune", "target": "mcas=0.5"}})
    assert "OnnxPrune: target 'mcas=0.5'" in done.stdout + done.stderr
    assert not list(tmp_path.glob("out/**/*.onnx"))


def test_parameters_are_the_options() -> None:
    from onnxprune.integrations import olive

    for name in olive.__all__:
        kind = getattr(olive, name)
        parameters = kind.default_config(None)  # which checks the names of data configs
        options = {field.name: field for one in STEPS[kind.step].options for field in fields_of(one)}
        assert set(options) <= set(parameters)
        assert {"data_config", "eval_data_config", "save_as_external_data"} <= set(parameters)
        for field in options.values():
            given = parameters[field.name]
            assert given.description == field.help()
            assert given.default_value == (list(field.default) if field.type is tuple else field.default)
