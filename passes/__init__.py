"""The passes of the compiler, one per file: transforms give back a changed graph, analyses say something about one.

`base` has the contract that every pass keeps. What passes know of operators is in `onnxprune.axes.rules`; the order in which
commands run them is in `onnxprune.driver`.

Change here: one step of the compilation, or add one.
"""

from onnxprune.passes.allocate import Allocate
from onnxprune.passes.branch_losses import BranchLosses
from onnxprune.passes.bypass import Bypass, RemoveBranches
from onnxprune.passes.compact import Compact
from onnxprune.passes.couple import Couple
from onnxprune.passes.decode import Decode
from onnxprune.passes.encode import Encode
from onnxprune.passes.flush_subnormals import FlushSubnormals
from onnxprune.passes.fold_masks import FoldMasks
from onnxprune.passes.lossless import Lossless
from onnxprune.passes.mask_source import FillSource, MaskSource
from onnxprune.passes.normalize import Normalize
from onnxprune.passes.observe import Observe
from onnxprune.passes.prune_channels import MaskChannels, PruneChannels
from onnxprune.passes.refill import Refill
from onnxprune.passes.release import Release
from onnxprune.passes.repair import Repair
from onnxprune.passes.restore import Restore
from onnxprune.passes.rotate import Rotate
from onnxprune.passes.round_weights import RoundWeights
from onnxprune.passes.score_channels import ScoreChannels
from onnxprune.passes.sensitivity import Sensitivity
from onnxprune.passes.smooth import Smooth
from onnxprune.passes.sparsify import Sparsify
from onnxprune.passes.use_kernels import UseKernels

__all__ = [
    "Allocate",
    "BranchLosses",
    "Bypass",
    "Compact",
    "Couple",
    "Decode",
    "Encode",
    "FillSource",
    "FlushSubnormals",
    "FoldMasks",
    "Lossless",
    "MaskChannels",
    "MaskSource",
    "Normalize",
    "Observe",
    "PruneChannels",
    "Refill",
    "Release",
    "RemoveBranches",
    "Repair",
    "Restore",
    "Rotate",
    "RoundWeights",
    "ScoreChannels",
    "Sensitivity",
    "Smooth",
    "Sparsify",
    "UseKernels",
]
