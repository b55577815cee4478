"""The command that shows what pruning does, on a model and samples that come with the package."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.cli.app import app
from onnxprune.cli.derived import command
from onnxprune.cli.output import progress, show
from onnxprune.errors import OutputError, QualityError, TargetError
from onnxprune.options.commands import Demo

if TYPE_CHECKING:
    from onnxprune.driver.prune import Result
    from onnxprune.options.prune import Recipe

__all__ = ["FLOOR", "RECIPES", "demo"]

FILES = ("digits.onnx", "calib.npz", "test.npz")
FLOOR = "97%"
"""The score that the result has, at least."""
RECIPES: Mapping[str, Mapping[str, str]] = {
    "cut-alone": {"target": "macs=0.5"},
    "with-samples": {"target": "macs=0.5", "calib": "calib.npz"},
    "by-latency": {"target": "latency=0.7", "calib": "calib.npz"},
}
"""What is shown: the options of `prune` by the name of the file that is written."""


@command(app)
def demo(given: Demo) -> None:
    """Prune a small classifier of handwritten digits, which comes with the package: cut alone, with samples, and by latency."""
    from onnxprune.cli import demo_tables
    from onnxprune.driver.progress import Phase
    from onnxprune.latency.benchmark import benchmark
    from onnxprune.pages.page import missing

    folder = _folder(given.output, force=given.force)
    with progress("copying the model and its samples", quiet=given.as_json, phases=(*RECIPES, "timing")) as tell:
        made: dict[str, Result] = {}
        missed: dict[str, str] = {}
        for name in RECIPES:
            tell(Phase(f"pruning: {name}", name))
            try:
                made[name] = _made(_recipe(name, folder), folder, lambda text, name=name: tell(f"{name}: {text}"))  # type: ignore[misc]
            except TargetError as error:  # a latency that this machine does not reach
                missed[name] = str(error)
            else:
                made[name].save(folder / f"{name}.onnx", force=True)
        tell(Phase("timing all models side by side", "timing"))
        timed = benchmark([folder / "digits.onnx", *(folder / f"{name}.onnx" for name in made)], seconds=given.seconds)
    rows = _rows(made, timed.to_dict()["rows"])
    good = [row for row in rows if row["score"] >= float(FLOOR.rstrip("%")) / 100 and row["ratio"] < 1]
    best = min(good, key=lambda row: row["ratio"])["name"] if good else ""
    told = {"folder": str(folder), "machine": dict(timed.machine), "models": rows, "best": best, "missed": missed}
    report = {**told, "commands": _commands(folder, made)}
    if not given.report and not missing():
        given = replace(given, report=folder / "report.html")
    show(report, given, lambda: demo_tables.shown(report, given.report))
    if not best:
        text = f"no model is faster here and has {FLOOR} of the digits right: the machine may be busy, repeat"
        raise QualityError(f"{folder}: {text}")


def _folder(output: Path, *, force: bool) -> Path:
    """The folder that is written to, with the model and its samples.

    Raises:
        OutputError: it is there already, or cannot be written.
    """
    if output.exists() and not force:
        raise OutputError(f"{output}: exists: write elsewhere with -o FOLDER, or pass --force to write over what is in it")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (output / name).write_bytes(resources.files("onnxprune.cli").joinpath("digits", name).read_bytes())
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}") from error
    return output


def _recipe(name: str, folder: Path) -> Recipe:
    from onnxprune.options.prune import Recipe

    options: dict[str, Any] = dict(RECIPES[name])
    if "calib" in options:
        options["calib"] = str(folder / options["calib"])
    return Recipe(**options, eval=str(folder / "test.npz"))


def _made(recipe: Recipe, folder: Path, tell: Callable[[str], None]) -> Result:
    from onnxprune.driver.prune import prune

    return prune(folder / "digits.onnx", recipe, progress=tell)


def _rows(made: Mapping[str, Result], timed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The original and each model: score, ratio of latencies, bytes, MACs, and whether its surgery was verified."""
    first = next(iter(made.values())).report
    assert first.score is not None  # noqa: S101 - there are labels
    before = {"name": "original", "score": first.score.original, "ratio": 1.0, "verified": True, "level": "good"}
    rows = [{**before, "ms": timed[0]["latency"]["median_ms"], "bytes": first.before.size, "macs": first.before.macs}]
    for (name, result), row in zip(made.items(), timed[1:], strict=True):
        report = result.report
        assert report.score is not None and report.judgement is not None  # noqa: S101, PT018 - there are labels
        told = {"score": report.score.pruned, "ratio": row["ratio"]["median"], "ms": row["latency"]["median_ms"]}
        told |= {"bytes": report.after.size, "macs": report.after.macs, "level": str(report.judgement.level)}
        rows.append({"name": name, **told, "verified": bool(report.verification and report.verification.ok)})
    return rows


def _commands(folder: Path, made: Container[str]) -> list[str]:
    """The same from the command line, of those that were made: the others would end as they did here."""
    from onnxprune.cli.suggestions import Suggestions

    found = Suggestions(folder / "digits.onnx")
    for name, options in ((name, options) for name, options in RECIPES.items() if name in made):
        words = [word for key, value in options.items() for word in (f"--{key}", folder / value if key == "calib" else value)]
        found.add("prune", folder / "digits.onnx", "-o", folder / f"my-{name}.onnx", *words, "--eval", folder / "test.npz")
    return found.commands
