"""Measure pruning with training: recipes at four sparsities, channels with fine-tuning, lottery tickets, masks against channels.

    python benchmarks/training.py [--part PART ...] [--epochs 10] [--steps 0] [--work build/training] [-o docs/training.md]

Parts: the networks `digits` (models/) and `resnet20` (optional local data: a ResNet-20 and CIFAR-10 images); the measurements
`methods` (every method at 50, 80, 90 and 95 %), `channels` (2x and 3x fewer multiply-accumulates: repaired, then
distilled; and by every method), `lottery` (tickets against new weights under the same masks, three seeds), `question` (60 % of
the weights masked, or removed as channels), `latency` (of all models, in turns); and `page`, which writes docs/training.md from
the results. Results that are in the work folder are not measured again, even with other `--epochs`, `--steps` and `--rounds`.

Options are the defaults of the command line, except lengths and rounds. Nothing is chosen by the images that judge.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout, whatever is installed

import onnxprune
import training_page
from onnxprune import Recipe
from onnxprune.driver import encode
from onnxprune.ir.model import Model
from onnxprune.latency.benchmark import benchmark
from onnxprune.options.train import Sparse, Training
from onnxprune.options.train import methods as names_of
from onnxprune.training.finetune import finetune
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.session import TrainedModel
from onnxprune.training.train import train
from training_page import CHANNELS, CONTROL, COURSES, MASKED, REMOVED, SEEDS, SHARE, SPARSITIES, TICKET, TICKETS
from trials import ROOT, Images, Labels, Network, OutOfTimeError, Store, cifar10, default_data, handwritten, resnet20

TURNS = ("iterative", "rate_rewinding", "lottery", "weight_rewinding")
"""Methods that train once a round."""
METHODS, CHANNEL_METHODS = names_of(channels=False), names_of(channels=True)
EVERY = tuple(dict.fromkeys((*METHODS, *CHANNEL_METHODS)))
SECONDS = 1.0
"""Seconds of measuring, for each model."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A network, the data that it is trained on, and for how long.

    Attributes:
        network: the network.
        images: the training images, with ``labels``.
        options: how it is trained.
        rounds: of methods that prune and train in turns.
        methods: those that are measured.
        sparsities: that they are measured at.
    """

    network: Network
    images: Images
    labels: Labels
    options: Training
    rounds: int
    methods: Sequence[str]
    sparsities: Sequence[float]

    @property
    def material(self) -> TrainingInputs:
        return TrainingInputs({Model.of(self.network.path).inputs[0].name: self.images, "label": self.labels})

    def key(self, name: str) -> str:
        """The key of a result."""
        return f"{self.network.name}/{name}"

    def sparse(self, method: str, sparsity: float) -> Sparse:
        """A recipe with its defaults."""
        return Sparse(method, sparsity, rounds=self.rounds if method in TURNS else 0)


def measured(store: Store, trial: Trial, name: str, make: Callable[[], TrainedModel]) -> Any:
    """A model that training made: its accuracy and sizes; it is kept."""

    def build() -> dict[str, Any]:
        tuned = make()
        model = tuned.compiled.to_proto().SerializeToString()
        store.model(trial.key(name)).write_bytes(model)
        epochs = [epoch for epoch in tuned.report["epochs"] if epoch["number"]]
        return {
            "accuracy": trial.network.accuracy(model),
            "sparsity": tuned.report["sparsity"],
            "loss": tuned.report["loss"],
            "epochs": len(epochs),
            "steps": tuned.report["steps_per_epoch"],
            **sizes(model),
        }

    return store.once(trial.key(name), build)


def sizes(model: bytes) -> dict[str, int]:
    """Bytes of a model as it is, packed, and with encoded weights."""
    encoded = encode.encode(model).model.SerializeToString()
    return {"raw": len(model), "gzip": len(gzip.compress(model)), "encoded": len(encoded)}


def methods(store: Store, trial: Trial) -> None:
    """Every method, and the largest weights of the trained net without any training; cheap methods first."""
    path, material = trial.network.path, trial.material
    nothing = replace(trial.options, epochs=1, steps=1, lr=1e-30, restore_norms="no")
    for sparsity in trial.sparsities:
        make = partial(train, path, material, Sparse("oneshot", sparsity), nothing)
        measured(store, trial, f"{CONTROL}/{sparsity}", make)
    for method in sorted((method for method in METHODS if method in trial.methods), key=TURNS.__contains__):
        for sparsity in trial.sparsities:
            make = partial(train, path, material, trial.sparse(method, sparsity), trial.options)
            measured(store, trial, f"{method}/{sparsity}", make)


def channels(store: Store, trial: Trial) -> None:
    """Remove channels: repaired with unlabelled images, then trained with the original as teacher; and in turns with training."""
    for name, share in CHANNELS.items():
        _removed(store, trial, name, f"macs={share}")
        for method in (method for method in COURSES if method in trial.methods):
            rounds = trial.rounds if method in TURNS else 0
            recipe = Sparse(method, target=f"macs={share}", rounds=rounds)
            make = partial(train, trial.network.path, trial.material, recipe, trial.options)
            measured(store, trial, f"{name}, {method}", make)


def _removed(store: Store, trial: Trial, name: str, target: str) -> None:
    network, key = trial.network, trial.key(f"{name}, repaired")

    def prune() -> dict[str, Any]:
        samples = {Model.of(network.path).inputs[0].name: network.calibration}
        result = onnxprune.prune(network.path, Recipe(target=target), samples=samples, agreement=False)
        model = result.model.SerializeToString()
        store.model(key).write_bytes(model)
        return {"accuracy": network.accuracy(model), **sizes(model)}

    store.once(key, prune)
    material = replace(trial.material, teacher=network.path)
    options = replace(trial.options, lr=trial.options.rate)  # that of the rows beside it, which `train` made
    measured(store, trial, name, lambda: finetune(store.model(key), material, options))


def lottery(store: Store, trial: Trial) -> None:
    """Train tickets, and new weights under the same masks, for the same time."""
    for seed in SEEDS:
        options = replace(trial.options, seed=seed)
        for sparsity in TICKETS:
            name = f"{TICKET}/{sparsity}/{seed}"
            recipe = trial.sparse("lottery", sparsity)
            measured(store, trial, name, partial(train, trial.network.path, trial.material, recipe, options))
            ticket = store.model(trial.key(name))
            again = replace(options, seed=len(SEEDS) + seed)
            measured(store, trial, f"{name}/new", partial(_drawn_anew, ticket, trial.material, sparsity, again))


def _drawn_anew(ticket: Path, material: TrainingInputs, sparsity: float, options: Training) -> TrainedModel:
    """The mask of a ticket, on new weights."""
    tuned = train(ticket, material, Sparse("scratch", sparsity, allocation="global"), options)
    before = Model.of(ticket).weights
    for name in tuned.report["layers"]:
        assert np.array_equal(before[name].array() != 0, tuned.compiled.weights[name].array() != 0), name
    return tuned


def question(store: Store, trial: Trial) -> None:
    """Mask a share of the weights, and remove the same share as channels; both learn from the original for the same time."""
    recipe = Sparse("oneshot", SHARE)
    material = replace(trial.material, teacher=trial.network.path)
    measured(store, trial, MASKED, partial(train, trial.network.path, material, recipe, trial.options))
    _removed(store, trial, REMOVED, f"params={1 - SHARE}")


def latency(store: Store, trial: Trial) -> None:
    """Time models that differ in their graphs or zeros, in turns with the original, at batch 1 on one thread."""
    names = [f"gradual/{sparsity}" for sparsity in SPARSITIES] + [
        *CHANNELS,
        *(f"{name}, {method}" for name in CHANNELS for method in COURSES),
        MASKED,
        REMOVED,
    ]
    names = [name for name in names if store.get(trial.key(name))]

    def measure() -> dict[str, Any]:
        files = [trial.network.path, *(store.model(trial.key(name)) for name in names)]
        report = benchmark(files, labels=["original", *names], seconds=SECONDS, sessions=1)
        ratios = {name: row.ratio.median for name, row in zip(names, report.rows[1:], strict=True) if row.ratio}
        machine = f"{report.machine['cpu']}, ONNX Runtime {report.machine['onnxruntime']}"
        return {"ratios": ratios, "ms": report.rows[0].latency.median_ms, "machine": machine}

    store.once(trial.key("latency"), measure)


STEPS = {"methods": methods, "channels": channels, "question": question, "lottery": lottery, "latency": latency}
NETWORKS = ("digits", "resnet20")


def trial_of(name: str, options: argparse.Namespace) -> Trial | None:
    """A network with its images; ``None`` and a message where they are absent."""
    training = Training(epochs=options.epochs, steps=options.steps, batch=options.batch, device=options.device)
    trial = partial(
        Trial,
        options=training,
        rounds=options.rounds,
        methods=options.method or EVERY,
        sparsities=options.sparsity or SPARSITIES,
    )
    if name == "digits":
        network = handwritten()
        return trial(network, *network.held)  # all that the network was trained on
    found, images = resnet20(options.data), cifar10(options.data)
    if found is None or images is None:
        print(f"{name}: the optional local data is absent", file=sys.stderr)
        return None
    x, y = images.load("train-20k", n=options.images or None)
    return trial(found, x, y)


def measure(parts: Sequence[str], store: Store, options: argparse.Namespace) -> None:
    """Measure the parts that were asked for.

    Raises:
        OutOfTimeError: there was no time for all of it.
    """
    steps = [step for name, step in STEPS.items() if name in parts] or list(STEPS.values())
    for name in [name for name in NETWORKS if name in parts] or NETWORKS:
        trial = trial_of(name, options)
        if trial is None:
            continue
        original = trial.network.path.read_bytes()
        store.once(
            trial.key("original"),
            lambda trial=trial, original=original: {  # type: ignore[misc]
                "accuracy": trial.network.accuracy(original),
                "images": len(trial.images),
                "judged": len(trial.network.x),
                **sizes(original),
            },
        )
        for step in steps:
            step(store, trial)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[*NETWORKS, *STEPS, "page"], help="may be repeated; all if none")
    parser.add_argument("--method", action="append", choices=EVERY, help="on weights and channels; may be repeated; all if none")
    parser.add_argument("--sparsity", action="append", type=float, choices=SPARSITIES, help="as --method")
    parser.add_argument("--data", type=Path, default=default_data(), help="folder of optional local data")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "training", help="where results and models are kept")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "training.md")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after this much processor time")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of each training")
    parser.add_argument("--steps", type=int, default=0, help="the most batches in an epoch; 0 for all")
    parser.add_argument("--images", type=int, default=0, help="images of CIFAR-10 to train on; 0 for all")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of methods that prune and train in turns")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    parts = options.part or [*NETWORKS, "page"]
    store = Store(options.work, 60 * options.minutes)
    if set(parts) - {"page"}:
        try:
            measure(parts, store, options)
        except OutOfTimeError as error:
            sys.exit(f"time is up before {error}; run it again to go on")
    if "page" in parts:
        options.output.write_text(training_page.page(store), "utf-8")


if __name__ == "__main__":
    main()
