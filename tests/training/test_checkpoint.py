"""Checkpoints are whole or absent, and belong to one run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from onnxprune import OptionError
from onnxprune.training.checkpoint import Checkpoint


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    one = Checkpoint(tmp_path / "a", {"--lr": 0.1, "--match": []})
    assert one.load() is None
    one.save({"w": torch.arange(3), "best": (0.5, {"w": torch.ones(1)}), "none": None})
    one.save({"w": torch.arange(4), "none": None})
    found = Checkpoint(tmp_path / "a", {"--lr": 0.1, "--match": []}).load()
    assert found is not None
    assert torch.equal(found["w"], torch.arange(4))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_another_run_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "a", {"--lr": 0.1}).save({})
    with pytest.raises(OptionError, match=r"was written with --lr 0\.1, not 0\.2: repeat the command"):
        Checkpoint(tmp_path / "a", {"--lr": 0.2}).load()


def test_other_files_are_refused_and_run_no_code(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no checkpoint")
    with pytest.raises(OptionError, match="is no checkpoint of onnxprune"):
        Checkpoint(tmp_path / "a", {}).load()
    (tmp_path / "b").write_bytes(pickle.dumps(_Evil(tmp_path / "ran")))
    with pytest.raises(OptionError, match="is no checkpoint"):
        Checkpoint(tmp_path / "b", {}).load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"format": 2},
        {"format": 2, "run": [], "beside": {}, "state": {}},
        {"format": 2, "run": {}, "beside": [1], "state": {}},
        {"format": 2, "run": {}, "beside": {}, "state": [1]},
        {"format": 2, "run": {}, "beside": {}, "state": "text"},
        {"format": 2, "run": {"--epochs": torch.ones(8)}, "beside": {}, "state": {}},
        {"format": 2, "run": {"--epochs": [{"of": (torch.ones(8),)}]}, "beside": {}, "state": {}},
        {"format": torch.ones(8), "run": {}, "beside": {}, "state": {}},
    ],
)
def test_a_checkpoint_of_another_form_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a")
    with pytest.raises(OptionError, match=r"--resume .*a: is (no checkpoint of onnxprune|damaged)"):
        Checkpoint(tmp_path / "a", {"--epochs": 1}).load()


@pytest.mark.parametrize("cut", [0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "a"
    Checkpoint(path, {}).save({"w": torch.arange(1000)})
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(OptionError, match="is no checkpoint of onnxprune"):
        Checkpoint(path, {}).load()


def test_what_does_not_fit_is_damage(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "a", {})
    for error in (KeyError("phase"), TypeError(), ValueError(), RuntimeError(), OverflowError()):
        with pytest.raises(OptionError, match=r"a: is damaged: delete it to begin anew"), checkpoint.taken():
            raise error


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_checkpoints_are_due_after_a_while(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "a", {}, every=0).due
    assert not Checkpoint(tmp_path / "a", {}, every=60).due


def test_a_run_of_several_trainings_is_kept_beside_them(tmp_path: Path) -> None:
    one = Checkpoint(tmp_path / "a", {"--lr": 0.1})
    one.beside = {"number": 2, "model": b"\x00bytes", "rows": [{"score": None}]}
    one.save({"w": torch.arange(3)})
    again = Checkpoint(tmp_path / "a", {"--lr": 0.1})
    assert again.load() is not None
    assert again.beside == one.beside
    again.save({})
    fresh = Checkpoint(tmp_path / "a", {"--lr": 0.1})
    assert fresh.load() is None  # no training has begun
    assert fresh.beside == one.beside
