"""What a device is given: a program that needs neither onnx nor onnxprune, and a small file."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from command import PATIENCE
from nets import NETS, parse
from onnxprune.driver.devices import timed_models
from onnxprune.latency.cache import read_table
from onnxprune.latency.on_device import read_shapes
from onnxprune.latency.worklist import program
from onnxprune.options.prune import Recipe

_ALONE = """
import runpy, sqlite3, sys
for name in ("ERROR", "CORRUPT", "NOTADB", "SCHEMA"):  # Python 3.10 has no such names
    delattr(sqlite3, f"SQLITE_{name}")
for name in ("onnx", "onnxprune", "google", "onnx_graphsurgeon", "typer", "rich"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program in a process that can import nothing of ours and no onnx, as far as that goes as Python 3.10 would."""


def test_the_program_runs_where_there_is_neither_onnx_nor_onnxprune(tmp_path: Path) -> None:
    (tmp_path / "measure.py").write_text(program(), "utf-8")
    asked = timed_models(parse(NETS["chain"]), Recipe(align="8"))
    (tmp_path / "shapes.json").write_bytes(asked.content)
    command = [sys.executable, "-I", "-W", "error", "-c", _ALONE, "measure.py", "shapes.json", "-o", "device.db"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    ((key, times),) = read_table(tmp_path / "device.db").items()
    assert json.loads(key)["provider"] == "cpu"
    assert len(times) == asked.layers + asked.wholes + 1
    assert None not in times.values()


def test_the_program_imports_nothing_of_ours_and_defines_nothing_twice() -> None:
    tree = ast.parse(program(), feature_version=(3, 10))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == {"numpy", "onnxruntime"}
    named = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for node in tree.body:
        if isinstance(node, ast.Assign):
            named += [one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            named.append(node.target.id)
    assert [name for name, count in Counter(named).items() if count > 1] == []


def test_weights_are_not_in_the_file(tmp_path: Path) -> None:
    asked = timed_models(parse(NETS["chain"]), Recipe(align="1"))
    (tmp_path / "shapes.json").write_bytes(asked.content)
    found = read_shapes(tmp_path / "shapes.json")
    assert len(found.layers) == asked.layers
    assert all(one.graph for one in (*found.layers.values(), *found.wholes.values(), found.yardstick))
    assert any(one.constants for one in found.wholes.values())
    assert len(asked.content) < 200 * (asked.layers + asked.wholes)
