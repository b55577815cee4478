"""A campaign of kills: a command that is ended at any moment leaves whole outputs, and the next run leaves nothing else.

    python benchmarks/kills.py 1000 --seed 1

Each round runs a command over outputs of another run, and ends it by KILL, TERM, HUP or INT after a random share of the time that
it takes. Commands are forked from a process that has everything imported, so that the moments are those of their work. Then every
model must be valid, and be that of one run, with its data; so must every plan. A plan and a model may be of two runs only after
KILL, which nothing can catch between two renames; `verify` says so then. After other signals there is no traceback, and the
status is theirs. After the command has run again, nothing may be there but its outputs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ["ONNXPRUNE_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import onnx

from fuzz import prepared
from fuzz_workers import Outcome, forked

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
OUT = ("-o", "o.onnx", "--force")
CUT = ("--align", "1", "--no-benchmark")
TRAIN = ("--data", "s.npz", "--epochs", "3", "--batch", "8", "--resume", "c.ckpt")
COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "prune": (
        ("prune", "m.onnx", *OUT, "--target", "channels=0.75", *CUT),
        ("prune", "m.onnx", *OUT, "--target", "channels=0.5", *CUT),
    ),
    "prune with a plan": tuple(
        ("prune", "m.onnx", *OUT, "--plan-out", "o.json", "--target", f"channels={share}", *CUT) for share in ("0.75", "0.5")
    ),
    "plan": tuple(
        ("plan", "m.onnx", "-o", "o.json", "--force", "--target", f"channels={share}", "--align", "1")
        for share in ("0.75", "0.5")
    ),
    "apply": (("apply", "m.onnx", "p.json", *OUT, "--masked"), ("apply", "m.onnx", "p.json", *OUT)),
    "sparsify": tuple(
        ("sparsify", "m.onnx", *OUT, "--sparsity", share, "--calib", "s.npz", "--ends") for share in ("0.3", "0.6")
    ),
    "encode": (("encode", "m.onnx", *OUT), ("encode", "z.onnx", *OUT)),
    "decode": (("decode", "m.onnx", *OUT), ("decode", "e.onnx", *OUT)),
    "quantize": tuple(("quantize", "m.onnx", *OUT, "--calib", "s.npz", kind) for kind in ("--per-tensor", "--per-channel")),
    "run": (("run", "a.toml", *OUT), ("run", "b.toml", *OUT)),
    "run with keep": (("run", "a.toml", *OUT), ("run", "b.toml", *OUT, "--keep", "keep")),
    "finetune": tuple(("finetune", "m.onnx", *OUT, *TRAIN, "--teacher", "m.onnx", "--lr", rate) for rate in ("0.01", "0.001")),
    "train": tuple(("train", "m.onnx", *OUT, *TRAIN, "--sparsity", share) for share in ("0.3", "0.6")),
}
"""For each name a command that makes the old outputs, and the one that is killed."""


@dataclass
class Campaign:
    """Rounds in one folder, and what was found.

    Attributes:
        home: the folder.
        large: whether models lie in two files.
        counts: of rounds by signal, and of what was there after them.
        found: what was wrong.
    """

    home: Path
    large: bool
    counts: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def round(self, name: str, number: signal.Signals, share: float) -> None:
        """End a command after a share of its time, look at what is there, and run it again."""
        old, new = COMMANDS[name]
        before, after = self._outputs(name, old, "old"), self._outputs(name, new, "new")
        place = self._fresh("round", f"{name} old")
        outcome = self._ended(new, place, (number, share * self.seconds[name]))
        self.counts["rounds"] += 1
        self.counts[number.name] += 1
        found = list(_faults(place, before, after, number, outcome.status))
        self.counts["ended in time"] += bool(outcome.status)
        found += self._mixed(place) if _are_of_two_runs(place) else []
        self.counts["new outputs" if _content(place) == after else "old outputs"] += 1
        if "Traceback" in outcome.err:
            found.append(f"traceback: {outcome.err.strip().splitlines()[-1]}")
        self._run(new, place)
        left = _names(place) - _names(self.home / f"{name} new") - {"c.ckpt"}
        left |= {f"tmp/{path.name}" for path in (place / "tmp").iterdir() if not path.name.startswith("torchinductor")}
        found += [f"left behind: {', '.join(sorted(left))}"] if left else []
        found += [] if _content(place) == after and not _are_of_two_runs(place) else ["the next run writes something else"]
        for fault in found:
            self.found.append(f"{name}, {number.name} after {share:.3f} of its time: {fault}")
            print(self.found[-1], flush=True)

    def _mixed(self, place: Path) -> list[str]:
        """Look at a plan and a model of two runs."""
        self.counts["of two runs"] += 1
        said = self._ended(("verify", "m.onnx", "o.onnx", "--plan", "o.json"), place, None)
        text = "is not the file that was written with the plan"
        return [] if said.status or text in said.out + said.err else ["verify takes a plan for another model"]

    def _outputs(self, name: str, args: tuple[str, ...], kind: str) -> dict[str, str]:
        """What a command writes, and how long it takes; run once."""
        place = self.home / f"{name} {kind}"
        if not place.exists():
            self._fresh(place.name, "inputs" if kind == "old" else f"{name} old")
            start = time.monotonic()
            self._run(args, place)
            self.seconds[name] = time.monotonic() - start
            if kind == "old":
                (place / "c.ckpt").unlink(missing_ok=True)
        return _content(place)

    def _fresh(self, name: str, like: str) -> Path:
        place = self.home / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.home / like, place, copy_function=os.link if like == "inputs" else shutil.copy2)
        return place

    def _run(self, args: tuple[str, ...], place: Path) -> None:
        done = self._ended(args, place, None)
        if done.status:
            raise RuntimeError(f"{' '.join(args)}: {done.err}")

    def _ended(self, args: tuple[str, ...], place: Path, ended: tuple[int, float] | None) -> Outcome:
        """Run a command, and end it by a signal after some seconds."""

        def run() -> None:
            from onnxprune.__main__ import main as command
            from onnxprune.ir import files

            os.chdir(place)
            tempfile.tempdir = str(place / "tmp")
            if self.large:
                files.LARGE = files.LIMIT = 0
                files._INLINE = 64
            sys.argv = ["onnxprune", *args]
            command()

        return forked(run, ended)


def _faults(place: Path, before: dict[str, str], after: dict[str, str], number: signal.Signals, status: int) -> Iterator[str]:
    """Say what is wrong with the outputs after a command was ended."""
    if number != signal.SIGKILL and status not in {0, 128 + number, -number}:
        yield f"exit {status}"
    found = _content(place)
    for name in sorted({*before, *after}):
        if found.get(name) not in {before.get(name), after.get(name)}:
            yield f"{name} is neither the old nor the new one"
    if (found not in (before, after) or _are_of_two_runs(place)) and number != signal.SIGKILL:
        yield "outputs of two runs"
    if (place / "o.onnx").exists():
        try:
            onnx.checker.check_model(str(place / "o.onnx"), full_check=True)
        except Exception as error:  # noqa: BLE001 - the checker derives its exceptions from Exception alone
            yield f"o.onnx is not valid: {str(error).strip()[:200]}"


def _content(place: Path) -> dict[str, str]:
    """Hashes of the outputs: of a model with its data, wherever that lies; of a plan, but for the name that the data has."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        plan = json.loads((place / "o.json").read_bytes())
        found["o.json"] = _hash(json.dumps({key: value for key, value in plan.items() if key != "pruned"}).encode())
    with contextlib.suppress(FileNotFoundError):
        found["o.onnx"] = _hash(onnx.load(place / "o.onnx").SerializeToString(deterministic=True))
    return found


