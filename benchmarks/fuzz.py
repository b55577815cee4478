"""A campaign of broken inputs: every command must refuse them in one line, and soon, or do what it says.

    python benchmarks/fuzz.py 2000 --seed 1 --findings found/

Models are changed field by field, node by node and byte by byte, with data inside and outside of the file, and so are plans,
recipes and samples. Every command runs in a process of its own, forked from one that has imported everything. What counts as a
finding: a traceback, the exit status 70, a crash, more than 30 s, more than 1 GB, output in spite of an error, and output that
does not compute what the report claims. A finding is shrunk to the fewest mutations, and saved with its seed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from fuzz_models import outside, seeds
from fuzz_mutations import mutated_bytes, mutated_json, mutated_model

SECONDS = 30.0
MEGABYTES = 1024
STATUSES = frozenset({0, 1, 2})
KINDS = ("model", "bytes", "external", "plan", "recipe", "samples")
WEIGHTS = (12, 2, 3, 1, 1, 1)
COMMANDS = (
    ("inspect", "m.onnx"),
    ("prune", "m.onnx", "-o", "o.onnx", "--target", "channels=0.5", "--align", "1", "--no-benchmark", "--plan-out", "o.json"),
    ("encode", "m.onnx", "-o", "o.onnx"),
    ("sparsify", "m.onnx", "-o", "o.onnx", "--sparsity", "0.5", "--method", "magnitude"),
    ("prune", "m.onnx", "-o", "o.onnx", "--lossless", "--no-benchmark"),
)
SIDE = {
    "plan": (("apply", "m.onnx", "p.json", "-o", "o.onnx"),),
    "recipe": (("run", "r.toml", "-o", "o.onnx"),),
    "samples": (
        ("prune", "m.onnx", "-o", "o.onnx", "--calib", "s.npz", "--target", "channels=0.5", "--align", "1", "--no-benchmark"),
    ),
}
RECIPE = b'model = "m.onnx"\noutput = "o.onnx"\n[prune]\ntarget = "channels=0.5"\nalign = "1"\n[encode]\nencoding = "auto"\n'


@dataclass(frozen=True)
class Case:
    """One broken input.

    Attributes:
        kind: of `KINDS`.
        seed: the name of the model that it starts from.
        choices: a seed for each mutation.
    """

    kind: str
    seed: str
    choices: tuple[int, ...]


@dataclass
class Outcome:
    """What a command did."""

    status: int
    seconds: float
    megabytes: int
    said: str
    wrong: str = ""

    @property
    def finding(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.seconds > SECONDS:
            return "hang"
        if self.megabytes > MEGABYTES:
            return "memory"
        if self.status < 0:
            return f"crash {-self.status}"
        if "Traceback" in self.said:
            return "traceback"
        if self.status not in STATUSES:
            return f"exit {self.status}"
        return self.wrong


@dataclass
class Campaign:
    """Runs cases in a folder of its own, and counts.

    Attributes:
        seed: of everything drawn.
        findings: where what is found is saved.
        kinds: of `KINDS`.
    """

    seed: int
    findings: Path | None
    kinds: tuple[str, ...] = KINDS
    models: dict[str, ModelProto] = field(default_factory=seeds)
    counts: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)
    plans: dict[str, str] = field(default_factory=dict)

    def case(self, number: int) -> Case:
        """The case of a number; the same for the same seed."""
        draw = random.Random(f"{self.seed} {number}")
        weights = [weight for kind, weight in zip(KINDS, WEIGHTS, strict=True) if kind in self.kinds]
        kind = draw.choices([kind for kind in KINDS if kind in self.kinds], weights)[0]
        choices = tuple(draw.randrange(2**48) for _ in range(draw.choice((1, 1, 1, 2, 3, 6))))
        return Case(kind, draw.choice(sorted(self.models)), choices)

    def run(self, number: int) -> None:
        """Run every command on the case of a number."""
        case = self.case(number)
        self.counts["inputs"] += 1
        commands = SIDE.get(case.kind) or random.Random(number).sample(COMMANDS, 2)
        for command in commands:
            outcome = self.outcome(case, command)
            if outcome is None:
                continue
            self.counts["commands"] += 1
            self.counts[f"exit {outcome.status}"] += 1
            if outcome.finding:
                self._report(number, case, command, outcome)

    def outcome(self, case: Case, command: tuple[str, ...]) -> Outcome | None:
        """What a command makes of a case; ``None`` where the mutation gives no file."""
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder, contextlib.chdir(folder):
            if not self._write(case):
                return None
            given = {path.name for path in Path().iterdir()}
            outcome = forked(command)
            left = {path.name for path in Path().iterdir()} - given
            if outcome.status and left:
                outcome.wrong = f"wrote {', '.join(sorted(left))} and exit {outcome.status}"
            elif not outcome.status and command[0] in {"prune", "encode"} and not outcome.finding:
                outcome.wrong = checked(command)
            return outcome

    def _write(self, case: Case) -> bool:
        """Write the files of a case into the working directory; false where protobuf cannot write the model."""
        plain = self.models[case.seed]
        choices = list(case.choices)
        model = ModelProto()
        model.CopyFrom(plain)
        data = outside(model) if case.kind == "external" else b""
        try:
            if case.kind in {"model", "external"}:
                model = mutated_model(model, choices)
            content = model.SerializeToString()
        except (ValueError, onnx.parser.ParseError):
            return False
        if case.kind == "bytes":
            content = mutated_bytes(content, choices)
        Path("m.onnx").write_bytes(content)
        if data:
            Path("w.bin").write_bytes(data)
        if case.kind == "plan":
            Path("p.json").write_text(mutated_json(self._plan(case.seed), choices), "utf-8")
        elif case.kind == "recipe":
            Path("r.toml").write_bytes(mutated_bytes(RECIPE, choices))
        elif case.kind == "samples":
            shape = [dim.dim_value or 9 for dim in plain.graph.input[0].type.tensor_type.shape.dim]
            np.savez("s.npz", np.random.default_rng(0).standard_normal(shape).astype(np.float32))
            Path("s.npz").write_bytes(mutated_bytes(Path("s.npz").read_bytes(), choices))
        return True

    def _plan(self, seed: str) -> str:
        """The plan of a model that nothing was done to."""
        if seed not in self.plans:
            with tempfile.TemporaryDirectory(prefix="fuzz") as folder, contextlib.chdir(folder):
                onnx.save(self.models[seed], "m.onnx")
                forked(("plan", "m.onnx", "-o", "p.json", "--target", "channels=0.5", "--align", "1"))
                self.plans[seed] = Path("p.json").read_text("utf-8") if Path("p.json").exists() else '{"groups": []}'
        return self.plans[seed]

    def _report(self, number: int, case: Case, command: tuple[str, ...], outcome: Outcome) -> None:
        """Shrink a finding, save it and say so."""
        kind = outcome.finding
        for choice in case.choices:
            fewer = Case(case.kind, case.seed, tuple(one for one in case.choices if one != choice))
            again = self.outcome(fewer, command) if fewer.choices else None
            if again and again.finding.split()[0] == kind.split()[0]:
                case, outcome = fewer, again
        self.counts[kind.split()[0] if not kind.startswith("exit") else kind] += 1
        said = outcome.said.strip().splitlines()
        text = f"{number}: {command[0]} {case.seed} {case.kind}: {kind}: {said[-1][:300] if said else ''}"
        self.found.append(text)
        print(text, flush=True)
        if self.findings:
            folder = self.findings / f"{self.seed}-{number}-{command[0]}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with contextlib.chdir(folder):
                self._write(case)
                Path("finding.txt").write_text(f"{' '.join(command)}\n{case}\n{outcome.finding}\n{outcome.said}", "utf-8")


def forked(command: tuple[str, ...]) -> Outcome:
    """Run a command in a child process that has everything imported."""
    with tempfile.TemporaryFile() as said:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            _be(command, said.fileno())
        status, used = _waited(child, start)
        said.seek(0)
        text = said.read(1 << 16).decode("utf-8", "replace")
    return Outcome(status, time.monotonic() - start, used, text)


def _be(command: tuple[str, ...], output: int) -> None:
    """Become a command; never returns."""
    from onnxprune.cli import main

    status = 99
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 31, 1 << 31))
        sys.argv = ["onnxprune", *command]
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - whatever comes of the command is what is looked for
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _waited(child: int, start: float) -> tuple[int, int]:
    """The exit status of a child and the megabytes it took; it is killed when its time is over."""
    pause = 0.001
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_maxrss >> 10
        if time.monotonic() - start > SECONDS:
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            return -signal.SIGKILL, used.ru_maxrss >> 10
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def checked(command: tuple[str, ...]) -> str:
    """Compare what was written with what it claims to equal; returns what is wrong."""
    if command[0] == "prune" and "--lossless" not in command:
        masked = forked(("apply", "m.onnx", "o.json", "--masked", "-o", "masked.onnx"))
        if masked.status:
            return f"plan does not apply: {masked.said.strip()[-200:]}"
        return _compared("masked.onnx")
    return _compared("m.onnx")


def _compared(reference: str) -> str:
    """Compare two models in a child process, whose crashes count as those of ONNX Runtime."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.suppress(BaseException):
            os.write(writing, _difference(reference, "o.onnx").encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


def _difference(one: str, other: str) -> str:
    import onnxruntime as ort

    from onnxprune.ir.model import Model
    from onnxprune.runtime.session import random_feeds
    from onnxprune.shapes.candidates import binding_candidates

    model = Model.of(one)
    for sizes in itertools.islice(binding_candidates(model), 3):
        feeds = random_feeds(model.inputs, sizes[0], seed=1)
        results = []
        for path in (one, other):
            options = ort.SessionOptions()
            options.log_severity_level, options.intra_op_num_threads = 4, 1
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            try:
                results.append(ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds))
            except Exception as error:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
                results.append(error)
        first, second = results
        if isinstance(first, Exception):
            continue
        if isinstance(second, Exception):
            return f"wrong: what was written does not run: {str(second)[:200]}"
        for at, (a, b) in enumerate(zip(first, second, strict=True)):
            if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or not np.isfinite(a).all():
                continue
            if a.shape != b.shape or np.abs(a - b).max(initial=0) > 1e-3 * (np.abs(a).max(initial=0) + 1e-12):
                return f"wrong: output {at} differs"
    return ""


