"""Recipe files: what is refused before anything is computed, and what is computed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import typer

from onnxprune.cli import app, training_tables
from onnxprune.data import samples as calibrate
from onnxprune.errors import ModelError, OptionError, OutputError
from onnxprune.ir.model import Model
from onnxprune.options.fields import fields_of
from onnxprune.options.prune import Recipe
from onnxprune.options.quantize import QuantRecipe
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.options.train import Lesson, Sparse, Training
from onnxprune.pipeline.run import Build, run
from onnxprune.pipeline.steps import STEPS, StepInput
from onnxprune.runtime import memory
from onnxprune.verify.metrics import Evaluation

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits.onnx"
HEAD = f'model = "{DIGITS.as_posix()}"\noutput = "small.onnx"\n'
Write = Callable[..., Path]
of = Model.of


@pytest.fixture
def recipe(tmp_path: Path) -> Write:
    """Writes a recipe file, with samples and labels beside it."""
    rng = np.random.default_rng(0)
    images = rng.random((48, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", image=images, label=rng.integers(0, 10, 48))

    def write(text: str, head: str = HEAD) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(head + text)
        return path

    return write


# Reading


def test_options_become_those_of_the_api_and_paths_are_relative_to_the_file(recipe: Write, tmp_path: Path) -> None:
    text = """
    [prune]
    target = "params=0.7"
    align = 4
    protect = "stem*"
    repair = false
    calib = "calib.npz"
    [again]
    do = "sparsify"
    sparsity = 0.5
    layer = ["*=0.2"]
    no-permute = true
    calib = "noise:noise"
    [finetune]
    data = "calib.npz"
    match-weight = 2
    [train]
    data = "calib.npz"
    sparsity = 0
    [quantize]
    per-tensor = true
    calib = "calib.npz"
    """
    build = Build.load(recipe(text))
    assert build.output == tmp_path / "small.onnx"
    assert [(step.name, step.do) for step in build.steps] == [
        ("prune", "prune"), ("again", "sparsify"), ("finetune", "finetune"), ("train", "train"),
        ("quantize", "quantize"),
    ]  # fmt: skip
    data = str(tmp_path / "calib.npz")
    prune, sparsify, finetune, train, quantize = (step.options for step in build.steps)
    assert prune[Recipe] == Recipe("params=0.7", align="4", protect=("stem*",), repair=False, calib=data)
    assert sparsify[SparseRecipe] == SparseRecipe("sparsity=0.5", layers=("*=0.2",), permute=False, calib="noise:noise")
    assert finetune[Training] == Training(match_weight=2.0)
    assert finetune[Lesson] == Lesson(data, teacher="original")
    assert train[Sparse] == Sparse(sparsity=0.0)
    assert quantize[QuantRecipe] == QuantRecipe(calib=data, per_channel=False)


ELSEWHERE = {"model", "output", "force", "as_json", "preprocess", "help", "plan_out", "benchmark", "compare", "measure"}
ELSEWHERE |= {"every", "resume", "models", "custom_ops", "threads", "max_memory", "mlflow", "report"}
"""Options of commands that are about files of the command itself, about its process, or about what it prints."""


@pytest.mark.parametrize("do", sorted(STEPS))
def test_every_option_of_the_command_is_an_option_of_the_step(do: str) -> None:
    kind = STEPS[do]
    known = {key.replace("_", "-") for options in kind.options for field in fields_of(options) for key in field.keys}
    command = typer.main.get_command(app).commands[do]  # type: ignore[attr-defined]
    for parameter in command.params:
        if parameter.name in ELSEWHERE:
            continue
        options = [option.removeprefix("--") for option in parameter.opts if option.startswith("--")]
        assert options
        assert all(option in known or option.removeprefix("no-") in known for option in options), f"{do}: {options}"


@pytest.mark.parametrize(
    ("head", "text", "words"),
    [
        ('output = "a.onnx"\n', "[prune]", 'has no model: write model = "model.onnx" above the first table'),
        (HEAD, "", r"has no steps: write a table for each, as \[prune\]; there are prune, sparsify"),
        (HEAD + 'modell = "x"\n', "[prune]", "no key 'modell' above the first table; did you mean 'model'"),
        (HEAD, "[a]\ndo = ['prune']", r"\[a\] there is no step \['prune'\]"),
        (HEAD, "[a]\ndo = {b = 1}", r"\[a\] there is no step"),
        (HEAD + 'custom_ops = "x.so"\n', "[prune]", "custom_ops = 'x.so' is not a list of texts"),
        (HEAD, "[prun]", r"\[prun\] there is no step 'prun'; did you mean 'prune'"),
        (HEAD, '["../a"]\ndo = "prune"', r"\[\.\./a\] is no name for a step"),
        (HEAD, '[a]\ndo = "sing"', r"\[a\] there is no step 'sing'; there are prune, sparsify"),
        (HEAD, "[prune]\ntargets = 1", r"\[prune\] there is no option 'targets'; did you mean 'target'"),
        (HEAD, '[prune]\ntarget = "speed=2"', r"\[prune\] target 'speed=2': write one of"),
        (HEAD, '[prune]\nverify = "no"', r"\[prune\] verify = 'no' is not true or false"),
        (HEAD, "[prune]\nprotect = 3", r"\[prune\] protect = 3 is not a list of texts"),
        (HEAD, '[prune]\ncalib = "gone.npz"', r"\[prune\] calib = 'gone.npz': there is no .*gone.npz"),
        (HEAD, '[finetune]\nepochs = "five"\ndata = "calib.npz"', r"\[finetune\] epochs = 'five' is not a whole number"),
        (HEAD, '[train]\nsparsity = "most"\ndata = "calib.npz"', r"\[train\] sparsity = 'most' is not a number"),
        (HEAD, "[finetune]\nepochs = 5", r"\[finetune\] needs samples to train with: write data"),
        (HEAD, '[finetune]\ndata = "calib.npz"\nteacher = "me"', r"teacher = 'me': write original, none or an .onnx file"),
        (HEAD, "[quantize]\nper-tensor = true\nper-channel = true", r"\[quantize\] per-channel says again what per_channel says"),
        (HEAD, "[encode]\nencoding = 'zip'", r"\[encode\] --encoding 'zip': there are auto"),
        (HEAD, "[benchmark]\nbatch = 0", r"\[benchmark\] --batch '0': write positive numbers, comma-separated, as 1,8"),
        (HEAD + 'eval = "gone.npz"\n', "[prune]", "eval = 'gone.npz': there is no"),
        (HEAD + 'max_memory = "much"\n', "[prune]", "max_memory = 'much': write a number of bytes, as 2G or 512M"),
        (HEAD + 'mlflow = "http://me:secret@host"\n', "[prune]", "the URI has a password, which reports would show"),
        ("model", "", "not TOML"),
    ],
)
def test_what_makes_no_sense_is_named(recipe: Write, head: str, text: str, words: str) -> None:
    with pytest.raises(OptionError, match=rf"recipe\.toml: .*{words}") as caught:
        Build.load(recipe(text, head))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_are_read(path: Path) -> None:
    assert len(Build.load(path).steps) >= 3


def test_a_file_that_is_not_there_is_named(tmp_path: Path, recipe: Write) -> None:
    with pytest.raises(OptionError, match=r"gone\.toml: no such file"):
        Build.load(tmp_path / "gone.toml")
    with pytest.raises(ModelError, match="no such file"):
        run(recipe("[encode]", 'model = "gone.onnx"\noutput = "small.onnx"\n'))


# Running

CHAIN = """eval = "calib.npz"
metric = "agreement"
[prune]
target = "macs=0.7"
align = 4
[sparsify]
sparsity = 0.5
[quantize]
calib = "calib.npz"
[encode]
[benchmark]
seconds = 0.01
"""


def test_steps_follow_each_other_and_finished_ones_are_kept(recipe: Write, tmp_path: Path) -> None:
    told: list[str] = []
    path, keep = recipe(CHAIN), tmp_path / "keep"
    report = run(path, keep=keep, progress=told.append)
    assert [step["do"] for step in report["steps"]] == ["prune", "sparsify", "quantize", "encode", "benchmark"]
    assert "3/5 quantize: measuring ranges and quantising" in told
    sizes = [step["bytes"] for step in report["steps"]]
    assert sizes[0] > sizes[2] > sizes[3] == sizes[4] == (tmp_path / "small.onnx").stat().st_size == report["bytes"][1]
    assert report["steps"][0]["report"]["obtained"]["macs"] <= 0.7
    assert report["steps"][2]["report"]["zeros"][0] > 1000
    assert [row["label"] for row in report["steps"][4]["report"]["rows"]] == ["original", "result"]
    assert report["score"]["value"] == 1
    original = Model.of(DIGITS)
    samples = calibrate.open_samples(tmp_path / "calib.npz", original.inputs)
    found = Evaluation(original, samples, "agreement").of(Model.of(tmp_path / "small.onnx")).pruned
    assert report["steps"][4]["score"] == {"metric": "agreement", "value": found, "samples": 48, "notice": ""}

    first = (tmp_path / "small.onnx").read_bytes()
    with pytest.raises(OutputError, match="exists already: pass --force"):
        run(path, keep=keep)
    again = run(path, keep=keep, force=True)
    assert [step["reused"] for step in again["steps"]] == [True] * 5
    assert [step["report"] for step in again["steps"]] == [step["report"] for step in report["steps"]]
    assert (tmp_path / "small.onnx").read_bytes() == first
    (keep / "2-sparsify.onnx").write_bytes(b"half of it")
    again = run(path, keep=keep, force=True)
    assert [step["reused"] for step in again["steps"]] == [True, False, True, True, True]  # the same bytes came of it
    again = run(recipe(CHAIN.replace("[sparsify]\nsparsity = 0.5", "[sparsify]\nsparsity = 0.6")), keep=keep, force=True)
    assert [step["reused"] for step in again["steps"]] == [True, False, False, False, False]
    training_tables.built(again)


def test_training_has_the_original_for_its_teacher_and_goes_on_after_a_kill(
    recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[prune]\ntarget = "macs=0.7"\nalign = 4\n[finetune]\ndata = "calib.npz"\nepochs = 2\n'
    path, keep = recipe(text), tmp_path / "keep"
    places = []
    finetune = STEPS["finetune"].run

    def killed(place: StepInput, options: Any) -> Any:
        places.append(place)
        if len(places) == 1:
            finetune(place, options)
            raise KeyboardInterrupt
        return finetune(place, options)

    monkeypatch.setitem(cast("dict[str, Any]", STEPS), "finetune", dataclasses.replace(STEPS["finetune"], run=killed))
    with pytest.raises(KeyboardInterrupt):
        run(path, keep=keep)
    assert not (tmp_path / "small.onnx").exists()
    checkpoint = places[0].checkpoint
    assert checkpoint is not None
    assert checkpoint.exists()
    report = run(path, keep=keep)
    assert [step["reused"] for step in report["steps"]] == [True, False]
    assert places[1].checkpoint == checkpoint
    assert not checkpoint.exists()
    tuned = report["steps"][1]["report"]
    assert tuned["teacher"] == str(DIGITS)
    assert tuned["loss"] == "distill"
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"))


def test_what_a_step_or_the_gates_lack_is_told_with_file_and_step(recipe: Write) -> None:
    with pytest.raises(OptionError, match=r"recipe\.toml: \[quantize\] int8 needs the ranges of activations"):
        run(recipe("[quantize]\n"))
    with pytest.raises(OptionError, match=r"recipe\.toml: --max-drop 1% needs samples to judge by: add --eval DATA"):
        run(recipe("[prune]\n", f'{HEAD}max_drop = "1%"\n'))


def test_a_step_that_fails_leaves_no_output(recipe: Write, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(OptionError, match="add --calib DATA"):
        run(recipe("[prune]\nalign = 4\n[quantize]\n"))
    assert set(tmp_path.iterdir()) - before == {tmp_path / "recipe.toml"}


@pytest.mark.parametrize("output", ["calib.npz", "recipe.toml"])
def test_a_file_that_is_read_is_never_the_output(recipe: Write, tmp_path: Path, output: str) -> None:
    path = recipe('[prune]\ntarget = "macs=0.75"\ncalib = "calib.npz"\n', HEAD.replace("small.onnx", output))
    before = (tmp_path / output).read_bytes()
    with pytest.raises(OutputError, match="is the path of another file"):
        run(path, force=True)
    assert (tmp_path / output).read_bytes() == before


def test_an_output_that_is_there_is_replaced(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.onnx").write_bytes(b"old")
    run(recipe('[prune]\ntarget = "macs=0.75"\nverify = false\n'), force=True)
    assert 3 < Path("small.onnx").stat().st_size < DIGITS.stat().st_size


def test_the_memory_is_bounded_while_steps_are_done(recipe: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.VARIABLE, "64G")
    seen: list[int] = []

    def noted(*given: Any) -> Model:
        seen.append(memory.share(1, 2**60))
        return of(*given)

    monkeypatch.setattr(Model, "of", noted)
    run(recipe("[prune]\nalign = 4\n", HEAD + 'max_memory = "8G"\n'))
    assert set(seen[1:]) == {2**33}
    assert memory.share(1, 2**60) == 2**36


def test_functions_may_lie_beside_the_recipe(recipe: Write, tmp_path: Path) -> None:
    (tmp_path / "my_samples_of_tests.py").write_text(
        "import numpy as np\ndef images():\n    for n in range(4):\n        yield np.full((4, 1, 8, 8), n / 4, np.float32)\n"
    )
    path = list(sys.path)
    report = run(recipe('[quantize]\ncalib = "my_samples_of_tests:images"\n'))
    assert report["steps"][0]["report"]["drift"]["samples"] == 16
    assert str(tmp_path.resolve()) not in sys.path or str(tmp_path.resolve()) in path


SHADOW = "open('seen', 'w').close()\nraise ImportError('not the real one')\n"


def test_modules_beside_the_recipe_take_no_others_place(recipe: Write, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(SHADOW)
    (tmp_path / "my_samples_of_shadows.py").write_text(
        "import numpy as np\ndef images():\n    yield np.random.default_rng(0).random((16, 1, 8, 8), np.float32)\n"
    )
    for text in ('[prune]\ntarget = "macs=0.7"\n', '[quantize]\ncalib = "my_samples_of_shadows:images"\n'):
        command = [sys.executable, "-m", "onnxprune", "run", str(recipe(text)), "--force"]
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path / "elsewhere", env=env)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "elsewhere" / "seen").exists()


def test_a_step_is_done_again_when_its_samples_or_its_function_change(recipe: Write, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder, module, keep = tmp_path / "samples", tmp_path / "my_samples_that_change.py", tmp_path / "keep"
    folder.mkdir()

    def change(number: int) -> None:
        np.savez(folder / "0.npz", image=rng.random((16 + number, 1, 8, 8), np.float32))
        module.write_text(
            f"import numpy as np\ndef f():\n    yield np.random.default_rng({number}).random((16, 1, 8, 8), np.float32)\n"
        )

    for calib in ("samples", "my_samples_that_change:f"):
        reused: list[bool] = []
        path = recipe(f'[quantize]\ncalib = "{calib}"\n')
        for number in (0, 0, 10):
            if number or not reused:
                change(number)
            reused.append(run(path, keep=keep, force=True)["steps"][0]["reused"])
        assert reused == [False, True, False]


def test_the_command(recipe: Write, tmp_path: Path) -> None:
    def call(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "onnxprune", "run", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    path = recipe('[prune]\ntarget = "macs=0.7"\nalign = 4\n[quantize]\ncalib = "calib.npz"\n')
    dry = call(path, "--dry-run", "--json")
    assert json.loads(dry.stdout)["steps"][0] == {"name": "prune", "do": "prune", "options": {"target": "macs=0.7", "align": 4}}
    assert not (tmp_path / "small.onnx").exists()
    assert "2  quantize  quantize" in call(path, "--dry-run").stdout
    done = call(path, "--json", "-o", tmp_path / "other.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["bytes"][1] == (tmp_path / "other.onnx").stat().st_size
    wrong = call(recipe("[prune]\nalgin = 4"))
    assert wrong.returncode == 2
    assert wrong.stderr == f"onnxprune: {path}: [prune] there is no option 'algin'; did you mean 'align'?\n"
