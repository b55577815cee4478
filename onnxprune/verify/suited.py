"""The metric that suits a model whose samples have no labels, by what its first output is.

That is told by its axes, by the nodes that make it, and by its numbers on the first samples. Who knows better names the metric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxprune.runtime.session import Session
from onnxprune.shapes.run_memory import runs_that_fit
from onnxprune.verify.ctc import has_blanks
from onnxprune.verify.detections import are_detections, same_detections

if TYPE_CHECKING:
    from onnx import NodeProto

    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model

__all__ = ["suited_metric"]

_ARRANGES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Gather", "Slice", "Transpose"})
"""Operators that move numbers and do not change them;"""
_BY_CONSTANTS = frozenset({"Add", "Sub", "Mul", "Div"})
"""and those that scale and shift them where the other input is constant."""
_FEATURES = frozenset({"LpNormalization", "LayerNormalization", "BatchNormalization", "Div", "Tanh"})
"""Operators that make features, not scores of classes: norms, and divisions by a norm that was computed. Means make either:
SqueezeNet has a map for each class. Which feature is the largest changes sooner than their cosine, so that in doubt they are
classes.
"""
_LAST_AXIS = 13
"""The operator set from which ``Softmax`` runs over the last axis unless it says another."""
_FEW, _LOOKED_AT = 8, 256
"""Samples of a batch, and in all, by whose outputs detectors are known: the first of another model tells as a rule."""


def suited_metric(model: Model, samples: Samples) -> str:
    """The name of a metric.

    That is ``agreement`` for scores of classes [samples, classes]; for probabilities of classes along the last axis of more
    ``ctc_agreement`` where there are blanks between letters, else ``position_agreement``; ``detections`` for boxes and scores of
    anchors, of which one has found something; and otherwise ``cosine``.
    """
    output = model.graph.output[0]
    axes = len(output.type.tensor_type.shape.dim)
    makers = {name: node for node in model.graph.node for name in node.output}
    if axes == 2:
        return "cosine" if _are_features(_maker(model, output.name, makers), makers) else "agreement"
    if axes > 2 and _is_softmax(makers.get(output.name), axes, model.opset):
        return "ctc_agreement" if axes == 3 and _reads(model, output.name, samples) else "position_agreement"
    return "detections" if axes == 3 and _detects(model, output.name, samples) else "cosine"


def _maker(model: Model, name: str, makers: dict[str, NodeProto]) -> NodeProto | None:
    """The node that gave a value the numbers that it has, but for constants; ``None`` for an input."""
    while (node := makers.get(name)) is not None:
        computed = [read for read in node.input if read in makers or read not in model.weights]
        alone = node.op_type in _BY_CONSTANTS and len(computed) == 1
        if not alone and node.op_type not in _ARRANGES:
            return node
        name = computed[0] if computed else ""
    return None


def _are_features(node: NodeProto | None, makers: dict[str, NodeProto]) -> bool:
    """Whether a node makes features. A softmax that is written out divides, too."""
    if node is None or node.op_type not in _FEATURES:
        return False
    above = makers.get(node.input[0]) if node.op_type == "Div" else None
    return above is None or above.op_type != "Exp"


def _is_softmax(node: NodeProto | None, axes: int, opset: int) -> bool:
    """Whether a node makes probabilities along the last of some axes."""
    if node is None or node.op_type not in {"Softmax", "LogSoftmax"}:
        return False
    given = next((one.i for one in node.attribute if one.name == "axis"), -1 if opset >= _LAST_AXIS else 1)
    return given in {-1, axes - 1}


def _reads(model: Model, output: str, samples: Samples) -> bool:
    """Whether an output of the first samples is that of a recogniser, which has blanks between letters."""
    batch = next(iter(samples.batches(runs_that_fit(model, _FEW)[0])))
    values = np.asarray(Session(model, [output]).run(batch.feeds)[0])
    return has_blanks(values.argmax(-1), values.shape[-1])


def _detects(model: Model, output: str, samples: Samples) -> bool:
    """Whether an output of some samples is that of a detector, and one of them has something to detect."""
    session, seen = Session(model, [output]), 0
    for batch in samples.batches(runs_that_fit(model, _FEW)[0]):
        values = np.asarray(session.run(batch.feeds)[0])
        seen += batch.size
        if not are_detections(values) or seen > _LOOKED_AT:
            return False
        if same_detections(values, values)[1]:
            return True
    return False
