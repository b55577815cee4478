"""Whether two versions of onnxprune do the same: both run every command; what they write and print is compared, byte by byte.

    python benchmarks/same_bytes.py BEFORE AFTER [--only REGEX] [--keep FOLDER] [--json FILE]

BEFORE and AFTER are checkouts or revisions. With `--keep`, what a clean BEFORE wrote is found again under its revision; it holds
on one machine. Exit status 1: something differs, a command failed, or one that is called `bad` did not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from trials import ROOT, handwritten

COMMANDS = """
help: {|inspect|prune|plan|apply|verify|sensitivity|sparsify|encode|decode|quantize|finetune|train|run|benchmark} --help
plan: plan ../digits.onnx -o plan.json --target macs=0.75 --align 1
apply: apply ../digits.onnx ../plan/plan.json -o o.onnx
masked: apply ../digits.onnx ../plan/plan.json -o o.onnx --masked --json
pruned: prune -B @ --plan-out plan.json
verify: verify ../digits.onnx ../{apply/o.onnx --plan ../plan/plan.json|pruned/o.onnx --plan ../pruned/plan.json --seed 1 --json}
sensitivity: sensitivity --calib ../calib.npz ../{digits.onnx --plot curves.png|digits__bn.onnx --criterion l2 --no-repair --json}
sparse: sparsify @ --sparsity 0.8
encoded: encode ../sparse/o.onnx -o o.onnx
nm: encode ../sparse/o.onnx -o o.onnx --encoding nm --keep-negative-zeros --json
int8: quantize ../sparse/o.onnx -o o.onnx --calib ../calib.npz --eval ../train.npz --activations int8 --exclude stem*
more: {decode ../encoded/o.onnx|decode ../nm/o.onnx --json|encode ../sparse/o.onnx --encoding delta|encode ../int8/o.onnx\
|encode ../sparse/o.onnx --mode fast --json|encode ../masked/o.onnx --encoding coo|apply ../masked/o.onnx ../plan/plan.json\
|plan ../digits__ts.onnx --calib ../calib.npz --seed 1|plan ../digits__bn.onnx --criterion l1 --scope uniform --json} -o o.onnx
inspect: inspect ../{digits.onnx|digits__bn.onnx --layers --all|digits__ts.onnx --protect stem* --json|encoded/o.onnx}
prune-model: prune -B -o o.onnx --align 1 --json ../{digits|digits__bn|digits__ts|apply/o|encoded/o|int8/o}.onnx
prune-bn: prune -B -o o.onnx --seed 3 ../digits__bn.onnx --criterion {l1|l2 --json|linf|fpgm|bn_scale|random}
prune: prune -B @ {--target params=0.6|--target size=0.6|--target channels=0.6|--scope uniform|--no-verify|--scope isomorphic\
|--align 16|--allow-inexact --only channels --only residual|--protect crossed* --protect last*|--calib noise\
|--max-drop 9% --eval ../train.npz|--max-drop 9% --eval ../train.npz --metric mse|--calib ../train.npz --criterion variance}
prune-lossless: prune -B ../masked/o.onnx -o o.onnx --lossless --align 1 {|--target macs=0.5 --json|--calib ../calib.npz}
prune-calib: prune -B @ --calib ../calib.npz --json {--target macs=0.4|--target params=0.4|--target size=0.4|--scope uniform\
|--target channels=0.4|--scope isomorphic|--no-repair|--allow-inexact --plan-out p|--max-drop 3% --eval ../train.npz}
prune-by: prune -B @ --calib ../train.npz --scope global --criterion {wanda|flap|taylor|fisher|synflow|snip|grasp|movement}
sparsify: sparsify @ {--target threshold=1 --json|--encoding auto --target size=0.5|--target gzip=0.4|--pattern 4x1\
|--pattern filter|--pattern 2:4 --no-permute --protect crossed* --no-compare|--pattern 1:4 --ends|--calib ../calib.npz}
sparsify-by: sparsify ../digits__bn.onnx -o o.onnx --calib ../train.npz --method {magnitude|random --json|obs|taylor|synflow\
|movement|wanda --allocation erk|wanda --allocation lamp --json|wanda --allocation global|wanda --no-repair --layer *last*=0.3\
|wanda --allocation uniform|wanda --pattern 2:4|wanda --pattern 4x1|wanda --pattern channel}
quantize: quantize ../digits__bn.onnx -o o.onnx --calib ../calib.npz {--method entropy|--method percentile --json|--per-tensor}
finetune: finetune --data ../train.npz -o o.onnx --epochs 2 ../{digits__bn.onnx --patience 1 --eval ../train.npz|encoded/o.onnx\
|apply/o.onnx --teacher ../digits.onnx --loss cross_entropy+distill --augment flip,shift --batch 32|sparse/o.onnx\
 --resume checkpoint|digits__ts.onnx --optimizer sgd --clip 1 --json|digits.onnx --precision bfloat16 --schedule step}
