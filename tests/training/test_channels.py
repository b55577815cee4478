"""Training that removes channels: the target holds, the penalty makes channels dispensable, and a killed run ends alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import OptionError, TargetError
from onnxprune.axes.plan import Plan
from onnxprune.driver import prune
from onnxprune.driver.apply import carry_out
from onnxprune.driver.result import Pruned
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.options.registries import TRAININGS
from onnxprune.options.train import Sparse, Training, methods
from onnxprune.runtime import session
from onnxprune.training import channels
from onnxprune.training.channels import train_channels
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.session import TrainedModel
from trainable import Dying, KilledError, in_two_processes, perceptron

X = np.random.default_rng(1).normal(size=(192, 6)).astype(np.float32)
DATA = {"x": X}
LABELLED = {"x": X, "label": np.abs(X[:, :3]).argmax(1)}
FAST = Training(epochs=4, batch=32, lr=0.01)
HALF = Sparse("oneshot", target="macs=0.5", align="1")


SURGICAL = [name for name, entry in TRAININGS.items() if entry.value.surgical]


def macs(source: Any) -> int:
    found = prune.describe(prune.analyze(source))
    return int(found["cost"]["macs"])


@pytest.mark.parametrize("method", SURGICAL)
@pytest.mark.parametrize("target", ["macs=0.5", "params=0.4"])
def test_the_target_holds_and_what_is_left_learns_what_the_original_does(method: str, target: str) -> None:
    start, options = perceptron(24), replace(FAST, loss="mse", metric="mse", epochs=12)
    recipe = replace(HALF, method=method, target=target)
    result = train_channels(start, TrainingInputs(DATA, evaluation=DATA), recipe, options)
    report, (metric, fraction) = result.report, target.split("=")
    assert float(fraction) - 0.06 <= report["obtained"][metric] <= float(fraction)
    assert macs(result.compiled) == report["stages"][-1]["macs"] == round(report["obtained"]["macs"] * macs(start))
    names = [row["stage"] for row in report["stages"]]
    assert names[0] == "original"
    assert report["stages"][0]["score"] == report["score"]["original"] == report["score"]["before"] == 1
    assert names[-1].startswith("finetune")
    assert report["stages"][-2]["score"] < report["stages"][-1]["score"] == report["score"]["after"]
    assert report["score"]["after"] > 0.9
    assert ("group_sl" in names) == (method == "group_sl")
    rounds = [row["macs"] for row in report["stages"] if row["stage"].startswith("prune ")]
    assert len(rounds) == (0 if method != "iterative" else 4 if metric == "macs" else 5)
    assert rounds == sorted(set(rounds), reverse=True)  # each round takes something
    assert all(row["verification"]["ok"] for row in report["stages"] if row["stage"].startswith("prune"))


@pytest.mark.parametrize("method", sorted({*methods(channels=True)} - {*SURGICAL}))
def test_every_recipe_of_sparsity_removes_channels(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained under masks is what is left when they are cut out."""
    masked: list[Model] = []

    def carried_out(source: Model, chosen: Plan, recipe: Recipe, *, compare: bool) -> Pruned:
        masked.append(source)
        return carry_out(source, chosen, recipe, compare=compare)

    monkeypatch.setattr(channels, "carry_out", carried_out)
    rounds = 2 if "rewinding" in method or method == "lottery" else 0
    recipe = replace(HALF, method=method, rounds=rounds)
    result = train_channels(
        perceptron(24), TrainingInputs(DATA, evaluation=DATA), recipe, replace(FAST, loss="mse", metric="mse")
    )
    report = result.report
    assert 0.4 <= report["obtained"]["macs"] <= 0.5
    assert macs(result.compiled) == report["stages"][-1]["macs"] == round(report["obtained"]["macs"] * macs(perceptron(24)))
    assert [row["stage"] for row in report["stages"]] == ["original", method]
    assert report["stages"][-1]["verification"]["ok"]
    y, expected = (session.Session(model).run({"x": X})[0] for model in (result.compiled, masked[0]))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert all(weight.array().all() for weight in result.compiled.weights.values() if len(weight.shape) > 1)


