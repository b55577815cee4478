"""Gates of recipe files: of each step, and above the first table for what comes of all; and the screen says what was lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from command import complaints, names, net, refused, within
from onnxprune import OptionError
from onnxprune.pipeline.run import Build

HEAD = 'model = "net.onnx"\noutput = "o.onnx"\neval = "c.npz"\nmetric = "cosine"\n'
PRUNE = '[prune]\ntarget = "channels=0.25"\nalign = "1"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(net(), tmp_path / "net.onnx")
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + 'min_score = "0.99"\n' + PRUNE, "below --min-score 0.99"),
        (HEAD + 'max_drop = "1%"\n' + PRUNE, "by more than --max-drop 1%"),
        (HEAD + 'min_agreement = "99%"\n' + PRUNE, "below --min-agreement 99%"),
        (HEAD + PRUNE + 'eval = "c.npz"\nmetric = "cosine"\nmin_score = "0.99"\n', "below --min-score 0.99"),
        (
            HEAD + PRUNE + 'calib = "c.npz"\nmin_agreement = "100%"\n',
            "held out) have the original's answer, below --min-agreement 100%",
        ),
    ],
)
def test_what_is_not_good_enough_is_not_written(text: str, words: str, folder: Path) -> None:
    (folder / "r.toml").write_text(text)
    before = names(folder)
    refused(within("run", "r.toml", cwd=folder), 1, "net.onnx", words, "nothing was written")
    assert names(folder) == before


def test_a_gate_without_sense_is_named(folder: Path) -> None:
    (folder / "r.toml").write_text(HEAD + 'min_score = "much"\n' + PRUNE)
    with pytest.raises(OptionError, match=r"r\.toml: --min-score 'much': write the least score"):
        Build.load(folder / "r.toml")


def test_gates_need_samples(folder: Path) -> None:
    (folder / "r.toml").write_text(HEAD.replace('eval = "c.npz"\n', "") + 'min_agreement = "90%"\n' + PRUNE)
    refused(within("run", "r.toml", cwd=folder), 2, "--min-agreement 90% needs samples to judge by")


def test_the_screen_says_what_was_lost(folder: Path) -> None:
    (folder / "r.toml").write_text(HEAD + PRUNE)
    done = within("run", "r.toml", cwd=folder)
    assert (done.status, complaints(done)) == (0, "")
    assert "cosine" in done.out.splitlines()[2]
    assert "max_drop" in done.out
    assert "next: onnxprune benchmark" in done.out
    told = json.loads(within("run", "r.toml", "--force", "--json", cwd=folder).out)
    assert told["judgement"]["level"] in {"worse", "collapsed"}


def test_without_any_samples_it_says_so_and_what_noise_shows(folder: Path) -> None:
    (folder / "r.toml").write_text(HEAD.replace('eval = "c.npz"\n', "").replace('metric = "cosine"\n', "") + PRUNE)
    told = json.loads(within("run", "r.toml", "--json", cwd=folder).out)["judgement"]
    assert told["level"] in {"unknown", "collapsed"}
    assert told["drift"]["source"] == "seeded noise"


def test_without_eval_the_samples_of_a_step_judge(folder: Path) -> None:
    (folder / "r.toml").write_text(HEAD.replace('eval = "c.npz"\n', "") + PRUNE + 'calib = "c.npz"\n')
    told = json.loads(within("run", "r.toml", "--json", cwd=folder).out)
    assert told["judgement"]["drift"]["samples"] == 8
    assert told["judgement"]["drift"]["source"].endswith("c.npz, held out")
