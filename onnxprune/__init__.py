"""onnxprune: an exported ONNX model in, a smaller and faster one out.

>>> import onnxprune
>>> result = onnxprune.prune("model.onnx", onnxprune.Recipe(target="macs=0.5"))  # doctest: +SKIP
>>> result.save("small.onnx")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.axes.plan import Plan
    from onnxprune.driver.apply import Verified, apply, check, check_repaired
    from onnxprune.driver.encode import Stored, decode, encode
    from onnxprune.driver.optimize import OptimizeResult
    from onnxprune.driver.prune import Result, analyze, make_plan, prune, sensitivity
    from onnxprune.driver.quantize import QuantResult, quantize
    from onnxprune.driver.release import Released, release
    from onnxprune.driver.report import OptimizeReport, QuantReport, Report, SparseReport
    from onnxprune.driver.sparsify import SparseResult, sparsify
    from onnxprune.errors import (
        ChangedError,
        ContractError,
        EngineLost,
        InputError,
        ModelError,
        OnnxPruneError,
        OptionError,
        OutputError,
        PassError,
        PlanError,
        ProviderError,
        QualityError,
        ReportError,
        RequirementError,
        RuleError,
        TargetError,
        TimedOut,
        VerificationError,
        WorkerDied,
    )
    from onnxprune.latency.benchmark import benchmark
    from onnxprune.options.engines import EngineOptions
    from onnxprune.options.gates import Gates
    from onnxprune.options.optimize import OptimizeRecipe
    from onnxprune.options.prune import Recipe
    from onnxprune.options.quantize import QuantRecipe
    from onnxprune.options.release import ReleaseRecipe
    from onnxprune.options.sparsify import SparseRecipe
    from onnxprune.options.sweep import SweepRecipe
    from onnxprune.options.train import Sparse, Training
    from onnxprune.passes.analysis import Analysis
    from onnxprune.pipeline.optimizing import optimize
    from onnxprune.pipeline.run import Build, run
    from onnxprune.runtime.custom_operators import custom_operators
    from onnxprune.runtime.memory import max_memory
    from onnxprune.sweep.run import run_sweep
    from onnxprune.training.finetune import finetune
    from onnxprune.training.inputs import TrainingInputs
    from onnxprune.training.session import TrainedModel
    from onnxprune.training.train import train

__all__ = [
    "Analysis",
    "Build",
    "ChangedError",
    "ContractError",
    "EngineLost",
    "EngineOptions",
    "Gates",
    "InputError",
    "ModelError",
    "OnnxPruneError",
    "OptimizeRecipe",
    "OptimizeReport",
    "OptimizeResult",
    "OptionError",
    "OutputError",
    "PassError",
    "Plan",
    "PlanError",
    "ProviderError",
    "QualityError",
    "QuantRecipe",
    "QuantReport",
    "QuantResult",
    "Recipe",
    "ReleaseRecipe",
    "Released",
    "Report",
    "ReportError",
    "RequirementError",
    "Result",
    "RuleError",
    "Sparse",
    "SparseRecipe",
    "SparseReport",
    "SparseResult",
    "Stored",
    "SweepRecipe",
    "TargetError",
    "TimedOut",
    "TrainedModel",
    "Training",
    "TrainingInputs",
    "VerificationError",
    "Verified",
    "WorkerDied",
    "analyze",
    "apply",
    "benchmark",
    "check",
    "check_repaired",
    "custom_operators",
    "decode",
    "encode",
    "finetune",
    "make_plan",
    "max_memory",
    "optimize",
    "prune",
    "quantize",
    "release",
    "run",
    "run_sweep",
    "sensitivity",
    "sparsify",
    "train",
]

_HERE = os.path.dirname(__file__)  # noqa: PTH120 - pathlib takes longer to import than all that is here
if not os.path.isdir(os.path.join(_HERE, "passes")):  # noqa: PTH112, PTH118 - as above
    # A checkout without symbolic links, as on Windows, has a text file where the link to ../passes would be.
    __path__.append(os.path.dirname(_HERE))  # noqa: PTH120 - as above

_HOMES = {
    "onnxprune.driver.apply": ("Verified", "apply", "check", "check_repaired"),
    "onnxprune.driver.prune": ("Result", "analyze", "make_plan", "prune", "sensitivity"),
    "onnxprune.latency.benchmark": ("benchmark",),
    "onnxprune.passes.analysis": ("Analysis",),
    "onnxprune.pipeline.run": ("Build", "run"),
    "onnxprune.axes.plan": ("Plan",),
    "onnxprune.options.quantize": ("QuantRecipe",),
    "onnxprune.options.gates": ("Gates",),
    "onnxprune.options.engines": ("EngineOptions",),
    "onnxprune.options.sweep": ("SweepRecipe",),
    "onnxprune.sweep.run": ("run_sweep",),
    "onnxprune.driver.quantize": ("QuantResult", "quantize"),
    "onnxprune.options.optimize": ("OptimizeRecipe",),
    "onnxprune.driver.optimize": ("OptimizeResult",),
    "onnxprune.pipeline.optimizing": ("optimize",),
    "onnxprune.options.prune": ("Recipe",),
    "onnxprune.driver.release": ("Released", "release"),
    "onnxprune.options.release": ("ReleaseRecipe",),
    "onnxprune.driver.report": ("OptimizeReport", "QuantReport", "Report", "SparseReport"),
    "onnxprune.options.sparsify": ("SparseRecipe",),
    "onnxprune.driver.sparsify": ("SparseResult", "sparsify"),
    "onnxprune.driver.encode": ("Stored", "decode", "encode"),
    "onnxprune.runtime.custom_operators": ("custom_operators",),
    "onnxprune.runtime.memory": ("max_memory",),
    "onnxprune.options.train": ("Sparse", "Training"),
    "onnxprune.training.finetune": ("finetune",),
    "onnxprune.training.inputs": ("TrainingInputs",),
    "onnxprune.training.session": ("TrainedModel",),
    "onnxprune.training.train": ("train",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public names come from their modules when they are first used, so that importing the package costs nothing."""
    if name == "__version__":
        from onnxprune.options.version import version

        return version()
    if name not in __all__:
        msg = f"module 'onnxprune' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(_HOME.get(name, "onnxprune.errors")), name)
    _spell_arguments()
    globals()[name] = value
    return value


def _spell_arguments() -> None:
    """In programs, messages name arguments; the command line has said before that they name flags."""
    from onnxprune.errors import OnnxPruneError
    from onnxprune.options.arguments import as_arguments

    OnnxPruneError.wording = OnnxPruneError.wording or as_arguments


def __dir__() -> list[str]:
    return __all__
