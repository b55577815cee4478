"""The example of ``docs/extending``: a package of its own, whose rule, criterion, pattern and encoding the commands then know."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "extending"
Python = Callable[..., subprocess.CompletedProcess[str]]


def installed(folder: Path) -> Path:
    """The example as an installation: its wheel, unpacked."""
    tree, site = folder / "tree", folder / "site"
    shutil.copytree(EXAMPLE, tree, ignore=shutil.ignore_patterns("__pycache__"))
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def foo_net() -> onnx.ModelProto:
    """Conv (3 to 16 channels), Foo, Conv (to 8); nothing says what shape Foo outputs."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((16, 3, 3, 3), np.float32),
        "slope": rng.uniform(0.5, 1.5, 16).astype(np.float32),
        "w2": rng.standard_normal((8, 16, 3, 3), np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], name="c1", pads=[1] * 4),
            helper.make_node("Foo", ["a", "slope"], ["f"], name="foo", domain="my.domain"),
            helper.make_node("Conv", ["f", "w2"], ["y"], name="c2", pads=[1] * 4),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.domain", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, foo_library: Path) -> Path:
    """A folder with the example installed in ``site``, its library, a model and samples."""
    path = tmp_path_factory.mktemp("extending")
    installed(path)
    shutil.copy(foo_library, path)
    onnx.save(foo_net(), path / "foo.onnx")
    np.savez(path / "calib.npz", x=np.random.default_rng(1).standard_normal((40, 3, 8, 8), np.float32))
    return path


@pytest.fixture
def python(folder: Path) -> Python:
    """Python with the example installed, in its folder."""
    paths = os.pathsep.join([str(ROOT), str(folder / "site")])
    env = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}

    def run(*args: object, cwd: Path = folder) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *map(str, args)]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)

    return run


def weights(path: Path) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_prune_proves_a_model_with_an_operator_of_another_domain(folder: Path, python: Python) -> None:
    command = ("onnxprune", "prune", "foo.onnx", "-o", "small.onnx", "--target", "channels=0.5", "--criterion", "spread")
    done = python(*command, "--calib", "calib.npz", "--custom-ops", "libfoo.so", "--json")
    assert not done.stderr
    report = json.loads(done.stdout)
    assert report["verification"]["ok"]
    assert report["repairs"][-1]["after"] < report["repairs"][-1]["before"]
    assert report["benchmark"]
    original, small = weights(folder / "foo.onnx"), weights(folder / "small.onnx")
    assert (small["w1"].shape, small["w2"].shape) == ((8, 3, 3, 3), (8, 8, 3, 3))
    spread = original["w1"].reshape(16, -1).std(1) + original["w2"].swapaxes(0, 1).reshape(16, -1).std(1)
    np.testing.assert_array_equal(small["slope"], original["slope"][np.sort(np.argsort(-spread)[:8])])


def test_a_recipe_runs_every_step_with_the_operators(folder: Path, python: Python) -> None:
    (folder / "recipe.toml").write_text("""
        model = "foo.onnx"
        output = "built.onnx"
        custom_ops = ["libfoo.so"]
        eval = "calib.npz"
        [prune]
        target = "channels=0.5"
        criterion = "spread"
        calib = "calib.npz"
        [sparsify]
        sparsity = 0.5
        ends = true
        pattern = "taps"
        calib = "calib.npz"
        [encode]
        encoding = "nibbles"
        [benchmark]
        seconds = 0.05
        memory = true
        [quantize]
        calib = "calib.npz"
    """)
    done = python("onnxprune", "run", folder / "recipe.toml", "--json", cwd=ROOT)
    assert not done.stderr
    prune, sparsify, encode, benchmark, quantize = (step["report"] for step in json.loads(done.stdout)["steps"])
    assert prune["verification"]["ok"]
    assert sparsify["pattern"] == "taps"
    assert {weight["encoding"] for weight in encode["weights"]} <= {"gaps4", "dense"}
    assert "not measured" not in json.dumps(benchmark)
    assert quantize["nodes"]["Conv"] == 2
    assert [node["op"] for node in quantize["kept"]] == ["Foo"]


def test_help_knows_what_the_package_brings(python: Python) -> None:
    for command, name in (("prune", "spread"), ("sparsify", "taps (whole taps of kernels"), ("encode", "nibbles")):
        assert name in " ".join(python("onnxprune", command, "--help").stdout.split())


def test_without_the_library_inspect_says_how_to_give_it(python: Python) -> None:
    found = " ".join(python("onnxprune", "inspect", "foo.onnx").stdout.split())
    assert "give the library of operators in my.domain by --custom-ops" in found


def test_a_library_that_is_not_there_is_refused(folder: Path, python: Python) -> None:
    done = python("onnxprune", "benchmark", "foo.onnx", "--custom-ops", "absent.so")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "onnxprune: --custom-ops absent.so: there is no such file\n")


def test_the_law_holds_for_rules_of_the_package(folder: Path, python: Python) -> None:
    law = ("pytest", "-q", "-p", "no:cacheprovider", "tests/axes/rules/test_law.py", "-k", "my.domain or every_rule_has_a_sample")
    done = python(*law, "--custom-ops", folder / "libfoo.so", cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
