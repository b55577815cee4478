"""The passes of the compiler, one per file: each takes a model and gives back a changed one, or the same.

`base` has the contract that every pass keeps. What passes know of operators is in `onnxprune.axes.rules`; the order in which
commands run them is in `onnxprune.driver`.

Change here: one step of the compilation, or add one.
"""

from onnxprune.passes.allocate import Allocate
from onnxprune.passes.base import Facts, Pass, Pipeline
from onnxprune.passes.couple import Couple
from onnxprune.passes.decode import Decode
from onnxprune.passes.encode import Encode
from onnxprune.passes.fold_masks import FoldMasks
from onnxprune.passes.lossless import Lossless
from onnxprune.passes.normalize import Normalize
from onnxprune.passes.prune_channels import MaskChannels, PruneChannels
from onnxprune.passes.repair import Repair
from onnxprune.passes.rotate import Rotate, turned
from onnxprune.passes.score import Score
from onnxprune.passes.sensitivity import Sensitivity
from onnxprune.passes.sparsify import Sparsify

__all__ = [
    "PASSES",
    "Allocate",
    "Couple",
    "Decode",
    "Encode",
    "Facts",
    "FoldMasks",
    "Lossless",
    "MaskChannels",
    "Normalize",
    "Pass",
    "Pipeline",
    "PruneChannels",
    "Repair",
    "Rotate",
    "Score",
    "Sensitivity",
    "Sparsify",
    "turned",
]

KINDS = (
    Normalize,
    Couple,
    Lossless,
    Score,
    Rotate,
    Sensitivity,
    Allocate,
    PruneChannels,
    MaskChannels,
    Repair,
    Sparsify,
    FoldMasks,
    Encode,
    Decode,
)
PASSES: dict[str, type[Pass]] = {kind.name: kind for kind in KINDS}
"""Every pass by name."""
