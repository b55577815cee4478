"""Measure accuracy against latency: channels, zeros with sparse kernels, int8, and mixtures of them, without training.

    python benchmarks/frontier.py [--model build/resnet8x4.onnx] [--work build/frontier]

Mixtures are made as `onnxprune optimize` makes them, from 1,024 images of CIFAR-10 without labels (optional local data); 5,000
others judge. Latencies are shares of the original's: all models take turns with it, on one thread. The table that is printed is
part of docs/sparse-speed.md. Models that are in the work folder are not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from onnxprune.data.samples import open_samples
from onnxprune.driver.levers import LEVERS
from onnxprune.driver.levers.base import GradedLever, Ground, Lever, Made, Mixture
from onnxprune.driver.progress import Stages
from onnxprune.errors import OnnxPruneError
from onnxprune.ir import files
from onnxprune.ir.model import Model
from onnxprune.kernels.loading import library
from onnxprune.latency.node_times import node_times
from onnxprune.latency.timer import measure_ratios
from onnxprune.options.optimize import OptimizeRecipe
from onnxprune.runtime.custom_operators import custom_operators
from trials import ROOT, Network, best, default_data, resnet20

CHANNELS = (0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.15)
"""Shares of the latency that channels leave, as layer times predict it; in int8 of that in int8."""
ZEROS = (0.6, 0.7, 0.8, 0.9, 0.95)
MILD = (0.8, 0.65, 0.5, 0.4)
"""Channels under zeros, which"""
UNDER = (0.6, 0.75, 0.85)
"""are so many there."""
SECONDS = 2.0
POINTS = (1.0, 2.0, 5.0)
"""Losses, in points, for which the fastest is named."""


@dataclass(frozen=True, slots=True)
class Point:
    """Attributes:
    way: which levers were pulled.
    mixture: their choices.
    latency: as a share of the original's.
    accuracy: top-1, in per cent.
    """

    way: str
    mixture: Mixture
    latency: float
    accuracy: float


class Frontier:
    """The mixtures of one network."""

    def __init__(self, network: Network, work: Path) -> None:
        self.network, self.work = network, work
        work.mkdir(parents=True, exist_ok=True)
        self.original = Model.of(network.path)
        shape = (1, *network.calibration.shape[1:])
        self.shapes = {self.original.inputs[0].name: shape}
        samples = open_samples({self.original.inputs[0].name: network.calibration}, self.original.inputs)
        recipe = OptimizeRecipe(kernels=True)
        ground = Ground(self.original, recipe, samples, Stages(), lambda model: node_times(model, shapes=self.shapes))
        self.levers: dict[str, Lever] = {kind.name: kind(ground) for kind in LEVERS}
        for lever in self.levers.values():
            lever.choices()
        self.made = {Mixture(): Made(Mixture(), self.original)}

    def mixtures(self) -> Iterator[tuple[str, Mixture]]:
        """Each with the levers that it pulls."""
        plain, int8 = Mixture(), Mixture().having("precision", "int8")
        channels = self.levers["channels"]
        assert isinstance(channels, GradedLever)
        yield "int8", int8
        for share in CHANNELS:
            yield "channels", plain.having("channels", channels.at(share, plain))
        for share in CHANNELS:
            yield "channels and int8", int8.having("channels", channels.at(share, int8))
        for zeros in ZEROS:
            yield "zeros", plain.having("zeros", f"4x1 sparsity={zeros}")
        for share in MILD:
            for zeros in UNDER:
                some = plain.having("channels", channels.at(share, plain))
                yield "channels and zeros", some.having("zeros", f"4x1 sparsity={zeros}")

    def model(self, mixture: Mixture) -> Model:
        """The model of a mixture: made, or as it was written before."""
        path = self.work / f"{self.network.name} {str(mixture).replace(' ', '_')}.onnx"
        if path.exists():
            return Model.of(path)
        found = self._made(mixture).model
        files.save(found, path)
        return found

    def _made(self, mixture: Mixture) -> Made:
        if mixture not in self.made:
            name = next(name for name in reversed(self.levers) if name in dict(mixture.choices))
            before = self._made(mixture.without(name))
            self.made[mixture] = self.levers[name].carry_out(before, dict(mixture.choices)[name])
        return self.made[mixture]

    def points(self) -> list[Point]:
        """Everything that can be made, timed in turns and judged."""
        named: list[tuple[str, Mixture, Model]] = []
        for way, mixture in self.mixtures():
            with suppress(OnnxPruneError):  # narrower than widths go
                named.append((way, mixture, self.model(mixture)))
                print(f"{self.network.name}: {mixture}", flush=True)
        ratios = measure_ratios(self.original, [model for *_, model in named], seconds=SECONDS, shapes=self.shapes)
        accuracies = [self.network.accuracy(model.to_proto().SerializeToString()) for *_, model in named]
        return [Point(*row[:2], *found) for row, *found in zip(named, ratios, accuracies, strict=True)]


def table(points: Sequence[Point], original: float) -> str:
    """The points that nothing of the same way beats; and the fastest of each within some losses."""
    lines = ["| | latency | times as fast | top-1 | lost |", "|---|--:|--:|--:|--:|"]
    for way in dict.fromkeys(point.way for point in points):
        front = best([(point.latency, point.accuracy) for point in points if point.way == way])
        lines += [
            f"| {way} | {latency:.3f} | {1 / latency:.2f} | {accuracy:.2f} % | {original - accuracy:.2f} |"
            for latency, accuracy in reversed(front)
        ]
    losses = " | ".join(f"{loss:g} point{'s' * (loss > 1)}" for loss in POINTS)
    lines += ["", f"| the fastest that lose at most | {losses} |"]
    lines += ["|---|" + "--:|" * len(POINTS)]
    for way in dict.fromkeys(point.way for point in points):
        cells = []
        for loss in POINTS:
            within = [point.latency for point in points if point.way == way and original - point.accuracy <= loss]
            cells.append(f"{1 / min(within):.2f} times" if within else "")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="another classifier of CIFAR-10, as benchmarks/cifar_nets.py writes it")
    parser.add_argument("--data", type=Path, default=default_data(), help="folder of optional local data")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "frontier", help="where models are kept")
    args = parser.parse_args()
    network = resnet20(args.data)
    if network is None:
        raise SystemExit("the optional local data with CIFAR-10 images are not here")
    if args.model:
        network = Network(
            args.model.stem, args.model, args.model, *(getattr(network, name) for name in ("calibration", "held", "x", "y"))
        )
    with custom_operators(library()):
        original = network.accuracy(network.path)
        print(f"\n{network.name}: {original:.2f} %\n\n{table(Frontier(network, args.work).points(), original)}")


if __name__ == "__main__":
    main()
