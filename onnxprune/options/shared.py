"""Options that several commands have, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from onnxprune.options.fields import Option
from onnxprune.options.registries import CRITERIA
from onnxprune.options.sizes import check_shape

__all__ = ["NOISE", "SCOPES", "Calib", "Criterion", "Metric", "Preprocess", "RequireProof", "Samples", "Scope", "Seed", "Shape"]

SCOPES = ("auto", "sensitivity", "uniform", "global", "isomorphic")
NOISE = "noise"
"""What ``calib`` names where there are no samples, and noise stands in for them."""

FORMS = "Samples: .npz, .npy, folder of images or .npz files, package.module:function."
Samples = Annotated[str, Option(help=FORMS, metavar="DATA")]
Calib = Annotated[str, Option(help=f"{FORMS} Or noise, where there are none: repair on noise like images.", metavar="DATA")]
Preprocess = Annotated[
    str,
    Option(help="How images become arrays: imagenet, cifar10, unit, none, resize=256,crop=224,mean=...", metavar="TEXT"),
]
Metric = Annotated[
    str | Callable[..., Any],
    Option(
        help="The score: top1, agreement, position_agreement, ctc_agreement, detections, mse, cosine or package.module:function; "
        "auto chooses.",
        metavar="METRIC",
    ),
]
Seed = Annotated[int, Option(help="Of everything drawn.", range="[0, inf)", metavar="N")]
Shape = Annotated[
    tuple[str, ...],
    Option(
        help="Sizes of an input, as image=?x3x224x224 with ? for one that stays free, or of a named dimension, as height=224: "
        "what the model is run at; may be repeated.",
        metavar="NAME=SIZES",
        reads=check_shape,
    ),
]
RequireProof = Annotated[bool, Option(help="Write nothing, and exit with 1, unless every output is proven or tested.")]
Criterion = Annotated[
    str,
    Option(
        help="How channels are ranked. auto is obs with samples, else l2.",
        names=("auto", CRITERIA),
        noun="criterion",
        metavar="NAME",
    ),
]
Scope = Annotated[
    str,
    Option(
        help="How the target is shared out: sensitivity (as measured on samples), or by scores: uniform, global, isomorphic; "
        "auto is sensitivity with samples, else global.",
        names=SCOPES,
        noun="scope",
        metavar="NAME",
    ),
]
