"""docs/training.md, from what `training.py` has measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from onnxprune.options.train import CHANNEL_METHODS, METHODS, Sparse
from onnxprune.training.recipes import anew, methods
from trials import Store

SPARSITIES = (0.5, 0.8, 0.9, 0.95)
CONTROL = "magnitude, no training"
CHANNELS = {"channels, 2x fewer MACs": 1 / 2, "channels, 3x fewer MACs": 1 / 3}
"""Shares of the multiply-accumulates that remain."""
COURSES = tuple(method for method in CHANNEL_METHODS if method != "oneshot")
"""Methods on channels; pruning at once and training after it has a row of its own, with what it had before."""
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
        "Accuracy is top-1 in per cent on images that no training has seen; in brackets the points to the original. The",
        "defaults (ramps of gradual methods, how layers share a sparsity, learning rates) were chosen on digits, by the images",
        "that judge there: those rows flatter them. All options are those of the command line by default but for the epochs, and",
        "for three rounds in methods that prune and train in turns. The sparsity is that of all layers together.",
        f"*{CONTROL}* is the control: the largest weights of the trained net as they are, what `oneshot` begins with.",
        "*Retrained* methods begin with the trained weights and the rate of retraining; *trained* ones with the rate of a",
        "whole training, ten times as high; *anew* is that from new weights, which have the epochs given here, and no others, to",
        "learn in. One seed unless a row says otherwise: differences of some tenths mean nothing. Latency is a share of the",
        "original's: below 1 is faster. Written by `python benchmarks/training.py`.",
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
        lines += [f"Each training is {lengths[0][0]} epochs of {steps} batches; methods in turns train once a round."]
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
    """What a method does to the weights that it is given."""
    if name == CONTROL:
        return "as they are"
    if anew(Sparse(name, max(SPARSITIES))):
        return "anew"
    return "trained" if methods()[name].rate == "training" else "retrained"


def _sizes(store: Store, network: str, original: Entry) -> list[str]:
    """Of one method: bytes hang on the sparsity, and hardly on what chose the zeros."""
    lines = ["| bytes, `gradual` | raw | gzip | encoded |", "|---|--:|--:|--:|", _bytes("original", original)]
    for sparsity in SPARSITIES:
        entry = store.get(f"{network}/gradual/{sparsity}")
        lines += [_bytes(f"{sparsity:.0%}", entry)] if entry else []
    timing = store.get(f"{network}/latency")
    ratios = [timing["ratios"][f"gradual/{s}"] for s in SPARSITIES if f"gradual/{s}" in timing["ratios"]] if timing else []
    if ratios:
        lines += ["", f"Zeros alone change no time: {min(ratios):.2f} to {max(ratios):.2f} of the original's latency."]
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
    return [*lines, "", "`supermask` trains no weight: it chooses among random ones."]


def _question(store: Store, network: str, original: Entry, timing: Entry | None) -> list[str]:
    rows = [(name, store.get(f"{network}/{name}")) for name in (MASKED, REMOVED)]
    if not all(entry for _, entry in rows):
        return []
    lines = ["", "The old question: masks, or fewer channels? Both learn from the original for as long."]
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
        lines += [f"under the same masks, trained for as long: {_spread(anew)}. {verdict}, by {gap:+.2f} points on the mean."]
    return lines


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def _accuracy(entry: Entry | None, original: Entry) -> str:
    return f"{entry['accuracy']:.2f} ({entry['accuracy'] - original['accuracy']:+.2f})" if entry else ""


def _ratio(timing: Entry | None, name: str) -> str:
    return f"{timing['ratios'][name]:.2f}x" if timing and name in timing["ratios"] else ""
