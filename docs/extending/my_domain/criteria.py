"""A criterion: ``--criterion spread``."""

import numpy as np

from onnxprune.options.registries import CRITERIA
from onnxprune.pruning.criteria import GroupView, Scores


@CRITERIA.register()
def spread(view: GroupView) -> Scores:
    """Standard deviation of the weights: a channel whose weights are all alike says little."""
    scores = np.zeros(view.size)
    for member in view.matrices:
        scores += view.vectors(member).std(1)
    return scores
