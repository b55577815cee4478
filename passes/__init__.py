"""The passes of the compiler, one per file."""

from onnxprune.passes.allocate import Allocate
from onnxprune.passes.base import Facts, Pass, Pipeline
from onnxprune.passes.couple import Couple
from onnxprune.passes.lossless import Lossless
from onnxprune.passes.normalize import Normalize
from onnxprune.passes.prune_channels import MaskChannels, PruneChannels
from onnxprune.passes.score import Score

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
    "Score",
]

PASSES: dict[str, type[Pass]] = {
    kind.name: kind for kind in (Normalize, Couple, Lossless, Score, Allocate, PruneChannels, MaskChannels)
}
"""Every pass by name."""
