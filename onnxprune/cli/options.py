"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxprune.errors import OptionError
from onnxprune.options.prune import Recipe

Model = Annotated[Path, typer.Argument(help="An .onnx file.", metavar="MODEL")]
Out = Annotated[Path, typer.Option("-o", "--output", help="Where to write.", metavar="OUT")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
TargetOption = Annotated[
    str,
    typer.Option("--target", help="What remains, as a fraction: macs=0.5, params=0.4, size=0.25, channels=0.5.", metavar="T"),
]
Criterion = Annotated[
    str,
    typer.Option(
        help="How channels are ranked: obs, wanda, flap, variance (by data), taylor, fisher, synflow (by gradients, need "
        "PyTorch), snip, grasp, movement (need labels, too), l1, l2, linf, fpgm, bn_scale, random; auto: obs with --calib, "
        "else l2."
    ),
]
Scope = Annotated[
    str,
    typer.Option(
        help="How the target is shared out: sensitivity (as measured on data), or by scores: uniform, global, isomorphic; "
        "auto: sensitivity with --calib, else global."
    ),
]
EVAL = "Samples that the score of --max-drop is taken on; forms as --calib."
MaxDrop = Annotated[
    str, typer.Option(help="Search the smallest model whose score is at most this much below the original's, as 1%.", metavar="D")
]
Metric = Annotated[str, typer.Option(help="The score: top1, agreement, mse, cosine, package.module:function, or auto.")]
NoRepair = Annotated[bool, typer.Option("--no-repair", help="Leave the weights that remain as they are.")]
Align = Annotated[
    str,
    typer.Option(help="Widths are multiples of this: auto (16, in narrow layers 8 or 4; 4 where latency is the target), 1 or N."),
]
Protect = Annotated[
    list[str] | None, typer.Option(help="Leave nodes and tensors of this name alone; may be repeated.", metavar="GLOB")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Kinds of groups that may shrink: channels, heads, mlp, residual; may be repeated.", metavar="KIND"),
]
Lossless = Annotated[
    bool,
    typer.Option(
        "--lossless", help="First remove dead, constant and duplicated channels, exactly; without --target, nothing else."
    ),
]
Inexact = Annotated[bool, typer.Option("--allow-inexact", help="Also prune what a normalisation runs over.")]
Seed = Annotated[int, typer.Option(help="Of everything drawn.", min=0)]
CALIB = "Samples: .npz, .npy, folder of images or .npz files, package.module:function."
NOISE = " Or noise, where there are none: repair on noise like images."
Calib = Annotated[str, typer.Option(help=CALIB + NOISE, metavar="DATA")]
Preprocess = Annotated[
    str,
    typer.Option(help="How images become arrays: imagenet, cifar10, unit, none, resize=256,crop=224,mean=...", metavar="TEXT"),
]
Providers = Annotated[str, typer.Option(help="Execution providers, comma-separated: cpu, cuda.")]
Batch = Annotated[str, typer.Option(help="Batch sizes, comma-separated.")]
Threads = Annotated[int, typer.Option(help="Threads of each session.", min=1)]
DEFAULT = Recipe()


def integers(option: str, text: str) -> list[int]:
    """Positive integers, comma-separated."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise OptionError(f"{option} {text!r}: write positive numbers, comma-separated, as 1,8")
    return values
