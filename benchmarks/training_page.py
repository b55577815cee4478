"""Write docs/training.md from the results of `training.py`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from onnxprune.options.registries import TRAININGS
from onnxprune.options.train import Sparse, methods
from onnxprune.training.recipes.run import starts_fresh
from trials import Store

SPARSITIES = (0.5, 0.8, 0.9, 0.95)
CONTROL = "magnitude, no training"
CHANNELS = {"channels, 2x fewer MACs": 1 / 2, "channels, 3x fewer MACs": 1 / 3}
"""Shares of the multiply-accumulates that remain."""
METHODS = methods(channels=False)
COURSES = tuple(method for method in methods(channels=True) if method != "oneshot")
"""Methods on channels, except pruning at once with training after it, whose row also shows the accuracy before the training."""
TICKET, TICKETS, SEEDS = "ticket", (0.9,), (0, 1, 2)
SHARE = 0.6
MASKED, REMOVED = f"{SHARE:.0%} of the weights masked", f"{SHARE:.0%} of the weights removed as channels"
TITLES = {"digits": "Digits, the small classifier of models/", "resnet20": "ResNet-20, CIFAR-10"}

Entry = dict[str, Any]


def page(store: Store) -> str:
    """Everything measured, as Markdown."""
    lines = [
        "# Pruning with training",
        "",
        "This page compares recipes that prune while they train. `python benchmarks/training.py` wrote it.",
        "",
        "- Accuracy is top-1 in per cent on images that were not trained on; in brackets is the difference to the original.",
        "- All options are the defaults of the command line, except the epochs, the rounds of methods that prune and train in",
        "  turns, which are three, and `--lr 0.001` for `finetune`, as for `train`. The sparsity is that of all layers together.",
        "- The defaults (ramps of gradual methods, how layers share a sparsity, learning rates) were chosen on the digits, with",
        "  the images that also judge: the rows of the digits are too good for that reason.",
        f"- *{CONTROL}* keeps the largest weights of the trained network as they are. `oneshot` begins with it.",
        "- *retrained* methods begin with the trained weights and the learning rate for retraining. *trained* methods have the",
        "  rate of a whole training, ten times as high. *anew* means new weights with that rate, which learn only in the epochs",
        "  given here.",
        "- Rows have one seed unless they say otherwise. Differences of some tenths mean nothing.",
        "- Latency is a share of the original's: below 1 is faster.",
    ]
    for network, title in TITLES.items():
        original = store.get(f"{network}/original")
        if original:
            lines += ["", f"## {title}", "", *_network(store, network, original)]
    return "\n".join(lines) + "\n"


def _network(store: Store, network: str, original: Entry) -> list[str]:
    lines = [
        f"The original: {original['accuracy']:.2f} %. {original['images']:,} images train, {original['judged']:,} others judge.",
    ]
    known = [entry for name in METHODS for s in SPARSITIES if (entry := store.get(f"{network}/{name}/{s}"))]
    if known:
        lengths = sorted({(entry["epochs"], entry["steps"]) for entry in known})
        steps = ", ".join(dict.fromkeys(str(count) for _, count in lengths))
        lines += [f"Each training has {lengths[0][0]} epochs of {steps} batches; methods in turns train once in each round."]
        lines += ["", *_methods(store, network, original), "", *_sizes(store, network, original)]
    timing = store.get(f"{network}/latency")
    lines += _channels(store, network, original, timing)
    lines += _question(store, network, original, timing)
    lines += _tickets(store, network)
    if timing:
        lines += [
            "",
            f"Latency: batch 1, one thread, models in turns; the original takes {timing['ms']:.3g} ms. {timing['machine']}.",
        ]
    return lines


def _methods(store: Store, network: str, original: Entry) -> list[str]:
    columns = " | ".join(f"{sparsity:.0%}" for sparsity in SPARSITIES)
    lines = [f"| method | weights | {columns} | seconds |", "|---|---|" + "--:|" * (len(SPARSITIES) + 1)]
    for name in (CONTROL, *METHODS):
        found = [store.get(f"{network}/{name}/{sparsity}") for sparsity in SPARSITIES]
        if any(found):
            cells = [_accuracy(entry, original) for entry in found]
            seconds = max(entry["seconds"] for entry in found if entry)
            lines.append(f"| {name} | {_course(name)} | {' | '.join(cells)} | {seconds:.0f} |")
    return lines


def _course(name: str) -> str:
    """Whether a method retrains the weights it is given, trains them at the full rate, or begins with new ones."""
    if name == CONTROL:
        return "as they are"
    if starts_fresh(Sparse(name, max(SPARSITIES))):
        return "anew"
    return "trained" if TRAININGS[name].value.rate == "training" else "retrained"


def _sizes(store: Store, network: str, original: Entry) -> list[str]:
    """The bytes of one method: they depend on the sparsity, and hardly on the method."""
    lines = ["| bytes, `gradual` | raw | gzip | encoded |", "|---|--:|--:|--:|", _bytes("original", original)]
    for sparsity in SPARSITIES:
        entry = store.get(f"{network}/gradual/{sparsity}")
        lines += [_bytes(f"{sparsity:.0%}", entry)] if entry else []
    timing = store.get(f"{network}/latency")
    ratios = [timing["ratios"][f"gradual/{s}"] for s in SPARSITIES if f"gradual/{s}" in timing["ratios"]] if timing else []
    if ratios:
        lines += ["", f"Zeros alone save no time: latency is {min(ratios):.2f} to {max(ratios):.2f} of the original's."]
    return lines


def _bytes(name: str, entry: Entry) -> str:
    return f"| {name} | {entry['raw']:,} | {entry['gzip']:,} | {entry['encoded']:,} |"


def _channels(store: Store, network: str, original: Entry, timing: Entry | None) -> list[str]:
    names = [one for name in CHANNELS for one in (name, *(f"{name}, {method}" for method in COURSES))]
    found = [(name, store.get(f"{network}/{name}, repaired"), store.get(f"{network}/{name}")) for name in names]
    rows = [(name, before, after) for name, before, after in found if after]
    if not rows:
        return []
    lines = ["", "| channels | repaired | after training | raw | gzip | encoded | latency |", "|---|" + "--:|" * 6]
    for name, before, after in rows:
        cells = f"{_accuracy(before, original)} | {_accuracy(after, original)}"
        lines.append(
            f"| {name} | {cells} | {after['raw']:,} | {after['gzip']:,} | {after['encoded']:,} | {_ratio(timing, name)} |"
        )
    return [*lines, "", "`supermask` trains no weight: it chooses among random weights."]


def _question(store: Store, network: str, original: Entry, timing: Entry | None) -> list[str]:
    rows = [(name, store.get(f"{network}/{name}")) for name in (MASKED, REMOVED)]
    if not all(entry for _, entry in rows):
        return []
    lines = ["", "Masks or fewer channels? Both networks were trained for the same time, with the original as the teacher."]
    lines += ["", "| | top-1 | raw | gzip | encoded | latency |", "|---|" + "--:|" * 5]
    for name, entry in rows:
        sizes = f"{entry['raw']:,} | {entry['gzip']:,} | {entry['encoded']:,}"
        lines.append(f"| {name} | {_accuracy(entry, original)} | {sizes} | {_ratio(timing, name)} |")
    return lines


def _tickets(store: Store, network: str) -> list[str]:
    lines: list[str] = []
    for sparsity in TICKETS:
        prefix = f"{network}/{TICKET}/{sparsity}"
        found = [[store.get(f"{prefix}/{seed}{end}") for seed in SEEDS] for end in ("", "/new")]
        if not all(entry for one in found for entry in one):
            continue
        ticket, anew = ([entry["accuracy"] for entry in one] for one in found)
        gap = mean(ticket) - mean(anew)
        wins = sum(a > b for a, b in zip(ticket, anew, strict=True))
        verdict = f"The ticket was better for {wins} of {len(SEEDS)} seeds"
        lines += [
            "",
            f"The lottery ticket at {sparsity:.0%}, mean and deviation of {len(SEEDS)} seeds: {_spread(ticket)}; new weights",
        ]
        lines += [f"under the same masks, trained as long: {_spread(anew)}. {verdict}, on average by {gap:+.2f} points."]
    return lines


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def _accuracy(entry: Entry | None, original: Entry) -> str:
    return f"{entry['accuracy']:.2f} ({entry['accuracy'] - original['accuracy']:+.2f})" if entry else ""


def _ratio(timing: Entry | None, name: str) -> str:
    return f"{timing['ratios'][name]:.2f}x" if timing and name in timing["ratios"] else ""