train: train @ --data ../train.npz --epochs 1 --rounds 2 --method {gradual --json|oneshot --threshold 1|iterative|random|snip\
|grasp|synflow|lottery --start random|weight_rewinding|rate_rewinding|supermask|movement|soft_movement --json|scratch\
|gradual --pattern 2:4 --eval ../train.npz|supermask --target params=0.7|oneshot --target macs=0.6 --criterion l2 --scope global}
train-macs: train @ --data ../train.npz --epochs 1 --rounds 1 --json --target macs=0.6 --method {iterative|group_sl|gradual|snip}
recipe: run ../dense.toml -o o.onnx --keep kept --json
run: run -o o.onnx ../{dense.toml --dry-run|dense.toml --keep ../recipe/kept|sparse.toml|sparse.toml --json}
time: {benchmark ../digits.onnx ../apply/o.onnx --seconds 0.1|prune @|encode ../sparse/o.onnx -o o.onnx --measure}
bad: {squeeze @|encode|inspect ../calib.npz|apply @ ../digits.onnx|run ../digits.onnx|run ../key.toml|plan @ --nonsense\
|verify ../digits.onnx ../pruned/o.onnx --plan ../plan/plan.json|apply ../digits__ts.onnx ../plan/plan.json -o o.onnx\
|encode @ --mode x|quantize @ --method x|finetune @ --data x|benchmark ../digits.onnx --providers x}
bad-file: encode -o {o.onnx ../nothing.onnx|../digits.onnx ../digits.onnx|../apply/o.onnx ../digits.onnx|../no/o ../digits.onnx}
bad-prune: prune -B @ --{target x|criterion x|scope x|align x|seed x|only x|calib x|target macs=2|target macs=0.001|max-drop 1%\
|criterion obs|criterion snip --calib ../calib.npz|scope sensitivity|calib ../digits.onnx|lossless --plan-out p}
bad-sparsify: sparsify @ --{target|pattern|method|allocation|layer|encoding|sparsity|calib} nonsense
bad-train: train @ --data ../train.npz --{method|loss|optimizer|target|pattern|allocation|rewind|criterion|epochs} nonsense
"""
"""A name and a command, or several: braces hold what stands there in turn, `@` is `../digits.onnx -o o.onnx`, `-B` is
`--no-benchmark`. Each runs in a folder of its name, beside the inputs and single commands. Of `time` only the status counts."""
RECIPES = {
    "dense": "[prune]\ntarget = 'macs=0.6'\n[finetune]\ndata = 'train.npz'\nepochs = 1\n[quantize]\ncalib = 'calib.npz'",
    "sparse": "[train]\ndata = 'train.npz'\nepochs = 1\n[again]\ndo = 'sparsify'\nsparsity = 0.9\n[encode]",
    "key": "[prune]\nnonsense = 1",
}
FORK = multiprocessing.get_context("fork")


def rows() -> dict[str, list[str]]:
    """The words of each command by its name."""
    found: dict[str, list[str]] = {}
    for line in COMMANDS.strip().replace("@", "../digits.onnx -o o.onnx").replace("-B", "--no-benchmark").splitlines():
        name, text = line.split(": ", 1)
        start, turns, end = text.replace("}", "{").split("{") if "{" in text else (text, "", "")
        found |= {f"{name} {turn}".strip().replace("/", "_"): f"{start}{turn}{end}".split() for turn in turns.split("|")}
    return found


def write_inputs(folder: Path) -> None:
    """The models, samples and recipe files; no file tells when it was written."""
    shutil.copytree(ROOT / "models", folder, ignore=shutil.ignore_patterns("*.py", "*.toml", "__pycache__"))
    digits = handwritten()
    np.savez(folder / "train.npz", image=digits.held[0][:192], label=digits.held[1][:192])
    np.savez(folder / "calib.npz", image=digits.calibration[:64])
    for name, text in RECIPES.items():
        (folder / f"{name}.toml").write_text(f"model = 'digits.onnx'\noutput = 'o.onnx'\neval = 'train.npz'\n{text}")
    for path in folder.iterdir():
        os.utime(path, (0, 0))  # what recipes keep depends on it


def git(folder: Path, *words: str) -> str:
    return subprocess.check_output([str(shutil.which("git")), "-C", str(folder), *words], text=True).strip()


def opened(text: str, kept: Path | None, name: str, stack: contextlib.ExitStack) -> tuple[Path, Path]:
    """The checkout with this path or revision, and the folder where its commands run: `name`, if it is not to be found again."""
    temporary = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
    checkout = Path(text).resolve() if Path(text).is_dir() else temporary / "checkout"
    if not checkout.is_dir():
        git(ROOT, "worktree", "add", "--detach", str(checkout), text)
        stack.callback(git, ROOT, "worktree", "remove", "--force", str(checkout))
    known = name == "before" and not git(checkout, "status", "--porcelain")
    folder = (kept or temporary).resolve() / (git(checkout, "rev-parse", "HEAD") if known else name)
    if not known or not folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        write_inputs(folder)
    return checkout, folder


def command_line(words: list[str], checkout: Path, folder: Path) -> None:
    """Become `python -m onnxprune` of the checkout, and of nothing else: not of an editable installation, either."""
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY), number)
    sys.argv, os.environ["PYTHONPATH"] = ["onnxprune", *words], str(checkout)
    sys.path[:] = [str(checkout), *(path for path in sys.path if Path(path).parent != ROOT)]
    sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in str(finder)]
    runpy.run_module("onnxprune", run_name="__main__", alter_sys=True)


def carry_out(commands: dict[str, list[str]], checkout: Path, side: Path) -> None:
    """Run one command after the other; not those whose results are there."""
    again = False
    for name, words in commands.items():
        folder, told = side / name, " ".join(words)
        if again or not (folder / "status").exists() or (folder / "status").read_text().partition(" ")[2] != told:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            process = FORK.Process(target=command_line, args=(words, checkout, folder))
            process.start()
            process.join()
            (folder / "status").write_text(f"{process.exitcode} {told}")
            again |= " " not in name  # what others may read is new


def results(folder: Path, command: str) -> dict[str, bytes]:
    """What is compared: files by name, but for times and for paths of the checkout and of temporary folders."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for name, content in found.items():
        if name in {"stdout", "stderr"} or name.endswith(".json"):
            found[name] = re.sub(rb'("seconds": )(\{[^}]*\}|[-+.e\d]+)|[^\s"]*/onnxprune(-\w+)?/', rb"\1", content)
        if name == "stdout" and command in {"run", "finetune", "train"}:  # the last column of tables, and its varying width
            found[name] = re.sub(rb"(?m) +(\d+\.\d)?( s)?$", rb"", found[name])
    return {"status": found["status"]} if folder.name.startswith("time") else found