def test_masks_that_grow_keep_what_learns_what_the_original_does() -> None:
    report = train_channels(perceptron(24), TrainingInputs(DATA, evaluation=DATA), replace(HALF, method="gradual"),
                   replace(FAST, loss="mse", metric="mse", epochs=24)).report  # fmt: skip
    assert report["score"]["after"] > 0.9


def test_rounds_leave_the_same_fraction_each() -> None:
    report = train_channels(perceptron(24), TrainingInputs(DATA), replace(HALF, method="iterative", rounds=3), FAST).report
    assert (report["loss"], report["score"]) == ("distill", None)
    rows = [row["macs"] / report["stages"][0]["macs"] for row in report["stages"] if row["stage"].startswith("prune")]
    assert rows == pytest.approx([0.5 ** (turn / 3) for turn in (1, 2, 3)], abs=0.03)


def test_after_group_sparsity_channels_can_be_cut_without_repair() -> None:
    """The weak channels of each group are next to nothing, so that cutting them is next to no change."""
    start, long = perceptron(24), replace(FAST, epochs=30)
    cut = Recipe(target="macs=0.5", criterion="l2", align="1")
    errors = {}
    for penalty in (0.0, 1.0):
        recipe = replace(HALF, method="group_sl", penalty=penalty, target="macs=1")
        learnt = train_channels(start, TrainingInputs(DATA), recipe, long).compiled
        drift = prune.prune(learnt, cut, agreement=True).report.drift
        assert drift is not None
        errors[penalty] = drift.relative
    assert errors[1.0] < 0.5 * errors[0.0]


def test_labels_are_used_where_they_are_asked_for() -> None:
    report = train_channels(
        perceptron(24), TrainingInputs(LABELLED, evaluation=LABELLED), HALF, replace(FAST, loss="cross_entropy", epochs=16)
    ).report
    assert (report["loss"], report["score"]["metric"]) == ("cross_entropy", "top1")
    assert report["score"]["after"] > report["score"]["original"] + 0.2  # the original is nothing but noise


def test_protected_layers_keep_their_width() -> None:
    model = train_channels(perceptron(24), TrainingInputs(DATA), replace(HALF, protect=("u",), target="macs=0.8"), FAST).compiled
    assert model.weights["u"].shape == (6, 24)
    assert model.weights["w"].shape[0] < 24


def test_the_source_stays_and_sees_no_change() -> None:
    start = Model.of(perceptron(24))
    before = {name: weight.array().copy() for name, weight in start.weights.items()}
    train_channels(start, TrainingInputs(DATA), HALF, FAST)
    assert all(np.array_equal(array, start.weights[name].array()) for name, array in before.items())


def _bytes(done: TrainedModel) -> bytes:
    return bytes(done.compiled.to_proto().SerializeToString())


