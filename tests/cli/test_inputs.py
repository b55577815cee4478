"""Options that several commands share: values that make no sense, where output goes, and samples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from command import ENV, PATIENCE, Cli, external, names, net, refused


@pytest.mark.parametrize("target", ["macs=1.7", "foo=1", "macs=", "macs=abc", "macs=0", "macs=nan", "macs=-1", "macs", ""])
def test_a_bad_target_is_refused(call: Cli, model: Path, target: str) -> None:
    refused(call("prune", model, "-o", model.parent / "out.onnx", "--target", target), 2, repr(target), "macs=0.5")
    assert names(model.parent) == {"net.onnx"}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--align", "0", ("align '0'", "write auto, 1 or")),
        ("--align", "-1", ("align '-1'",)),
        ("--align", "x", ("align 'x'",)),
        ("--criterion", "foo", ("'foo'", "l1, l2")),
        ("--criterion", "bn_scale", ("BatchNormalization", "--criterion l2")),
        ("--scope", "foo", ("'foo'", "isomorphic")),
    ],
)
def test_a_bad_option_is_refused(call: Cli, model: Path, option: str, value: str, words: tuple[str, ...]) -> None:
    refused(call("prune", model, "-o", model.parent / "out.onnx", option, value), 2, *words)
    assert names(model.parent) == {"net.onnx"}


# Outputs.


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nodir/out.onnx", ("no folder", "create it")),
        ("net.onnx/out.onnx", ("is a file, not a folder",)),
        (".", ("is a folder", "name a file in it")),
        ("old.onnx", ("exists already", "--force")),
        ("dangling.onnx", ("is a symbolic link", "write to another")),
        ("x" * 300, ("cannot be written",)),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, output: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(model.parent)
    Path("old.onnx").write_text("mine")
    Path("dangling.onnx").symlink_to("nowhere")
    before = names(model.parent)
    for command in (["prune", "absent.onnx"], ["plan", "absent.onnx"], ["apply", "absent.onnx", "absent.json"]):
        refused(call(*command, "-o", output), 2, output.removesuffix("."), *words)
    refused(call("prune", "net.onnx", "-o", "new.onnx", "--plan-out", output), 2, *words)
    assert names(model.parent) == before
    assert Path("old.onnx").read_text() == "mine"


@pytest.mark.parametrize("output", ["net.onnx", "./net.onnx", "link.onnx", "hard.onnx", "../{}/net.onnx"])
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_an_input_is_never_overwritten(
    call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, output: str, force: tuple[str, ...]
) -> None:
    monkeypatch.chdir(model.parent)
    Path("link.onnx").symlink_to("net.onnx")
    Path("hard.onnx").hardlink_to("net.onnx")
    before = model.read_bytes()
    refused(call("prune", "net.onnx", "-o", output.format(model.parent.name), *force), 2, "write to another")
    refused(call("prune", "link.onnx", "-o", "net.onnx", *force), 2, "write to another")
    refused(call("prune", "net.onnx", "-o", "a", "--plan-out", "a", *force), 2, "write to another")
    refused(call("prune", "net.onnx", "-o", "a", "--plan-out", model.parent / "a", *force), 2, "write to another")
    refused(call("apply", "absent.onnx", "net.onnx", "-o", "net.onnx", *force), 2, "write to another")
    assert model.read_bytes() == before
    assert names(model.parent) == {"net.onnx", "link.onnx", "hard.onnx"}


def test_the_weights_of_an_input_are_never_overwritten(call: Cli, tmp_path: Path) -> None:
    path = external(tmp_path / "model.onnx")
    data = path.with_suffix(".bin")
    before = data.read_bytes()
    refused(call("prune", path, "-o", data, "--force"), 2, data, "holds weights of an input")
    assert data.read_bytes() == before


def test_force_replaces_an_old_output(call: Cli, model: Path) -> None:
    out = model.parent / "out.onnx"
    out.write_text("old")
    assert call("prune", model, "-o", out, "--force", "--no-benchmark", "--no-verify").status == 0
    assert len(onnx.load(out).graph.node) == 3


# Samples.


def samples(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"x": np.zeros(shape, dtype)}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros(4), "z": np.zeros((4, 3, 8, 8), np.float32)}, ("no array for input 'x'", "it has y, z")),
        ({}, ("no array for input 'x'", "it has none")),
        (samples(4, 3, 8, 9), ("'x'", "[4, 3, 8, 9]", "[samples, 3, 8, 8]")),
        (samples(4), ("'x'", "[4]", "[samples, 3, 8, 8]")),
        (samples(), ("'x'", "[]")),
        (samples(0, 3, 8, 8), ("'x'", "0 samples")),
        (samples(4, 3, 8, 8, dtype="complex64"), ("complex64", "float32")),
        ({"x": np.array([{}], object)}, ("not an .npz", "numpy.savez")),
    ],
)
def test_samples_that_do_not_fit_are_refused(call: Cli, model: Path, arrays: dict[str, Any], words: tuple[str, ...]) -> None:
    path = model.parent / "samples.npz"
    np.savez(path, **arrays)
    refused(call("prune", model, "-o", model.parent / "out.onnx", "--calib", path), 2, f"--calib {path}", *words)
    assert names(model.parent) == {"net.onnx", "samples.npz"}


def test_too_few_samples_for_a_fixed_batch_are_refused(call: Cli, tmp_path: Path) -> None:
    onnx.save(net(batch=8), tmp_path / "net.onnx")
    np.savez(tmp_path / "samples.npz", **samples(7, 3, 8, 8))
    done = call("prune", tmp_path / "net.onnx", "-o", tmp_path / "out.onnx", "--calib", tmp_path / "samples.npz")
    refused(done, 2, "7 samples", "8 at a time")


def test_a_file_that_holds_no_samples_is_refused(call: Cli, model: Path) -> None:
    text, array = model.parent / "text.npz", model.parent / "array.npy"
    for path in (text, array):
        path.write_text("no")
        refused(call("prune", model, "-o", model.parent / "out.onnx", "--calib", path), 2, path, f"not an {path.suffix}")
    absent, empty = model.parent / "absent.npz", model.parent / "empty"
    empty.mkdir()
    refused(call("prune", model, "-o", model.parent / "out.onnx", "--calib", absent), 2, absent, "no such file")
    refused(call("prune", model, "-o", model.parent / "out.onnx", "--calib", empty), 2, empty, "neither images", "nor .npz")


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_samples_of_a_near_type_are_converted(call: Cli, model: Path, dtype: str) -> None:
    path = model.parent / "samples.npz"
    np.savez(path, x=(np.arange(3840) % 251).astype(dtype).reshape(20, 3, 8, 8), unused=np.zeros(3))
    done = call("prune", model, "-o", model.parent / "out.onnx", "--calib", path, "--no-benchmark", "--json")
    assert done.status == 0
    assert done.json()["drift"]["samples"] == 20


def test_images_are_preprocessed(call: Cli, model: Path) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).save(model.parent / f"{number}.png")
    arguments = ("prune", model, "-o", model.parent / "out.onnx", "--no-benchmark", "--calib", model.parent)
    drift = call(*arguments, "--json", "--preprocess", "imagenet,std=1").json()["drift"]
    told = "resize=9,crop=8,mean=0.485/0.456/0.406,scale=255"
    assert (drift["samples"], drift["source"]) == (3, f"--calib {model.parent} ({told}), too few to hold any out")
    refused(call(*arguments, "--force", "--preprocess", "imagnet"), 2, "--preprocess imagnet: there is no 'imagnet'")


def test_preprocessing_is_of_images(call: Cli, model: Path) -> None:
    np.savez(model.parent / "samples.npz", **samples(4, 3, 8, 8))
    arguments = ("prune", model, "-o", model.parent / "out.onnx", "--preprocess", "unit")
    refused(call(*arguments), 2, "--preprocess unit: is for the images of --calib")
    refused(call(*arguments, "--calib", model.parent / "samples.npz"), 2, "--preprocess unit: is for a folder of images")


def test_a_function_of_the_working_directory(model: Path) -> None:
    (model.parent / "mine.py").write_text(
        "import numpy as np\ndef data():\n    yield from np.arange(960.0).reshape(5, 3, 8, 8)\n"
    )
    command = [sys.executable, "-P", "-m", "onnxprune", "prune", model.name, "-o", "out.onnx", "--calib", "mine:data", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENV, cwd=model.parent, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    drift = json.loads(done.stdout)["drift"]
    assert (drift["samples"], drift["source"]) == (5, "--calib mine:data, too few to hold any out")
