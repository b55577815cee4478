"""The loop: it learns, keeps what scores best, stops in time, and goes on after an interruption as if nothing had been."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnxprune.data.batching import Batch
from onnxprune.errors import OptionError
from onnxprune.options.train import Training
from onnxprune.torch import to_module
from onnxprune.torch.module import GraphModule
from onnxprune.training import masks
from onnxprune.training.checkpoint import Checkpoint
from onnxprune.training.data import TrainingData
from onnxprune.training.devices import find_devices
from onnxprune.training.phase import Phase
from onnxprune.training.trainer import Callbacks, Trainer
from trainable import Dying, KilledError, filled

NET = """(float[N,4] x) => (float[N,3] y) <float r = {0.2}, bool t = {1}>
    { h = MatMul(x, w) a = Relu(h) d = Dropout(a, r, t) y = MatMul(d, v) }"""
X = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
LABELS = X[:, :3].argmax(1)


def trainer(
    options: Training, *, checkpoint: Checkpoint | None = None, score: Any = None, log: Any = None, augment: Any = None
) -> Trainer:
    proto = filled(NET, w=(4, 8), v=(8, 3))
    module = to_module(proto)
    masks.apply_masks(module, {"w": torch.arange(32).reshape(4, 8) % 3 > 0})
    data = TrainingData({"x": X, "label": LABELS}, proto.graph.input, batch=8, seed=options.seed)
    settled = options.settled(teacher=False, labelled=True)
    callbacks = Callbacks(score=score, log=log)
    return Trainer(module, data, settled, find_devices("cpu"), augment=augment, callbacks=callbacks, checkpoint=checkpoint)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_it_learns_under_a_mask(optimizer: str) -> None:
    run = trainer(Training(epochs=8, optimizer=optimizer, lr=0.02, weight_decay=0.01, clip=5))
    run.run([Phase("fit", 8)])
    assert run.state.epochs[-1].loss < run.state.epochs[0].loss * 0.9
    assert torch.equal(run.module.value_of("w") != 0, masks.masks_of(run.module)["w"])
    assert not run.module.training


@pytest.mark.parametrize(("sized", "lr", "far"), [(True, 0.0, False), (True, 0.01, True), (False, 0.0, True)])
def test_sgd_at_its_own_rate_goes_no_further_than_that(sized: bool, lr: float, far: bool) -> None:
    """Gradients of what is a hundred times as large would carry weights away; who gives a rate has said how far to go."""
    run = trainer(Training(epochs=1, optimizer="sgd", lr=lr, momentum=0.0, warmup=0.0))
    before = {name: one * 100 for name, one in weights(run.module).items()}
    run.module.load_state_dict({name: one * 100 for name, one in run.module.state_dict().items()})
    run.run([Phase("fit", 1, sized=sized)])
    moved = math.sqrt(sum(float((one - before[name]).square().sum()) for name, one in weights(run.module).items()))
    assert (moved > 5 * 0.01 * 1.01) is far  # five batches


def test_it_trains_on_what_augmentation_makes_of_the_samples() -> None:
    calls = []

    def nothing(batches: Iterable[Batch], epoch: int, skip: int) -> Iterator[Batch]:
        calls.append((epoch, skip))
        return (Batch({"x": 0 * batch.feeds["x"]}, batch.labels, batch.size) for batch in batches)

    run = trainer(Training(epochs=2), augment=nothing)
    before = weights(run.module)
    run.run([Phase("fit", 2), Phase("again", 1)])
    assert calls == [(0, 0), (1, 0), (1000, 0)]
    assert all(torch.equal(before[name], one) for name, one in weights(run.module).items())  # there was nothing to learn from


def weights(module: GraphModule) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in module.weights().items()}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_killed_anywhere_it_ends_at_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    options = Training(epochs=2, optimizer=optimizer, seed=3)
    phases = [Phase("one", 2, snapshot=1), Phase("two", 1)]
    whole = trainer(options)
    whole.run(phases)
    deaths = 0
    for step in range(1, 19):  # every step, and every end of an epoch
        path = tmp_path / f"{step}.ckpt"
        Dying.left = step
        with pytest.raises(KilledError):
            trainer(options, checkpoint=Dying(path, {"a": 1})).run(phases)
        deaths += 1
        again = trainer(options, checkpoint=Checkpoint(path, {"a": 1}))
        again.run(phases)
        for name, weight in weights(whole.module).items():
            assert torch.equal(weight, weights(again.module)[name]), step
        assert [(e.phase, e.number, e.loss) for e in again.state.epochs] == [
            (e.phase, e.number, e.loss) for e in whole.state.epochs
        ]
        assert again.state.snapshots.keys() == whole.state.snapshots.keys()
        assert all(torch.equal(again.state.snapshots[name], one) for name, one in whole.state.snapshots.items())
    assert deaths == 18


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("phase", -1),
        ("phase", 99),
        ("phase", "one"),
        ("epoch", [1]),
        ("step", 10**30),
        ("step", None),
        ("loss", math.nan),
        ("loss", "high"),
        ("module", [1]),
        ("module", {}),
        ("optimizer", [1]),
        ("optimizer", {}),
        ("random", {}),
        ("random", {"cpu": torch.zeros(3)}),
        ("best", 1.0),
        ("best", ("high", {})),
        ("stale", -1),
        ("epochs", [1]),
        ("epochs", [(1, 2)]),
    ],
)
def test_a_checkpoint_with_nonsense_is_damaged(tmp_path: Path, part: str, value: object) -> None:
    path, phases = tmp_path / "a.ckpt", [Phase("one", 2)]
    Dying.left = 2
    with pytest.raises(KilledError):
        trainer(Training(seed=3), checkpoint=Dying(path, {"a": 1})).run(phases)
    content = torch.load(path, weights_only=True)
    content["state"][part] = value
    torch.save(content, path)
    with pytest.raises(OptionError, match=r"--resume .*a\.ckpt: is damaged: delete it to begin anew"):
        trainer(Training(seed=3), checkpoint=Checkpoint(path, {"a": 1})).run(phases)


def test_another_seed_ends_elsewhere() -> None:
    found = []
    for seed in (0, 1):
        run = trainer(Training(epochs=1, seed=seed))
        run.run([Phase("fit", 1)])
        found.append(run.module.value_of("v").detach().clone())
    assert not torch.equal(*found)


def test_the_best_epoch_is_kept_and_training_stops_when_none_is_better() -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])
    kept: list[dict[str, torch.Tensor]] = []

    def score(module: GraphModule) -> float:
        kept.append(weights(module))
        return next(scores)

    run = trainer(Training(epochs=6, patience=2), score=score)
    run.run([Phase("fit", 6)])
    assert [epoch.score for epoch in run.state.epochs] == [0.1, 0.5, 0.4, 0.3]
    for name, weight in weights(run.module).items():
        assert torch.equal(weight, kept[1][name])


@pytest.mark.parametrize("start", [True, False])
def test_the_start_is_the_result_where_no_epoch_is_better(start: bool) -> None:
    scores = iter([0.9] * start + [0.1, 0.5, 0.2])
    run = trainer(Training(epochs=3), score=lambda _: next(scores))
    before = {name: weight.clone() for name, weight in weights(run.module).items()}
    run.run([Phase("fit", 3, start=start)])
    assert [epoch.score for epoch in run.state.epochs] == [0.1, 0.5, 0.2]
    assert all(torch.equal(weight, before[name]) for name, weight in weights(run.module).items()) == start


def test_states_before_a_phase_is_ready_are_no_result() -> None:
    scores = iter([0.9, 0.1, 0.2])
    run = trainer(Training(epochs=3), score=lambda _: next(scores))
    kept = []
    run.run([Phase("fit", 3, ready=0.5, each=lambda step, steps: kept.append(step / steps))])
    assert kept == pytest.approx([at / 15 for at in range(15)])
    assert run.state.best is not None
    assert run.state.best[0] == 0.2


def test_rates_and_logs() -> None:
    logged: list[tuple[Mapping[str, float], int]] = []
    run = trainer(
        Training(epochs=2, lr=0.1, warmup=0, schedule="constant"), log=lambda values, step: logged.append((values, step))
    )
    run.run([Phase("fit", 2, factor=lambda share: 1 if share < 0.5 else 0.5)])
    assert [values["rate"] for values, _ in logged] == [0.1, 0.05]
    assert [step for _, step in logged] == [5, 10]
