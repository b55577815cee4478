"""What `--json` prints follows the schema that is published, for every command and for errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from command import ROOT, Done, inside, net, within
from onnxprune.cli.derived import COMMANDS
from onnxprune.cli.output import SCHEMA

jsonschema = pytest.importorskip("jsonschema")
PUBLISHED = json.loads((ROOT / "docs" / "report.schema.json").read_text())
RECIPE = """model = "net.onnx"
output = "built.onnx"
eval = "c.npz"
metric = "cosine"
[prune]
target = "macs=0.7"
align = "1"
"""
WANTED = ("--target", "macs=0.7", "--align", "1")
COMMANDS_OF: dict[str, tuple[str, ...]] = {
    "inspect": ("net.onnx",),
    "prune": (
        "net.onnx",
        "-o",
        "small.onnx",
        "--target",
        "macs=0.7",
        "--align",
        "1",
        "--plan-out",
        "made.json",
        "--no-benchmark",
    ),
    "plan": ("net.onnx", "-o", "plan.json", *WANTED),
    "apply": ("net.onnx", "plan.json", "-o", "applied.onnx"),
    "verify": ("net.onnx", "applied.onnx", "--plan", "plan.json"),
    "sensitivity": ("net.onnx", "--calib", "c.npz"),
    "sparsify": ("net.onnx", "-o", "sparse.onnx", "--ends"),
    "encode": ("sparse.onnx", "-o", "encoded.onnx"),
    "decode": ("encoded.onnx", "-o", "decoded.onnx"),
    "quantize": ("net.onnx", "-o", "int8.onnx", "--calib", "c.npz", "--eval", "c.npz", "--metric", "cosine"),
    "benchmark": ("net.onnx", "--seconds", "0.02"),
    "finetune": ("net.onnx", "--teacher", "net.onnx", "--data", "c.npz", "--epochs", "1", "-o", "tuned.onnx"),
    "train": ("net.onnx", "--data", "c.npz", "--epochs", "1", "--sparsity", "0.5", "-o", "trained.onnx"),
    "run": ("r.toml",),
    "lint": ("net.onnx", "--max-size", "1M"),
    "log": ("small.onnx",),
    "compare": ("net.onnx", "small.onnx"),
    "release": ("weights.onnx", "-o", "released.onnx"),
}
ELSEWHERE = {
    "optimize": "tests/cli/test_optimizing.py",
    "demo": "tests/cli/test_demo.py",
    "latency shapes": "tests/cli/test_devices.py",
    "latency measure": "tests/cli/test_devices.py",
}


def checked(document: Any) -> Any:
    jsonschema.validate(document, PUBLISHED)
    return document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("json")
    onnx.save(net(), path / "net.onnx")
    old = net()
    old.graph.input.extend(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in old.graph.initializer)
    onnx.save(old, path / "weights.onnx")
    np.savez(path / "c.npz", x=np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32))
    (path / "r.toml").write_text(RECIPE)
    return path


def test_every_command_is_here() -> None:
    known = {name for name, (function, _) in COMMANDS.items() if function.__module__.startswith("onnxprune.cli.")}
    known = {name for name in known if not name.startswith("sweep ")}  # tests/cli/test_sweeping.py
    assert known == {*COMMANDS_OF, *ELSEWHERE}
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)
    assert PUBLISHED["properties"]["schema"]["const"] == SCHEMA


def test_a_document_and_a_page_of_each_command(folder: Path) -> None:
    """In one test, since commands read what those before them wrote."""
    pytest.importorskip("altair", reason="pages need the extra report")
    for command, words in COMMANDS_OF.items():
        done = within(command, *words, "--json", "--report", f"{command}.html", cwd=folder)
        assert done.status == 0, (command, done.err)
        assert checked(done.json())["command"] == command
        assert inside(folder / f"{command}.html") == done.json()


def test_what_a_recipe_would_do_is_a_document_too(folder: Path) -> None:
    done = within("run", "r.toml", "--dry-run", "--json", cwd=folder)
    assert [step["name"] for step in checked(done.json())["steps"]] == ["prune"]


@pytest.mark.parametrize(
    ("command", "status", "kind"),
    [
        (("inspect", "gone.onnx"), 2, "ModelError"),
        (("prune", "net.onnx", "-o", "x.onnx", "--target", "macs=0.001"), 1, "TargetError"),
        (("prune", "net.onnx", "-o", "x.onnx", "--min-agreement", "0.9"), 2, "OptionError"),
        (("prune", "net.onnx", "-o", "x.onnx", "--calib", "c.npz", "--eval", "c.npz", "--min-score", "1"), 1, "QualityError"),
        (("prune", "net.onnx", "--nothing"), 2, "UsageError"),
        (("prune", "net.onnx"), 2, "UsageError"),
    ],
)
def test_errors_are_documents_too(command: tuple[str, ...], status: int, kind: str, folder: Path) -> None:
    done: Done = within(*command, "--json", cwd=folder)
    document = checked(done.json())
    assert (done.status, document["failure"]["type"], document["failure"]["exit_status"]) == (status, kind, status)
    assert document["command"] == command[0]
    assert document["failure"]["message"] in " ".join(done.err.split())
    assert not (folder / "x.onnx").exists()