def _are_of_two_runs(place: Path) -> bool:
    """Tell whether a plan says that it was written with another model."""
    try:
        pruned = json.loads((place / "o.json").read_bytes()).get("pruned", {}).get("sha256")
        return pruned not in {None, _hash((place / "o.onnx").read_bytes())}
    except FileNotFoundError:
        return False


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir() if ".data" not in path.name or path.name.endswith(".part")}


def inputs(place: Path, run: Callable[[tuple[str, ...], Path], None]) -> None:
    """Write the files that the commands read."""
    place.mkdir()
    (place / "tmp").mkdir()
    rng = np.random.default_rng(0)
    nodes = "h = MatMul (x, a) r = Relu (h) k = MatMul (r, b) t = Tanh (k) y = MatMul (t, c)"
    text = f"net (float[n, 6] x) => (float[n, 3] y) {{ {nodes} }}"
    for name, zeros in (("m", 0.0), ("z", 0.8)):
        model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}')
        for weight, shape in (("a", (6, 16)), ("b", (16, 16)), ("c", (16, 3))):
            values = rng.standard_normal(shape, np.float32) * (rng.random(shape) >= zeros)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, weight))
        onnx.save(model, place / f"{name}.onnx")
    np.savez(place / "s.npz", x=rng.standard_normal((48, 6), np.float32))
    for name, share in (("a", "0.75"), ("b", "0.5")):
        steps = f'[prune]\ntarget = "channels={share}"\nalign = "1"\n[encode]\nencoding = "auto"\n'
        (place / f"{name}.toml").write_text(f'model = "m.onnx"\noutput = "o.onnx"\n{steps}', "utf-8")
    run(("plan", "m.onnx", "-o", "p.json", "--target", "channels=0.5", "--align", "1"), place)
    run(("encode", "z.onnx", "-o", "e.onnx"), place)


def main() -> None:
    """Run a campaign, and print its table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS), help="names, separated by commas")
    given = parser.parse_args()
    draw, names = random.Random(given.seed), given.commands.split(",")
    total, found = Counter[str](), list[str]()
    prepared()
    with tempfile.TemporaryDirectory(prefix="kills") as folder:
        campaigns = [Campaign(Path(folder, kind), large) for kind, large in (("one", False), ("two", True))]
        for campaign in campaigns:
            campaign.home.mkdir()
            inputs(campaign.home / "inputs", campaign._run)
        for _ in range(given.count):
            share = draw.random() if draw.random() < 0.5 else draw.uniform(0.75, 1.05)
            draw.choice(campaigns).round(draw.choice(names), draw.choice(SIGNALS), share)
    for campaign in campaigns:
        total, found = total + campaign.counts, found + campaign.found
    columns = ["rounds", *(number.name for number in SIGNALS), "ended in time", "old outputs", "new outputs", "of two runs"]
    print(f"| {' | '.join(columns)} | faults |\n{'|--:' * (len(columns) + 1)}|")
    print(f"| {' | '.join(str(total[name]) for name in columns)} | {len(found)} |")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
