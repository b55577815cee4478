from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from command import ENV
from onnxprune.integrations import olive_config
from onnxprune.integrations.olive_config import PATH, package_config
from onnxprune.pipeline.steps import STEPS


def classes() -> dict[str, str]:
    """The passes in the module, which can only be imported where Olive is, with the step that each carries out."""
    found = {}
    for node in ast.parse(PATH.with_name("olive.py").read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            (step,) = [ast.literal_eval(line.value) for line in node.body if isinstance(line, ast.Assign)]
            found[node.name] = step
    return found


def test_every_pass_is_made_known_by_its_place() -> None:
    ours = json.loads(PATH.read_text("utf-8"))["passes"]
    assert {name: one["module_path"] for name, one in ours.items()} == {
        name: f"onnxprune.integrations.olive.{name}" for name in classes()
    }
    assert set(classes().values()) <= set(STEPS)


def test_passes_of_olive_stay_known() -> None:
    assert set(classes()) <= set(package_config()["passes"])
    assert ("OnnxConversion" in package_config()["passes"]) == bool(find_spec("olive"))


def test_where_olive_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(olive_config, "find_spec", lambda _: None)
    assert set(package_config()["passes"]) == set(classes())


def test_it_is_printed() -> None:
    command = [sys.executable, "-m", "onnxprune.integrations.olive_config"]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == package_config()
