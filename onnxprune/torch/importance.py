"""What gradients say of a model's weights and channels on calibration samples: the criteria as `prune` and `sparsify` use them.

How the outputs would move (``taylor``, ``fisher``) and where the large paths are (``synflow``) shows without labels. How the loss
falls (``snip``, ``grasp``, ``movement``) shows only with them: at weights that are trained, anything else is flat or noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxprune.data.calibration import LABELS
from onnxprune.errors import OptionError
from onnxprune.torch import criteria
from onnxprune.torch.losses import Objective
from onnxprune.torch.module import GraphModule, to_module

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.data.calibration import Feeds
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array

__all__ = ["of_positions", "of_weights"]

_SINGLES = 512
"""Samples, at most, that the Fisher matrix is taken of one by one."""
_EPOCHS = 5
"""Times that movement goes through the samples."""
_RATE = 1e-3
"""The learning rate that movement fine-tunes with."""


def of_weights(model: Model, criterion: str, feeds: Feeds, seed: int = 0) -> dict[str, Array]:
    """The importance of each weight that is trained, by its name, in its shape; may be negative.

    Args:
        model: in float32.
        criterion: one of `onnxprune.options.prune.GRADIENT`.
        feeds: calibration samples.
        seed: of what is drawn where there are no labels.

    Raises:
        ModelError: the graph cannot be computed in PyTorch.
        OptionError: the criterion needs labels, and there are none.
    """
    return {name: score.float().cpu().numpy() for name, score in _scores(to_module(model), criterion, feeds, seed).items()}


def of_positions(model: Model, coupling: Coupling, criterion: str, feeds: Feeds, seed: int = 0) -> dict[str, Array]:
    """The importance of each position of each coupling group, by its id; arguments and errors as those of `of_weights`."""
    module = to_module(model)
    if criterion in {"taylor", "fisher"}:  # a channel counts by what its weights do together
        return criteria.positions(module, model, coupling, _some(criterion, feeds), criteria.sampled(seed))
    return criteria.summed(_scores(module, criterion, feeds, seed), model, coupling)


def _scores(module: GraphModule, criterion: str, feeds: Feeds, seed: int) -> criteria.Scores:
    if criterion == "synflow":
        return criteria.synflow(module, next(criteria.singles(feeds)))
    if criterion in {"taylor", "fisher"}:
        formula = criteria.taylor if criterion == "taylor" else criteria.fisher
        return formula(module, _some(criterion, feeds), criteria.sampled(seed))
    batches = [*feeds.labelled()]
    if not batches or any(LABELS not in batch for batch in batches):
        raise OptionError(
            f"{criterion} asks how a loss falls: give --calib DATA with labels, by the name label, or use taylor or fisher"
        )
    return _LABELLED[criterion](module, batches, _loss(module, batches[0]))


def _some(criterion: str, feeds: Feeds) -> Iterable[Mapping[str, Array]]:
    return islice(criteria.singles(feeds), _SINGLES) if criterion == "fisher" else feeds


def _loss(module: GraphModule, batch: Mapping[str, Array]) -> criteria.Loss:
    """Cross-entropy where labels are classes, else the squared error."""
    classes = np.issubdtype(batch[LABELS].dtype, np.integer)
    objective = Objective.of("cross_entropy" if classes else "mse", module, None, (), 0.0, 1.0)

    def loss(outputs: dict[str, Tensor], batch: criteria.Batch) -> Tensor:
        return objective(outputs, None, torch.as_tensor(batch[LABELS], device=module.device))

    return loss


def _moved(module: GraphModule, batches: Sequence[criteria.Batch], loss: criteria.Loss) -> criteria.Scores:
    """Movement over a short fine-tuning of the module, which nobody else has (Sanh et al. 2020)."""
    optimizer, movement = torch.optim.SGD(module.parameters(), _RATE, 0.9), criteria.Movement(module)
    for batch in [*batches] * _EPOCHS:
        optimizer.zero_grad()
        loss(module.compute({name: batch[name] for name in module.inputs}), batch).backward()
        movement.update()
        optimizer.step()
    return movement.scores


_LABELLED: Mapping[str, Callable[[GraphModule, Sequence[criteria.Batch], criteria.Loss], criteria.Scores]] = {
    "snip": criteria.snip, "grasp": criteria.grasp, "movement": _moved,
}  # fmt: skip
