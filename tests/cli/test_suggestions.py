"""Every command that is suggested works when it is pasted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from command import Cli, net
from onnxprune.cli.suggestions import MOST, Suggestions, keep_more, program


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "my calib.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32))
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["prune", "MODEL", "-o", "OUT", "--no-benchmark"],
        ["prune", "MODEL", "-o", "OUT", "--no-benchmark", "--calib", "DATA"],
        ["sparsify", "MODEL", "-o", "OUT", "--ends"],
        ["sparsify", "MODEL", "-o", "OUT", "--ends", "--calib", "DATA"],
        ["quantize", "MODEL", "-o", "OUT", "--calib", "DATA"],
        ["encode", "MODEL", "-o", "OUT"],
        ["decode", "MODEL", "-o", "OUT"],
        ["plan", "MODEL", "-o", "OUT"],
    ],
)
def test_what_is_suggested_works(
    command: list[str], call: Cli, model: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"MODEL": model, "OUT": tmp_path / "out put.onnx", "DATA": samples}
    done = call(*(named.get(word, word) for word in command), "--json")
    assert done.status == 0, done.err
    suggested = done.json()["next"]
    assert 1 <= len(suggested) <= MOST
    for line in suggested:
        words = shlex.split(line)
        assert words[0] == "onnxprune"
        if words[1] in {"benchmark", "finetune"}:  # slow
            assert all(Path(word).is_file() for word in words[2:4] if word.endswith("onnx"))
            continue
        again = call(*words[1:])
        assert again.status == 0, (line, again.err)


def test_where_samples_are_given_they_are_used_again(call: Cli, model: Path, samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    done = call("prune", model, "-o", out, "--no-benchmark", "--calib", samples, "--json")
    first = shlex.split(done.json()["next"][0])
    assert first[1:] == ["quantize", str(out), "-o", str(tmp_path / "o-int8.onnx"), "--calib", str(samples)]


def test_the_command_is_repeated_with_other_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["prune", "a b.onnx", "-o", "o.onnx", "--target", "macs=0.5", "--seed=1"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/onnxprune", *given])
    found = Suggestions(Path("a b.onnx")).again("--target", "macs=0.75", without=("--target",)).commands
    assert found == ["onnxprune prune 'a b.onnx' -o o.onnx --seed=1 --target macs=0.75 --force"]
    monkeypatch.setattr(sys, "argv", ["/x/onnxprune/__main__.py"])
    assert program() == "python -m onnxprune"


def test_noise_stands_in_for_floats_alone() -> None:
    floats, ids = net(), net()
    ids.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    from onnxprune.ir.model import Model

    assert any("--calib noise" in one for one in Suggestions(Path("m.onnx")).samples(Model.of(floats), noise=True).commands)
    assert not any("--calib noise" in one for one in Suggestions(Path("m.onnx")).samples(Model.of(ids), noise=True).commands)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "o-int8.onnx").touch()
    assert Suggestions(tmp_path / "m.onnx", tmp_path / "o.onnx").fresh("int8") == tmp_path / "o-int8-2.onnx"


@pytest.mark.parametrize(("calib", "words"), [("", "--calib DATA"), ("c.npz", "with a larger --target"), ("noise", "larger")])
def test_the_remedy_depends_on_what_was_given(calib: str, words: str) -> None:
    assert words in keep_more(calib, "a larger --target")