@pytest.mark.parametrize("method", ["group_sl", "iterative", "gradual"])
def test_killed_anywhere_it_ends_at_the_same_bytes(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(HALF, method=method, rounds=2 * (method == "iterative"))
    options = replace(FAST, epochs=5 if method == "gradual" else 2, batch=64)  # that has one training, the others two
    inputs = TrainingInputs(DATA, evaluation=DATA)
    whole = train_channels(perceptron(24), inputs, recipe, options)
    inputs = replace(inputs, resume=tmp_path / "c")
    kills, again = 0, None
    monkeypatch.setattr("onnxprune.training.inputs.Checkpoint", Dying)
    while again is None:
        Dying.left = 3  # saves at each step, epoch and stage; the next run gets two further
        try:
            again = train_channels(perceptron(24), inputs, recipe, options)
        except KilledError:
            kills += 1
    assert kills >= 6
    assert _bytes(again) == _bytes(whole)
    told = [{**row, "seconds": 0} for row in again.report["stages"]]
    assert told == [{**row, "seconds": 0} for row in whole.report["stages"]]
    assert len(again.report["epochs"]) == len(whole.report["epochs"])
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    inputs = TrainingInputs(DATA, resume=tmp_path / "c")
    once = train_channels(perceptron(24), inputs, HALF, FAST)
    told: list[str] = []
    assert _bytes(train_channels(perceptron(24), inputs, HALF, FAST, progress=told.append)) == _bytes(once)
    assert not any("epoch" in text or "cutting" in text for text in told)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": replace(HALF, target="macs=0.4")}, "was written with run"),
        ({"options": replace(FAST, lr=0.1)}, "was written with --lr 0.01, not 0.1"),
        ({"source": perceptron(24, 1)}, "was written with model"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {
        "source": perceptron(24),
        "inputs": TrainingInputs(DATA, resume=tmp_path / "c"),
        "recipe": HALF,
        "options": FAST,
    }
    train_channels(**given)
    with pytest.raises(OptionError, match=said):
        train_channels(**(given | change))


def test_logs_for_tensorboard_by_stage(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    train_channels(
        perceptron(24), TrainingInputs(DATA, log=tmp_path), replace(HALF, method="iterative", rounds=2), replace(FAST, epochs=1)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finetune 1 of 2", "finetune 2 of 2"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sparsity": 0.8}, "--sparsity 0.8 is for zeros in weights, --target macs=0.5 for channels: give one of them"),
        ({"sparsity": 0.0}, "--sparsity 0.0 is for zeros"),
        ({"pattern": "2:4"}, "--pattern 2:4 is for zeros"),
        ({"start": "random"}, "--start random is for zeros"),
        (
            {"method": "movement", "criterion": "l2"},
            "--criterion l2 is for --method oneshot, iterative, group_sl: movement",
        ),
        ({"method": "movement", "scope": "sensitivity"}, "--scope sensitivity is for --method oneshot, iterative, group_sl"),
        ({"method": "movement", "target": "latency=0.5"}, "--target latency=0.5 is for --method oneshot, iterative, group_sl"),
        ({"method": "movement", "allocation": "erk"}, "--allocation erk is for zeros"),
        ({"method": "magic"}, "--method 'magic': write one of oneshot, iterative, group_sl, gradual"),
        ({"target": ""}, "--method group_sl removes channels: say what remains, as --target macs=0.5"),
        ({"target": "", "method": "iterative", "align": "4"}, "--align 4: is for channels: add --target"),
        ({"target": "", "method": "iterative", "pattern": "channels"}, "--pattern channels: say what remains instead"),
        ({"target": "flops=0.5"}, "target 'flops=0.5': write one of latency=0.5"),
        ({"target": "macs=2"}, "give the fraction that remains"),
        ({"criterion": "best"}, "there is no criterion 'best'"),
        ({"align": "x"}, "align 'x'"),
        ({"penalty": -1.0}, "--penalty -1.0: write 0 or a positive number"),
    ],
)
def test_options_that_do_not_go_together_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        train_channels(
            perceptron(24), TrainingInputs(DATA), Sparse(**{"method": "group_sl", "target": "macs=0.5", **values}), FAST
        )


def test_what_cannot_be_reached_is_said_before_anything_is_trained() -> None:
    told: list[str] = []
    with pytest.raises(TargetError, match=r"target macs=0.01 cannot be reached"):
        train_channels(
            perceptron(24), TrainingInputs(DATA), replace(HALF, method="group_sl", target="macs=0.01"), FAST, progress=told.append
        )
    assert not any("epoch" in text for text in told)


def test_defaults_follow_from_the_target() -> None:
    assert (Sparse().method, Sparse().sparsity) == ("gradual", 0.8)
    assert (Sparse(target="macs=0.5").method, Sparse(target="macs=0.5").sparsity) == ("iterative", None)


def test_two_processes_remove_the_same_channels(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    onnx.save(perceptron(24), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=X)
    report = in_two_processes(
        *("train", "m.onnx", "--data", "d.npz", "--eval", "d.npz", "--method", "group_sl", "--target", "macs=0.5", "--align", 1),
        *("--epochs", 2, "--batch", 32, "-o", "o.onnx", "--resume", "c"),
        cwd=tmp_path,
    )
    assert (report["processes"], report["steps_per_epoch"]) == (2, 3)
    assert [row["stage"] for row in report["stages"]] == ["original", "group_sl", "prune", "finetune"]
    assert macs(tmp_path / "o.onnx") == report["stages"][-1]["macs"] <= 0.5 * macs(tmp_path / "m.onnx")
