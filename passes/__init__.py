"""The passes of the compiler, one per file."""

from onnxprune.passes.allocate import Allocate
from onnxprune.passes.base import Facts, Pass, Pipeline
from onnxprune.passes.couple import Couple
from onnxprune.passes.lossless import Lossless
from onnxprune.passes.normalize import Normalize
from onnxprune.passes.prune_channels import MaskChannels, PruneChannels
from onnxprune.passes.repair import Repair
from onnxprune.passes.rotate import Rotate, turned
from onnxprune.passes.score import Score
from onnxprune.passes.sensitivity import Sensitivity

__all__ = [
    "PASSES",
    "Allocate",
    "Couple",
    "Facts",
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
    "turned",
]

KINDS = (Normalize, Couple, Lossless, Score, Rotate, Sensitivity, Allocate, PruneChannels, MaskChannels, Repair)
PASSES: dict[str, type[Pass]] = {kind.name: kind for kind in KINDS}
"""Every pass by name."""
