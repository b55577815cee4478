"""Measure the accuracy of sparse networks, without training and without labels: by method, by pattern, with and without refit.

    python benchmarks/sparse_accuracy.py [--part PART ...] [--work build/sparse-accuracy] [-o docs/sparse-accuracy.md]

Parts: `digits` (models/) and `resnet20` (optional local data: a ResNet-20 and CIFAR-10 images; 1,024 calibrate). Each has
the parts `default` (the command with samples), `methods` (every method, uniform) and `patterns`. `page` writes the page from the
results. Results that are in the work folder are not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnxprune
from onnxprune import SparseRecipe
from onnxprune.ir.model import Model
from trials import ROOT, Network, Store, default_data, handwritten, resnet20

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
UNIFORM = SparseRecipe(allocation="uniform")
METHODS = {
    "random": replace(UNIFORM, method="random", repair=False),
    "magnitude": replace(UNIFORM, method="magnitude", repair=False),
    "Wanda": replace(UNIFORM, method="wanda", repair=False),
    "OBS": replace(UNIFORM, method="obs", repair=False),
    "magnitude, refit": replace(UNIFORM, method="magnitude"),
    "OBS, refit": replace(UNIFORM, method="obs"),
    "ADMM, refit": replace(UNIFORM, method="admm"),
}
DEFAULT = "ADMM, refit, shared out by measured cost (default)"
PATTERNS = {
    "2:4, magnitude": SparseRecipe(pattern="2:4", method="magnitude", repair=False, permute=False),
    "2:4, magnitude, channels permuted": SparseRecipe(pattern="2:4", method="magnitude", repair=False),
    "2:4, OBS, refit": SparseRecipe(pattern="2:4", method="obs", permute=False),
    "2:4, ADMM, refit": SparseRecipe(pattern="2:4", permute=False),
    "2:4, ADMM, refit, channels permuted (default)": SparseRecipe(pattern="2:4"),
    "1:4, ADMM, refit, channels permuted (default)": SparseRecipe(pattern="1:4"),
    "blocks 4x1, half of the weights, uniform": replace(UNIFORM, pattern="4x1", target="sparsity=0.5"),
    "blocks 1x4, half of the weights, uniform": replace(UNIFORM, pattern="1x4", target="sparsity=0.5"),
}


def measured(store: Store, network: Network, key: str, recipe: SparseRecipe) -> None:
    """One model as `onnxprune sparsify` makes it."""

    def build() -> dict[str, Any]:
        samples = {Model.of(network.path).inputs[0].name: network.calibration}
        result = onnxprune.sparsify(network.path, recipe, samples=samples, agreement=False)
        report = result.report
        energy = sum(layer.energy for layer in report.layers) / len(report.layers)
        accuracy = network.accuracy(result.model.SerializeToString())
        return {"accuracy": accuracy, "sparsity": report.sparsity, "energy": energy}

    store.once(f"{network.name}/{key}", build)


def default(store: Store, network: Network) -> None:
    """What samples alone make of it."""
    for sparsity in SPARSITIES:
        measured(store, network, f"{DEFAULT}/{sparsity}", SparseRecipe(target=f"sparsity={sparsity}"))


def methods(store: Store, network: Network) -> None:
    """Every layer at the same sparsity."""
    for name, recipe in METHODS.items():
        for sparsity in SPARSITIES:
            measured(store, network, f"{name}/{sparsity}", replace(recipe, target=f"sparsity={sparsity}"))


def patterns(store: Store, network: Network) -> None:
    """What hardware and kernels ask for."""
    for name, recipe in PATTERNS.items():
        measured(store, network, f"pattern/{name}", recipe)


STEPS = {"default": default, "patterns": patterns, "methods": methods}
TITLES = {"resnet20": "ResNet-20, CIFAR-10", "digits": "digits, the small classifier of models/"}


def page(store: Store, networks: Sequence[Network]) -> str:
    """Everything measured, as Markdown."""
    lines = [
        "# Accuracy of sparse networks",
        "",
        "Weights become zero in one shot, without training and without labels. All layers are sparse except the first and the",
        "classifier; the sparsity is that of all sparse layers together. The tables show top-1 in per cent on images that were",
        "used for nothing else, and in brackets the points gained or lost. *refit*: in topological order, each layer gets new",
        "weights, so that it outputs what it did in the original, from the inputs that the sparse network gives it. Written by",
        "`python benchmarks/sparse_accuracy.py`.",
    ]
    for network in networks:
        original = store.get(f"{network.name}/original")["accuracy"]
        images = f"Calibrated on {len(network.calibration):,} images, judged on {len(network.x):,} others"
        lines += ["", f"## {TITLES[network.name]}", "", f"The original: {original:.2f} %. {images}.", ""]
        lines += _table(store, network, original)
        rows = [(name, store.get(f"{network.name}/pattern/{name}")) for name in PATTERNS]
        if any(entry for _, entry in rows):
            lines += ["", "| pattern | zeros | kept energy | top-1 | lost |", "|---|--:|--:|--:|--:|"]
            for name, found in rows:
                if found:
                    numbers = f"{found['sparsity']:.3f} | {found['energy']:.3f} | {found['accuracy']:.2f}"
                    lines.append(f"| {name} | {numbers} | {original - found['accuracy']:.2f} |")
    return "\n".join(lines) + "\n"


def _table(store: Store, network: Network, original: float) -> list[str]:
    columns = " | ".join(f"{sparsity:.0%}" for sparsity in SPARSITIES)
    lines = [f"| sparsity | {columns} |", "|---|" + "--:|" * len(SPARSITIES)]
    for name in (*METHODS, DEFAULT):
        cells = []
        for sparsity in SPARSITIES:
            found = store.get(f"{network.name}/{name}/{sparsity}")
            cells.append(f"{found['accuracy']:.2f} ({found['accuracy'] - original:+.2f})" if found else "")
        if any(cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    seconds = [store.get(f"{network.name}/{DEFAULT}/{sparsity}") for sparsity in SPARSITIES]
    if all(entry and "seconds" in entry for entry in seconds):
        most = max(entry["seconds"] for entry in seconds)
        lines += ["", f"The default takes up to {most:.0f} s of processor time."]
    return lines


def _original(network: Network) -> dict[str, Any]:
    return {"accuracy": network.accuracy(network.path)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[*TITLES, *STEPS, "page"], help="network, step, or page; all if none")
    parser.add_argument("--data", type=Path, default=default_data(), help="folder of optional local data")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "sparse-accuracy", help="where results are kept")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "sparse-accuracy.md")
    options = parser.parse_args()
    parts = options.part or [*TITLES, *STEPS, "page"]
    store = Store(options.work)
    networks = [network for network in (resnet20(options.data), handwritten()) if network]
    chosen = [network for network in networks if network.name in parts] or networks
    steps = [step for name, step in STEPS.items() if name in parts] or list(STEPS.values()) * ("page" not in parts)
    for step in steps:
        for network in chosen:
            store.once(f"{network.name}/original", partial(_original, network))
            step(store, network)
    if "page" in parts:
        known = [network for network in networks if store.get(f"{network.name}/original")]
        options.output.write_text(page(store, known), "utf-8")


if __name__ == "__main__":
    main()
