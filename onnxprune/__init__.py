"""onnxprune: an exported ONNX model in, a smaller and faster one out.

>>> import onnxprune
>>> result = onnxprune.prune("model.onnx", onnxprune.Recipe(target="macs=0.5"))  # doctest: +SKIP
>>> result.save("small.onnx")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.api import Analysis, Result, analyze, apply, check, make_plan, prune
    from onnxprune.bench import benchmark
    from onnxprune.errors import (
        ContractError,
        InputError,
        ModelError,
        OnnxPruneError,
        OptionError,
        OutputError,
        PassError,
        PlanError,
        ProviderError,
        RequirementError,
        RuleError,
        TargetError,
        VerificationError,
    )
    from onnxprune.pipeline import Build, run
    from onnxprune.plan import Plan
    from onnxprune.quantization import QuantRecipe
    from onnxprune.quantizer import QuantResult, quantize
    from onnxprune.recipe import Recipe
    from onnxprune.report import QuantReport, Report, SparseReport
    from onnxprune.sparse.recipe import SparseRecipe
    from onnxprune.sparsifier import SparseResult, sparsify
    from onnxprune.storage import Stored, decode, encode

__all__ = [
    "Analysis",
    "Build",
    "ContractError",
    "InputError",
    "ModelError",
    "OnnxPruneError",
    "OptionError",
    "OutputError",
    "PassError",
    "Plan",
    "PlanError",
    "ProviderError",
    "QuantRecipe",
    "QuantReport",
    "QuantResult",
    "Recipe",
    "Report",
    "RequirementError",
    "Result",
    "RuleError",
    "SparseRecipe",
    "SparseReport",
    "SparseResult",
    "Stored",
    "TargetError",
    "VerificationError",
    "analyze",
    "apply",
    "benchmark",
    "check",
    "decode",
    "encode",
    "make_plan",
    "prune",
    "quantize",
    "run",
    "sparsify",
]

_HOMES = {
    "onnxprune.api": ("Analysis", "Result", "analyze", "apply", "check", "make_plan", "prune"),
    "onnxprune.bench": ("benchmark",),
    "onnxprune.pipeline": ("Build", "run"),
    "onnxprune.plan": ("Plan",),
    "onnxprune.quantization": ("QuantRecipe",),
    "onnxprune.quantizer": ("QuantResult", "quantize"),
    "onnxprune.recipe": ("Recipe",),
    "onnxprune.report": ("QuantReport", "Report", "SparseReport"),
    "onnxprune.sparse.recipe": ("SparseRecipe",),
    "onnxprune.sparsifier": ("SparseResult", "sparsify"),
    "onnxprune.storage": ("Stored", "decode", "encode"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public names come from their modules when they are first used, so that importing the package costs nothing."""
    if name not in __all__:
        msg = f"module 'onnxprune' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(_HOME.get(name, "onnxprune.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
