"""Compare the search of a sweep with its grid at equal cost: the least MACs of a model that loses at most a point of accuracy.

Both do the same with a setting: plan, cut, prove, repair, and score on samples that nothing learns from. What settings share
(groups, moments, sensitivities) is prepared once by each. The cost is processor time, previews included: the grid takes what it
takes, and each search ends when it took as much. MACs are counted, so that the clock only decides where a search ends.

`--network resnet20` needs the optional local data.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxprune.data.samples import Samples, open_samples, sized
from onnxprune.driver.compiler import Compiler
from onnxprune.driver.costs import price
from onnxprune.errors import TargetError
from onnxprune.ir.model import Model
from onnxprune.options.prune import Recipe
from onnxprune.options.targets import Target, number
from onnxprune.sweep.search import Goal, Preview, Searcher, searched
from onnxprune.verify.metrics import Evaluation
from trials import Network, default_data, handwritten, resnet20

GOAL = Goal("macs", 0.01)
OPTIONS: Mapping[str, Sequence[Any]] = {"criterion": ["obs", "l2"], "scope": ["sensitivity", "global"], "align": ["1", "auto"]}


class Bench:
    """A network whose settings are tried; what they share is prepared when it is first needed, and its time counts."""

    def __init__(self, network: Network, judged: int) -> None:
        """Read the network and its samples; that is not timed.

        Args:
            network: a classifier.
            judged: samples that score.
        """
        self.model = Model.of(network.path)
        (value,) = self.model.inputs
        self.samples = open_samples({value.name: network.calibration}, self.model.inputs)
        self.model = sized(self.model, self.samples)
        judges: Samples = open_samples({value.name: network.x[:judged], "label": network.y[:judged]}, self.model.inputs)
        self.evaluation = Evaluation(self.model, judges, "top1")
        self.compilers: dict[str, Compiler] = {}

    def compiler(self, settings: Mapping[str, Any]) -> Compiler:
        """What prunes by all options but the target."""
        options = {name: value for name, value in settings.items() if name != "target"}
        key = json.dumps(options, sort_keys=True)
        if key not in self.compilers:
            self.compilers[key] = Compiler(self.model, Recipe(**options), self.samples)
        return self.compilers[key]

    def attempt(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Build a model and score it: what a run of a sweep does, as the row of its page has it."""
        try:
            pruned = self.compiler(settings).build(Target.parse(settings["target"]))
        except TargetError:
            return {}
        score = self.evaluation.of(pruned.model)
        return {"drop": score.original - score.pruned, "macs_ratio": price(pruned.analysis, pruned.plan)[2]["macs"]}

    def preview(self, settings: Mapping[str, Any]) -> Iterator[Preview]:
        """What the plan costs, then how far outputs move after a quick repair."""
        compiler, target = self.compiler(settings), Target.parse(settings["target"])
        try:
            analysis, plan = compiler.planned(target)
            yield Preview(cost=price(analysis, plan)[2]["macs"])
            yield Preview(drift=compiler.rehearsed(target))
        except TargetError:
            yield Preview(drift=math.inf)


def grid(bench: Bench, axes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Every combination: the best, and what all took."""
    start, rows = time.process_time(), []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        outcome = bench.attempt(settings)
        rows.append({"settings": settings, **outcome, "seconds": time.process_time() - start})
        print(f"grid {len(rows)}: {settings} {outcome}", file=sys.stderr)
    good = [row for row in rows if not GOAL.excess(row)]
    best = min(good, key=GOAL.cost_of, default=None)
    return {"best": best, "runs": len(rows), "seconds": time.process_time() - start, "rows": rows}


def search(
    bench: Bench, axes: Mapping[str, Sequence[Any]], seconds: float, runs: int, seed: int, *, previews: bool
) -> dict[str, Any]:
    """A search that takes as much processor time: the best, and how many runs there were."""
    searcher, start = Searcher(axes, GOAL, trials=runs, seed=seed), time.process_time()
    preview = bench.preview if previews else None
    best = searched(searcher, bench.attempt, preview=preview, more=lambda _: time.process_time() - start < seconds)
    done = [one for one in searcher.tried if one.outcome is not None]
    found = {"settings": best.settings, **(best.outcome or {})} if best else None
    taken = {"runs": len(done), "given_up": len(searcher.tried) - len(done), "seconds": time.process_time() - start}
    told = [{"settings": one.settings, "outcome": one.outcome, "given_up": one.given_up} for one in searcher.tried]
    print(f"search, seed {seed}, previews {previews}: {found} {taken}", file=sys.stderr)
    return {"best": found, **taken, "tried": told}


def main() -> None:
    """Run it, and print a table; all results as JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("digits", "resnet20"), default="digits")
    parser.add_argument("--targets", type=int, default=8, help="of the grid, evenly from 0.9 to 0.1")
    parser.add_argument("--fixed", nargs="*", default=[], choices=list(OPTIONS), help="options that keep their first value")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judged", type=int, default=2000, help="samples that score, at most")
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    network = handwritten() if given.network == "digits" else resnet20(given.data)
    if network is None:
        sys.exit("the optional local data are not here")
    steps = max(given.targets - 1, 1)
    axes: dict[str, Sequence[Any]] = {"target": [f"macs={number(round(0.9 - 0.8 * i / steps, 4))}" for i in range(given.targets)]}
    axes |= {name: values[:1] if name in given.fixed else values for name, values in OPTIONS.items()}
    found = {"grid": grid(Bench(network, given.judged), axes)}
    taken, runs = found["grid"]["seconds"], found["grid"]["runs"]
    for previews, seed in itertools.product((True, False), range(given.seeds)):
        name = f"search, seed {seed}" + ("" if previews else ", without previews")
        found[name] = search(Bench(network, given.judged), axes, taken, runs, seed, previews=previews)
    print("| | least MACs within a point | drop | settings | runs | given up | seconds |\n|---|--:|--:|---|--:|--:|--:|")
    for name, one in found.items():
        best = one["best"] or {"macs_ratio": math.nan, "drop": math.nan, "settings": {}}
        told = ", ".join(f"{key}={value}" for key, value in best["settings"].items())
        tried = f"{one['runs']} | {one.get('given_up', 0)} | {one['seconds']:.0f}"
        print(f"| {name} | {best['macs_ratio']:.3f} | {100 * best['drop']:.2f} | {told} | {tried} |")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1, default=str) + "\n", "utf-8")


if __name__ == "__main__":
    main()
