"""What single commands read, write and print, beside the recipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from onnxprune.options.fields import Option, Options
from onnxprune.options.shared import Preprocess, RequireProof, Samples, Seed, Shape
from onnxprune.options.tracking import Tracking

__all__ = [
    "Apply",
    "Benchmark",
    "Compare",
    "Compares",
    "Decode",
    "Demo",
    "Encode",
    "Inspect",
    "LatencyMeasure",
    "LatencyShapes",
    "Lint",
    "Log",
    "Makes",
    "Prune",
    "Run",
    "Sensitivity",
    "Train",
    "Verify",
    "Writes",
]

_Model = Annotated[Path, Option(argument=True, metavar="MODEL")]
_Threads = Annotated[int | None, Option(range="[1, inf)", metavar="N")]
_Memory = Annotated[str | None, Option(metavar="SIZE")]
_Out = Annotated[Path, Option(flags="-o/--output", metavar="OUT")]


@dataclass(frozen=True, kw_only=True)
class Prints(Options):
    """A command.

    Attributes:
        custom_ops: a shared library of custom operators of ONNX Runtime that the model has.
        as_json: print one JSON document and nothing else.
    """

    custom_ops: Annotated[tuple[str, ...], Option(metavar="FILE")] = ()
    as_json: Annotated[bool, Option(flags="--json")] = False


@dataclass(frozen=True, kw_only=True)
class Replaces(Prints):
    """A command that writes a file.

    Attributes:
        report: also write the report as one HTML page.
        force: replace an existing output.
    """

    report: Annotated[Path | None, Option(metavar="FILE")] = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Reads(Prints):
    """A command that reads a model.

    Attributes:
        model: an .onnx file, or a folder with one.
        threads: threads of every library that computes; else as ONNXPRUNE_THREADS says, or the cores that the process may use.
        max_memory: the memory that it may take, as 2G or 512M; else as ONNXPRUNE_MAX_MEMORY says, or what the machine has.
    """

    model: _Model
    threads: _Threads = None
    max_memory: _Memory = None


@dataclass(frozen=True, kw_only=True)
class Makes(Reads, Replaces):
    """A command that makes something of a model.

    Attributes:
        output: where to write.
        every: list every layer, and every reason, in the report.
    """

    output: _Out
    every: Annotated[bool, Option(flags="--all")] = False


@dataclass(frozen=True, kw_only=True)
class Writes(Makes):
    """A command that makes another model of one.

    Attributes:
        mlflow: also log the run to MLflow: options, numbers, report and model; ``auto`` for where MLFLOW_TRACKING_URI says.
    """

    mlflow: Tracking = ""


@dataclass(frozen=True, kw_only=True)
class Inspect(Reads):
    """`inspect`.

    Attributes:
        layers: also list every layer with its MACs and parameters.
        every: list every group and every axis that cannot be pruned.
    """

    layers: bool = False
    every: Annotated[bool, Option(flags="--all")] = False


@dataclass(frozen=True, kw_only=True)
class Compare(Replaces):
    """`compare`.

    Attributes:
        first: an .onnx file, or a .json file with what a command printed with --json.
        second: another one.
        every: list every layer that differs.
    """

    first: Annotated[Path, Option(argument=True, metavar="A")]
    second: Annotated[Path, Option(argument=True, metavar="B")]
    every: Annotated[bool, Option(flags="--all")] = False


@dataclass(frozen=True, kw_only=True)
class Log(Prints):
    """`log`.

    Attributes:
        file: an .onnx file.
    """

    file: _Model


@dataclass(frozen=True, kw_only=True)
class Prune(Writes):
    """`prune`.

    Attributes:
        plan_out: also write the plan.
        benchmark: time the original and the pruned model.
    """

    plan_out: Annotated[Path | None, Option(metavar="PLAN")] = None
    benchmark: bool = True


@dataclass(frozen=True, kw_only=True)
class Sensitivity(Reads, Replaces):
    """`sensitivity`.

    Attributes:
        plot: also draw the curves: .svg, .png or .pdf.
    """

    plot: Annotated[Path | None, Option(metavar="FILE")] = None


@dataclass(frozen=True, kw_only=True)
class Apply(Writes):
    """`apply`.

    Attributes:
        plan: a plan that `plan` or `prune --plan-out` wrote.
        masked: keep every shape; write zeros instead of cutting.
    """

    plan: Annotated[Path, Option(argument=True, metavar="PLAN")]
    masked: bool = False
    require_proof: RequireProof = False


@dataclass(frozen=True, kw_only=True)
class Verify(Reads):
    """`verify`.

    Attributes:
        pruned: the pruned model.
        plan: the plan it was pruned by.
        repaired: the model may be repaired though the plan was made without samples; what repair may not change must be right.
        calib: samples that outputs of a repaired model are compared on; else seeded noise.
    """

    pruned: Annotated[Path, Option(argument=True, metavar="PRUNED")]
    plan: Annotated[Path, Option(metavar="PLAN")]
    repaired: bool = False
    calib: Samples = ""
    preprocess: Preprocess = ""
    seed: Seed = 0
    require_proof: RequireProof = False
    shape: Shape = ()


@dataclass(frozen=True, kw_only=True)
class Compares(Writes):
    """A command that says how far outputs are from the original's.

    Attributes:
        compare: compare outputs with the original's.
    """

    compare: bool = True


@dataclass(frozen=True, kw_only=True)
class Decode(Writes):
    """`decode`."""

    require_proof: RequireProof = False
    shape: Shape = ()


@dataclass(frozen=True, kw_only=True)
class Encode(Writes):
    """`encode`.

    Attributes:
        measure: also pack both files with gzip and zstd, and time them side by side.
    """

    measure: bool = False


@dataclass(frozen=True, kw_only=True)
class Train(Writes):
    """`finetune` and `train`.

    Attributes:
        resume: keep a checkpoint in this file, and go on from it if there is one: after a kill, repeat the command.
    """

    resume: Annotated[Path | None, Option(metavar="CHECKPOINT")] = None


@dataclass(frozen=True, kw_only=True)
class Benchmark(Prints):
    """`benchmark`.

    Attributes:
        models: one or more .onnx files; ratios are to the first.
    """

    models: Annotated[tuple[Path, ...], Option(argument=True, metavar="MODEL...")]


@dataclass(frozen=True, kw_only=True)
class LatencyShapes(Reads, Replaces):
    """`latency shapes`.

    Attributes:
        output: the folder to write to: what the device must time, as shapes.json, and the program that does, as measure.py.
    """

    output: Annotated[Path, Option(flags="-o/--output", metavar="DIR")]


@dataclass(frozen=True, kw_only=True)
class LatencyMeasure(Prints):
    """`latency measure`.

    Attributes:
        shapes: what `latency shapes` wrote.
        output: the table; one that is there already goes on, if it is of this machine.
        provider: of ONNX Runtime: cpu, cuda, tensorrt, or another one that it has.
        threads: of ONNX Runtime within an operator.
    """

    shapes: Annotated[Path, Option(metavar="FILE")]
    output: Annotated[Path, Option(flags="-o/--output", metavar="TABLE")]
    provider: str = "cpu"
    threads: Annotated[int, Option(range="[1, inf)", metavar="N")] = 1


@dataclass(frozen=True, kw_only=True)
class Lint(Prints):
    """`lint`.

    Attributes:
        files: one or more .onnx files; they are not run.
        max_size: the largest that a file may be, external data included, as 50M.
        max_zeros: the largest share of weights that may be zeros and stored one by one, as 50% or 0.5.
    """

    files: Annotated[tuple[Path, ...], Option(argument=True, metavar="MODEL...")]
    max_size: Annotated[str, Option(metavar="SIZE")] = ""
    max_zeros: Annotated[str, Option(metavar="S")] = "50%"


@dataclass(frozen=True, kw_only=True)
class Demo(Replaces):
    """`demo`.

    Attributes:
        output: the folder to write to.
        seconds: time for measuring each model.
        threads: threads of every library that computes; else as ONNXPRUNE_THREADS says, or the cores that the process may use.
    """

    output: Annotated[Path, Option(flags="-o/--output", metavar="FOLDER")] = Path("onnxprune-demo")
    seconds: Annotated[float, Option(range="[0.01, inf)", metavar="S")] = 1.0
    threads: _Threads = None


@dataclass(frozen=True, kw_only=True)
class Run(Replaces):
    """`run`.

    Attributes:
        recipe: a .toml file: model, output, and a table for every step.
        output: write here, not where the recipe says.
        keep: keep the model after every step here; when run again, finished steps are not.
        dry_run: check the recipe and print its steps; compute nothing.
        mlflow: also log the run to MLflow: options, numbers, report and model; ``auto`` for where MLFLOW_TRACKING_URI says.
        threads: threads of every library that computes; else as ONNXPRUNE_THREADS says, or the cores that the process may use.
        max_memory: the memory that it may take, as 2G or 512M; else as ONNXPRUNE_MAX_MEMORY says, or what the machine has.
    """

    recipe: Annotated[Path, Option(argument=True, metavar="RECIPE")]
    output: Annotated[Path | None, Option(flags="-o/--output", metavar="OUT")] = None
    keep: Annotated[Path | None, Option(metavar="FOLDER")] = None
    dry_run: bool = False
    mlflow: Tracking = ""
    threads: _Threads = None
    max_memory: _Memory = None
