"""Recipes: how a model becomes sparse while it is trained. A family of methods per module, a method per function."""

from __future__ import annotations

from onnxprune.training.recipes import gradual, initial, learned, magnitude, rewinding
from onnxprune.training.recipes.registry import Method, RecipeRun, methods, starts_fresh, with_rate

FAMILIES = (magnitude, gradual, initial, rewinding, learned)

__all__ = ["FAMILIES", "Method", "RecipeRun", "methods", "starts_fresh", "with_rate"]
