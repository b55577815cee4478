"""The phases of each command, by the names of the stages of its driver, in order: so that progress can say which of how many."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.options.prune import Recipe
    from onnxprune.options.sparsify import SparseRecipe

__all__ = ["LATENCY", "QUANTIZING", "WRITING", "applying", "planning", "pruning", "sensing", "sparsifying"]

LATENCY, WRITING = "latency", "writing"
QUANTIZING = ("prepare", "verification", "quantize", "agreement", WRITING)


def planning(recipe: Recipe) -> tuple[str, ...]:
    """Of `plan`."""
    measured = recipe.calib and not recipe.blind and recipe.scope in {"auto", "sensitivity"}
    found = ["sensitivity"] if measured and recipe.target.metric != "channels" else []
    return ("analysis", "scoring", *found, *(["latency table"] if recipe.target.timed else []))


def pruning(recipe: Recipe, *, timed: bool) -> tuple[str, ...]:
    """Of `prune`."""
    lossless = ["lossless"] if recipe.lossless else []
    searched = ["measuring"] if recipe.target.timed and not recipe.device_table else []
    found = () if recipe.only_exact else (*planning(recipe), *searched, "surgery")
    proven = ["verification"] if recipe.verify and not recipe.only_exact else []
    repaired = ["repair"] if recipe.calib and recipe.repair and not recipe.only_exact else []
    return (*lossless, *found, *proven, *repaired, "agreement", *([LATENCY] if timed else []), WRITING)


def applying(recipe: Recipe, *, masked: bool) -> tuple[str, ...]:
    """Of `apply`."""
    if masked:
        return ("agreement", WRITING)
    return ("analysis", "surgery", "verification", *(["repair"] if recipe.calib else []), "agreement", WRITING)


def sensing() -> tuple[str, ...]:
    """Of `sensitivity`."""
    return ("analysis", "scoring", "sensitivity")


def sparsifying(recipe: SparseRecipe) -> tuple[str, ...]:
    """Of `sparsify`."""
    measured = recipe.calib and recipe.goal is not None and recipe.allocation in {"auto", "sensitivity"}
    drafts, result = (["measuring"], [LATENCY]) if recipe.goal is not None and recipe.goal.metric == "latency" else ([], [])
    found = [*drafts, *(["sensitivity"] if measured else []), "sparsify", "encode", *result]
    return ("analysis", *found, "verification", "agreement", WRITING)
