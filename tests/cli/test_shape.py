"""``--shape``: every command that reads a model has it, and it reaches what runs the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from command import Done, refused, within
from nets import parse
from onnxprune.cli.derived import COMMANDS
from onnxprune.errors import OptionError
from onnxprune.pipeline.run import Build
from onnxprune.runtime.session import inference_session

NET = """(float[n,3,height,width] x) => (float[n,5] y)
<float[16,3,3,3] w, float[16] b, float[16,16,3,3] u, float[16,5] v> {
  c = Conv<pads = [1,1,1,1]>(x, w, b) r = Relu(c) d = Conv<pads = [1,1,1,1]>(r, u) s = Relu(d)
  g = GlobalAveragePool(s) f = Flatten(g) y = MatMul(f, v)
}"""
"""Takes any size."""


def run(*args: object) -> Done:
    return within(*args, cwd=Path.cwd())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(parse(NET), path)
    return path


def test_every_command_that_reads_a_model_has_it() -> None:
    names = {name: {one.field.name for one in parameters} for name, (_, parameters) in COMMANDS.items()}
    reading = {name for name, fields in names.items() if {"model", "models"} & fields}
    assert {name for name, fields in names.items() if "shape" in fields} == reading


def test_prune_apply_and_verify(model: Path, tmp_path: Path) -> None:
    small, plan, again = (str(tmp_path / name) for name in ("s.onnx", "p.json", "a.onnx"))
    shape = ("--shape", "height=24", "--shape", "x=1x?x?x20")
    done = run("prune", str(model), "-o", small, "--plan-out", plan, "--no-benchmark", "--json", *shape)
    assert done.status == 0, done.err
    assert done.json()["verification"]["runs"] == 1  # every size is given
    for command in (["apply", str(model), plan, "-o", again], ["verify", str(model), small, "--plan", plan]):
        done = run(*command, "--json", *shape)
        assert done.status == 0, done.err
    session = inference_session(onnx.load(small))
    for size in ((1, 3, 24, 20), (2, 3, 40, 33)):  # what was not given is right, too
        (found,) = session.run(None, {"x": np.ones(size, np.float32)})
        assert found.shape == (size[0], 5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("depth=2", "there is no input and no dimension 'depth'; inputs are x[n, 3, height, width]"),
        ("x=1x4x8x8", "axis 1 of input x[n, 3, height, width] is 3, not 4"),
        ("height:2", "--shape 'height:2': write the sizes of an input"),
    ],
)
@pytest.mark.parametrize("command", [["inspect"], ["prune", "-o", "{}"], ["sparsify", "-o", "{}"], ["encode", "-o", "{}"]])
def test_what_does_not_fit_is_one_line(model: Path, tmp_path: Path, command: list[str], shape: str, message: str) -> None:
    out = tmp_path / "out.onnx"
    done = run(command[0], str(model), *(part.format(out) for part in command[1:]), "--shape", shape)
    refused(done, 2, message)
    assert not out.exists()


def test_samples_of_another_size(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "c.npz"
    np.savez(data, x=np.random.default_rng(0).normal(size=(12, 3, 18, 18)).astype(np.float32))
    done = run("prune", str(model), "-o", str(tmp_path / "o.onnx"), "--calib", str(data), "--shape", "height=24")
    refused(done, 2, "axis 2 of input 'x' has size 18, and --shape gives it 24")


def test_benchmark_runs_at_given_sizes(model: Path) -> None:
    done = run("benchmark", str(model), "--seconds", "0.05", "--shape", "x=2x3x24x?", "--shape", "width=20", "--json")
    assert done.status == 0, done.err
    (row,) = done.json()["rows"]
    assert row["inputs"] == {"x": [2, 3, 24, 20]}
    assert row["batch"] == 2


def test_in_recipes_once_for_all_steps(model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    text = f'model = "{model.name}"\noutput = "o.onnx"\nshape = ["height=24"]\n[prune]\n[encode]\nshape = ["height=20"]\n'
    recipe.write_text(text)
    build = Build.load(recipe)
    given = [next(iter(step.options.values())).shape for step in build.steps]
    assert [build.shape, *given] == [("height=24",), ("height=24",), ("height=20",)]
    recipe.write_text(text.replace("height=24", "height"))
    with pytest.raises(OptionError, match=r"\[prune\] --shape 'height': write"):
        Build.load(recipe)


def test_in_python(model: Path) -> None:
    assert onnxprune.analyze(model, shape=("height=24",)).shapes.shapes["x"] == (2, 3, 24, 64)
    recipe = onnxprune.Recipe(target="params=0.5", shape=("x=1x3x24x24",))
    assert (check := onnxprune.prune(model, recipe).report.verification) is not None
    assert check.runs == 1