def prepared() -> None:
    """Import everything that commands need, by carrying each of them out once; their threads end with their sessions."""
    from onnxprune.cli import app

    with tempfile.TemporaryDirectory(prefix="fuzz") as folder, contextlib.chdir(folder), Path(os.devnull).open("w") as nothing:
        onnx.save(seeds()["mlp"], "m.onnx")
        Path("r.toml").write_bytes(RECIPE)
        np.savez("s.npz", np.random.default_rng(0).standard_normal((9, 6)).astype(np.float32))
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            for command in (*COMMANDS, *SIDE["recipe"], *SIDE["samples"]):
                with contextlib.suppress(Exception, SystemExit):
                    app([*command, *(["--force"] if "-o" in command else [])], standalone_mode=False)
    import onnxprune.driver.fault  # noqa: F401 - commands that fail import it


def rows(counts: Counter[str]) -> Iterator[str]:
    """The table of a campaign, as Markdown."""
    yield "| inputs | commands | done | refused | tracebacks | exits 70 | crashes | hangs | memory | wrong outputs |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    numbers = [counts["inputs"], counts["commands"], counts["exit 0"], counts["exit 1"] + counts["exit 2"]]
    numbers += [counts[name] for name in ("traceback", "exit 70", "crash", "hang", "memory")]
    yield f"| {' | '.join(map(str, [*numbers, counts['wrong'] + counts['wrote'] + counts['plan']]))} |"


def main() -> None:
    """Run a campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path)
    parser.add_argument("--kinds", default=",".join(KINDS))
    given = parser.parse_args()
    prepared()
    findings = given.findings.absolute() if given.findings else None
    campaign, start = Campaign(given.seed, findings, tuple(given.kinds.split(","))), time.monotonic()
    for number in range(given.first, given.first + given.count):
        campaign.run(number)
    print(*rows(campaign.counts), sep="\n")
    print(f"{campaign.counts['inputs'] / (time.monotonic() - start):.1f} inputs per second")
    sys.exit(bool(campaign.found))


if __name__ == "__main__":
    main()
