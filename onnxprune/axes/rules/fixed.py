"""Operators of the standard whose axes stay as they are, and why: the rest of the standard, so that nothing is forgotten."""

from __future__ import annotations

from onnxprune.axes.rules.registry import Refused, rule
from onnxprune.ir.node import NodeView

WHY: dict[str, tuple[str, ...]] = {
    "its outputs are positions or counts": (
        "Compress", "NonMaxSuppression", "NonZero", "Range", "Unique", "MaxUnpool", "TfIdfVectorizer",
    ),
    "draws random numbers for each position": (
        "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    ),
    "its axes are signals, whose order matters": (
        "AffineGrid", "BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "MelWeightMatrix", "STFT", "ImageDecoder",
    ),
    "its axes are rows and columns of matrices": ("Det", "EyeLike"),
    "crops or pads to given sizes": ("CenterCropPad",),
    "reads bits across elements": ("BitCast",),
    "samples with learnt offsets for each channel": ("DeformConv",),
    "keeps a state whose layout the caller knows": ("CausalConvWithState", "LinearAttention", "TensorScatter"),
    "halves an axis by position": ("SwiGLU",),
    "is a training loss": ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
    "holds tensors of any shape": (
        "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt", "SequenceConstruct",
        "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence",
    ),
    "works on text": ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"),
    "is a constant that is no tensor": ("Constant",),
}  # fmt: skip
_WHY = {op: why for why, ops in WHY.items() for op in ops}


@rule(*_WHY)
def stays(node: NodeView) -> Refused:
    return Refused(_WHY[node.op])