def main() -> int:
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S606 - read when libraries load
    for name in ("onnx_graphsurgeon", "onnxruntime", "sklearn.datasets", "torch", "typer"):
        __import__(name)  # once, and not in each process
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a checkout or a revision")
    parser.add_argument("after", help="the other one")
    parser.add_argument("--only", default="", metavar="REGEX", help="commands whose names match, and those that others need")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where results are kept: of BEFORE for the next time, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table here")
    options = parser.parse_args()
    commands = {name: words for name, words in rows().items() if " " not in name or re.search(options.only, name)}
    table: list[dict[str, str]] = []
    with contextlib.ExitStack() as stack:
        sides = [opened(getattr(options, name), options.keep, name, stack) for name in ("before", "after")]
        workers = [FORK.Process(target=carry_out, args=(commands, *side)) for side in sides]
        for step in (FORK.Process.start, FORK.Process.join):
            for worker in workers:
                step(worker)
        for name, words in commands.items():
            before, after = (results(folder / name, words[0]) for _, folder in sides)
            files = sorted(file for file in {*before, *after} if before.get(file) != after.get(file))
            failed = after["status"].startswith(b"0 ") == name.startswith("bad")
            verdict = "different" if files else "failed" if failed else "same"
            table.append({"command": name, "verdict": verdict, "differs": ", ".join(files)})
            print(f"{name:90} {verdict:9} {', '.join(files)}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    return int(any(row["verdict"] != "same" for row in table))


if __name__ == "__main__":
    sys.exit(main())
