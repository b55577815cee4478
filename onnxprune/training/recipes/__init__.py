"""Recipes: how a model becomes sparse while it is trained. A family of methods per module, a method per function.

The table is here; its functions are imported when one runs, because they need PyTorch, and ``train --help`` does not.
"""

from __future__ import annotations

from onnxprune.options.registries import TRAININGS, TrainingMethod

_MAGNITUDE, _GRADUAL, _INITIAL, _REWINDING, _LEARNED = (
    f"onnxprune.training.recipes.{module}" for module in ("magnitude", "gradual", "initial", "rewinding", "learned")
)
_METHODS = {
    "gradual": (TrainingMethod(f"{_GRADUAL}:gradual", "lamp"), "step by step; Zhu and Gupta 2017"),
    "constant": (TrainingMethod(f"{_GRADUAL}:constant", "lamp", rate="training"), "under the mask from the first step"),
    "oneshot": (TrainingMethod(f"{_MAGNITUDE}:oneshot", "lamp", surgical=True), "once, then retrained; Han et al. 2015"),
    "iterative": (TrainingMethod(f"{_MAGNITUDE}:iterative", "lamp", surgical=True), "in rounds, each retrained; Han et al. 2015"),
    "random": (TrainingMethod(f"{_MAGNITUDE}:random", "erk", rate="training"), "by lot"),
    "snip": (TrainingMethod(f"{_INITIAL}:snip", "global", start="random"), "before training; Lee et al. 2019"),
    "grasp": (TrainingMethod(f"{_INITIAL}:grasp", "global", start="random"), "before training; Wang et al. 2020"),
    "synflow": (TrainingMethod(f"{_INITIAL}:synflow", "global", start="random"), "before training; Tanaka et al. 2020"),
    "lottery": (
        TrainingMethod(f"{_REWINDING}:lottery", "lamp", start="random"),
        "in rounds from the first weights; Frankle and Carbin 2019",
    ),
    "weight_rewinding": (
        TrainingMethod(f"{_REWINDING}:weight_rewinding", "lamp", start="random"),
        "in rounds from early weights; Renda et al. 2020",
    ),
    "rate_rewinding": (
        TrainingMethod(f"{_REWINDING}:rate_rewinding", "lamp", rate="training"),
        "in rounds, each with the whole schedule; Renda et al. 2020",
    ),
    "supermask": (
        TrainingMethod(f"{_LEARNED}:supermask", "erk", start="random"),
        "a mask of random weights that stay; Ramanujan et al. 2020",
    ),
    "movement": (TrainingMethod(f"{_LEARNED}:movement", "erk"), "scores that are learnt; Sanh et al. 2020"),
    "soft_movement": (TrainingMethod(f"{_LEARNED}:soft_movement", "global"), "as movement, one threshold for all layers"),
    "scratch": (TrainingMethod(f"{_MAGNITUDE}:scratch", "lamp", start="random"), "the mask on new weights; Liu et al. 2019"),
    "group_sl": (
        TrainingMethod("", "", surgical=True, weights=False),
        "only channels, shrunk in training before they go; Fang et al. 2023",
    ),
}
"""Where each method is, what its paper does where a user does not say, and what it is."""

for _name, (_method, _text) in _METHODS.items():
    TRAININGS.add(_name, _method, _text)
