"""A campaign of broken inputs: every command must refuse them in one line, and soon, or do what it says.

    python benchmarks/fuzz.py 2000 --seed 1 --findings found/

Models are changed field by field, node by node and byte by byte, with data inside and outside of the file. So are plans, recipes,
samples, labels, images, checkpoints, the cache of measured times and kept steps. Every command runs in a process of its own,
forked from one that has everything imported, and so does everything else that touches a broken file. What counts as a finding: a
traceback, the exit status 70, a crash, more than 30 s of computing, more than 1 GB, a refusal of more than one line, output or a
changed input in spite of an error, a file left behind, and output that is not valid, does not run or does not compute what the
report claims. A finding is shrunk to the fewest mutations, and saved with its seed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ["ONNXPRUNE_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import onnx

from fuzz_checks import checked
from fuzz_inputs import KINDS, Case, Inputs
from fuzz_models import seeds
from fuzz_workers import Outcome, command

GROWS = frozenset({"cache", "kept", "checkpoint"})
"""Kinds whose files a command goes on writing."""
FINDINGS = ("traceback", "exit", "crash", "hang", "memory", "lines", "escape", "wrong", "wrote")


@dataclass
class Campaign:
    """Runs cases in folders of their own, and counts.

    Attributes:
        seed: of everything drawn.
        inputs: what cases are made of.
        findings: where what is found is saved.
        kinds: of `KINDS`.
    """

    seed: int
    inputs: Inputs
    findings: Path | None
    kinds: tuple[str, ...]
    counts: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def case(self, number: int) -> Case:
        """The case of a number; the same for the same seed."""
        draw = random.Random(f"{self.seed} {number}")
        kind = draw.choices(self.kinds, [KINDS[kind].weight for kind in self.kinds])[0]
        choices = tuple(draw.randrange(2**48) for _ in range(draw.choice((1, 1, 1, 2, 3, 6))))
        return Case(kind, draw.choice(KINDS[kind].seeds or sorted(self.inputs.models)), choices)

    def run(self, number: int) -> None:
        """Run some commands on the case of a number."""
        case, draw = self.case(number), random.Random(f"{self.seed} {number} commands")
        self.counts["inputs"] += 1
        self.counts[f"{case.kind} inputs"] += 1
        for args in draw.sample(KINDS[case.kind].commands, KINDS[case.kind].count):
            given = (
                *args,
                *(["--force"] if "-o" in args and draw.random() < 0.5 else []),
                *(["--json"] if draw.random() < 0.3 else []),
            )
            outcome = self.outcome(case, given)
            if outcome is None:
                continue
            self.counts["commands"] += 1
            self.counts[f"exit {outcome.status}"] += 1
            if outcome.finding:
                self._report(number, case, given, outcome)

    def outcome(self, case: Case, args: tuple[str, ...]) -> Outcome | None:
        """What a command makes of a case; ``None`` where the mutation gives no file."""
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder, contextlib.chdir(folder):
            if not self.inputs.write(case):
                return None
            if "--force" in args:
                Path("o.onnx").write_bytes(b"old")
            before = _state()
            outcome = command(args, {"TMPDIR": "tmp", **dict(KINDS[case.kind].settings)})
            if not outcome.finding:
                outcome.wrong = _changed(case, outcome, before, _state()) or ("" if outcome.status else checked(args, outcome))
            return outcome

    def _report(self, number: int, case: Case, args: tuple[str, ...], outcome: Outcome) -> None:
        """Shrink a finding, save it and say so."""
        kind = outcome.finding.split()[0].rstrip(":")
        for choice in case.choices:
            fewer = Case(case.kind, case.seed, tuple(one for one in case.choices if one != choice))
            again = self.outcome(fewer, args) if fewer.choices else None
            if again and again.finding.startswith(kind):
                case, outcome = fewer, again
        self.counts[kind] += 1
        said = outcome.err.strip().splitlines()
        text = f"{number}: {args[0]} {case.seed} {case.kind}: {outcome.finding}: {said[-1][:300] if said else ''}"
        self.found.append(text)
        print(text, flush=True)
        if self.findings:
            folder = self.findings / f"{self.seed}-{number}-{args[0]}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with contextlib.chdir(folder):
                self.inputs.write(case)
                Path("finding.txt").write_text(f"{' '.join(args)}\n{case}\n{outcome.finding}\n{outcome.err}", "utf-8")


def _state() -> dict[str, tuple[int, bytes]]:
    """The files below the working directory, with their kinds and what is in them."""
    found = {}
    for root, folders, names in os.walk("."):
        for path in (Path(root, name) for name in (*folders, *names)):
            found[str(path)] = (path.lstat().st_mode, path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
    return found


def _changed(case: Case, outcome: Outcome, before: dict[str, tuple[int, bytes]], after: dict[str, tuple[int, bytes]]) -> str:
    """Say which files a command must not have made, changed or removed; a recipe that was changed may name other outputs."""
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    allowed = {name for name in changed if case.kind in GROWS and name.startswith(("cache", "keep", "c.ckpt"))}
    if not outcome.status:
        allowed |= changed - before.keys() if case.kind == "recipe" else set()
        allowed |= {"o.onnx", "o.json"}
    odd = sorted(name for name in changed - allowed if not name.startswith("tmp/torchinductor"))  # PyTorch's own
    return f"wrote {', '.join(odd)} and exit {outcome.status}" if odd else ""


def prepared() -> None:
    """Import what commands need, by carrying some of them out; but nothing trains here: PyTorch's threads survive no fork."""
    from onnxprune.cli import app

    with tempfile.TemporaryDirectory(prefix="fuzz") as folder, contextlib.chdir(folder), Path(os.devnull).open("w") as nothing:
        onnx.save(seeds()["mlp"], "m.onnx")
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            for args in KINDS["model"].commands[:6]:
                with contextlib.suppress(Exception, SystemExit):
                    app([*args, *(["--force"] if "-o" in args else [])], standalone_mode=False)
    import torch

    import onnxprune.driver.fault
    import onnxprune.driver.quantize
    import onnxprune.pipeline.run
    import onnxprune.training.finetune
    import onnxprune.training.train  # noqa: F401

    torch.set_num_threads(1)


def rows(counts: Counter[str]) -> Iterator[str]:
    """The table of a campaign, as Markdown."""
    yield f"| inputs | commands | done | refused | {' | '.join(FINDINGS)} |"
    yield "|--:" * (4 + len(FINDINGS)) + "|"
    numbers = [counts["inputs"], counts["commands"], counts["exit 0"], counts["exit 1"] + counts["exit 2"]]
    yield f"| {' | '.join(map(str, [*numbers, *(counts[name] for name in FINDINGS)]))} |"
    yield ""
    yield "| kind | inputs |"
    yield "|---|--:|"
    yield from (f"| {kind} | {counts[f'{kind} inputs']} |" for kind in KINDS if counts[f"{kind} inputs"])


def main() -> None:
    """Run a campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path)
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args()
    prepared()
    findings = given.findings.absolute() if given.findings else None
    with tempfile.TemporaryDirectory(prefix="fuzz") as home:
        campaign, start = Campaign(given.seed, Inputs(Path(home)), findings, tuple(given.kinds.split(","))), time.monotonic()
        for number in range(given.first, given.first + given.count):
            campaign.run(number)
    print(*rows(campaign.counts), sep="\n")
    print(f"{campaign.counts['inputs'] / (time.monotonic() - start):.1f} inputs per second")
    sys.exit(bool(campaign.found))


if __name__ == "__main__":
    main()
