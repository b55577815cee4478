"""Importance by gradients: functions of a module, batches and a loss; higher is more important.

Scores of weights are tensors in the shape of the weight, by the names of the graph. `channel_scores` adds up the contributions of
all weights of a coupling group, so that whole channels can be ranked. Nothing of the module is changed; gradients are those
of the weights as they act, parametrizations applied.

A batch is a mapping with the inputs of the module by name, and whatever else the loss reads (labels). Where there are no labels
`sampled_loss` draws them from the outputs of the module itself. Distances to the module's own outputs would not do: their
gradient at the module is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.ir.weights import Weight
from onnxprune.pruning.criteria import GroupView, Magnitudes
from onnxprune.torch.module import GraphModule

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.ir.model import Model

__all__ = [
    "BatchDict",
    "BatchLoss",
    "Movement",
    "WeightScores",
    "channel_scores",
    "fisher",
    "gradients",
    "grasp",
    "sampled_loss",
    "single_samples",
    "snip",
    "summed_over_channels",
    "synflow",
    "taylor",
]

BatchDict = Mapping[str, Any]
BatchLoss = Callable[[dict[str, Tensor], BatchDict], Tensor]
"""Maps the outputs by name, and the batch, to a scalar."""
WeightScores = dict[str, Tensor]

_SUM = (np.positive, np.add)


def gradients(module: GraphModule, batches: Iterable[BatchDict], loss: BatchLoss) -> Iterator[tuple[WeightScores, WeightScores]]:
    """For each batch the weights and the gradients of the loss at them; zero where a weight is not reached."""
    for batch in batches:
        weights, value = _weights_and_loss(module, batch, loss)
        found = torch.autograd.grad(value, list(weights.values()), materialize_grads=True)
        yield weights, dict(zip(weights, found, strict=True))


def _weights_and_loss(module: GraphModule, batch: BatchDict, loss: BatchLoss) -> tuple[WeightScores, Tensor]:
    with torch.no_grad():
        weights = {name: weight.detach().clone() for name, weight in module.weights().items()}
    for weight in weights.values():
        weight.requires_grad_()
    outputs = module.compute({name: batch[name] for name in module.inputs}, weights=weights)
    return weights, loss(outputs, batch)


def _mean(parts: Iterable[WeightScores]) -> WeightScores:
    total: WeightScores = {}
    count = 0
    for part in parts:
        count += 1
        for name, value in part.items():
            total[name] = total[name] + value if name in total else value
    return {name: value / count for name, value in total.items()}


def taylor(module: GraphModule, batches: Iterable[BatchDict], loss: BatchLoss) -> WeightScores:
    """``|w * g|``, the change of the loss to first order without the weight, mean over batches (Molchanov et al. 2019)."""
    return _mean({n: (w.detach() * g[n]).abs() for n, w in ws.items()} for ws, g in gradients(module, batches, loss))


def fisher(module: GraphModule, batches: Iterable[BatchDict], loss: BatchLoss) -> WeightScores:
    """``w^2 * E[g^2] / 2``, optimal brain damage with the diagonal of the Fisher matrix for the Hessian (LeCun et al. 1990).

    The expectation is over batches: make them small, single samples at best.
    """
    return _mean({n: (w.detach() * g[n]).square() / 2 for n, w in ws.items()} for ws, g in gradients(module, batches, loss))


def snip(module: GraphModule, batches: Iterable[BatchDict], loss: BatchLoss) -> WeightScores:
    """``|w * g|`` of the whole loss, as a share of the sum over all weights (Lee et al. 2019)."""
    mean = _mean({n: w.detach() * g[n] for n, w in ws.items()} for ws, g in gradients(module, batches, loss))
    scores = {name: value.abs() for name, value in mean.items()}
    total = sum((value.sum() for value in scores.values()), torch.zeros((), device=module.device)).clamp(min=1e-30)
    return {name: value / total for name, value in scores.items()}


def grasp(module: GraphModule, batches: Sequence[BatchDict], loss: BatchLoss) -> WeightScores:
    """``w * (H g)``: how much the gradient flow shrinks without the weight (Wang et al. 2020); may be negative.

    ``H`` is the Hessian and ``g`` the gradient of the mean loss; the batches are gone through twice.
    """
    direction = _mean(g for _, g in gradients(module, batches, loss))
    return _mean(_curvature(module, batch, loss, direction) for batch in batches)


def _curvature(module: GraphModule, batch: BatchDict, loss: BatchLoss, direction: WeightScores) -> WeightScores:
    """The weights times the product of the Hessian of one batch with a direction."""
    weights, value = _weights_and_loss(module, batch, loss)
    leaves = list(weights.values())
    slopes = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
    along = sum(((slope * direction[name]).sum() for name, slope in zip(weights, slopes, strict=True)), torch.zeros_like(value))
    if not along.requires_grad:  # a loss that is linear in the weights has no curvature
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}
    bent = torch.autograd.grad(along, leaves, materialize_grads=True)
    return {name: weight.detach() * part for (name, weight), part in zip(weights.items(), bent, strict=True)}


def synflow(module: GraphModule, example: BatchDict) -> WeightScores:
    """``|w| * dR/d|w|`` with ``R`` the sum of the outputs for an input of ones through absolute weights (Tanaka et al. 2020).

    Needs no data: of the example only shapes are read, and integers. Nothing is subtracted: running means count as zero. What a
    saturated gate reads scores zero. Computed in float64, which the products of many layers need. Prune in rounds, and score
    anew in each: in one round whole layers collapse.
    """
    constants = {name: module.value_of(name).detach() for name in module.constants}
    wide = {name: value.double() if value.is_floating_point() else value for name, value in constants.items()}
    wide |= {name: torch.zeros_like(wide[name]) for name in _means(module)}
    weights = {name: wide[name].abs().requires_grad_() for name in module.weights()}
    feeds = {name: torch.as_tensor(example[name], device=module.device) for name in module.inputs}
    ones = {name: torch.ones_like(x, dtype=torch.float64) if x.is_floating_point() else x for name, x in feeds.items()}
    outputs = [y for y in module.compute(ones, weights=wide | weights).values() if y.is_floating_point()]
    total = torch.stack([y.sum() for y in outputs]).sum()
    slopes = torch.autograd.grad(total, list(weights.values()), materialize_grads=True)
    return {name: weight.detach() * slope for (name, weight), slope in zip(weights.items(), slopes, strict=True)}


def _means(module: GraphModule) -> Iterator[str]:
    constants = module.program.constants
    for step in module.program.steps:
        if step.node.op == "BatchNormalization" and step.inputs[3] in constants:
            yield constants[step.inputs[3]]


class Movement:
    """``-sum w * g`` over the steps of a training: high where weights moved away from zero (Sanh et al. 2020).

    Attributes:
        scores: what was added up so far, by the names of the graph.
    """

    def __init__(self, module: GraphModule) -> None:
        self._module = module
        self.scores: WeightScores = {name: torch.zeros_like(weight) for name, weight in module.weights().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add what one step contributes; between ``backward`` and ``optimizer.step``, for weights without parametrizations."""
        for name, score in self.scores.items():
            weight = self._module.value_of(name)
            if weight.grad is not None:
                score -= weight * weight.grad


def sampled_loss(seed: int = 0) -> BatchLoss:
    """A loss without labels: minus the log-likelihood of what is drawn from the module's own outputs.

    Classes [n, c] are drawn by their probabilities, logits or not; other outputs get noise of their own spread. Squared
    gradients of it are those of the Fisher matrix, which is how far outputs move, in the sense of KL, without a weight
    (Theis et al. 2018). The draws of one such loss go on from batch to batch.
    """
    generators: dict[torch.device, torch.Generator] = {}

    def loss(outputs: dict[str, Tensor], batch: BatchDict) -> Tensor:
        y = next(value for value in outputs.values() if value.is_floating_point())
        if y.device not in generators:
            generators[y.device] = torch.Generator(y.device).manual_seed(seed)
        generator = generators[y.device]
        if y.dim() == 2 and y.shape[1] > 1:
            logs = _log_probabilities(y)
            with torch.no_grad():
                drawn = torch.multinomial(logs.exp(), 1, generator=generator)[:, 0]
            return F.nll_loss(logs, drawn)
        spread = y.detach().std(correction=0).clamp(min=1e-12)
        noise = torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)
        return ((y - y.detach()) / spread - noise).square().flatten(1).sum(1).mean() / 2

    return loss


def _log_probabilities(y: Tensor) -> Tensor:
    flat = y.detach()
    shares = bool((flat >= 0).all()) and torch.allclose(flat.sum(1), torch.ones_like(flat[:, 0]), atol=1e-3)
    return y.clamp(min=1e-12).log() if shares else F.log_softmax(y, 1)


def channel_scores(
    module: GraphModule, model: Model, coupling: Coupling, batches: Iterable[BatchDict], loss: BatchLoss
) -> dict[str, npt.NDArray[np.float64]]:
    """For each coupling group the importance of its positions: the squared sum of ``w * g`` of all weights of one member that
    go with a position, summed over members, mean over batches (Molchanov et al. 2019; groups as in Fang et al. 2023).

    With the loss `sampled_loss` and single samples this is Fisher pruning of channels.

    Args:
        module: made from ``model``.
        model: the one that was coupled.
        coupling: its groups.
        batches: gone through once.
        loss: of the outputs and a batch.
    """
    total = {group.id: np.zeros(group.size) for group in coupling.groups}
    count = 0
    for weights, slopes in gradients(module, batches, loss):
        count += 1
        parts = {name: weight.detach() * slopes[name] for name, weight in weights.items()}
        magnitudes = Magnitudes(_with(model, parts), coupling)
        for group in coupling.groups:
            members = tuple(member for member in group.members if member.value in parts)
            view = GroupView(group, members, magnitudes, coupling.axes, 0)
            for member in members:
                total[group.id] += view.total((member,), _SUM) ** 2
    return {name: value / max(count, 1) for name, value in total.items()}


def summed_over_channels(scores: WeightScores, model: Model, coupling: Coupling) -> dict[str, npt.NDArray[np.float64]]:
    """For each coupling group the scores of its positions: those of all weights that go with a position, added up.

    Args:
        scores: of weights, by name.
        model: the one that was coupled.
        coupling: its groups.
    """
    magnitudes, found = Magnitudes(_with(model, scores), coupling), {}
    for group in coupling.groups:
        members = tuple(member for member in group.members if member.value in scores)
        found[group.id] = GroupView(group, members, magnitudes, coupling.axes, 0).total(members, _SUM)
    return found


def single_samples(batches: Iterable[BatchDict]) -> Iterator[BatchDict]:
    """Samples one by one; batches whose inputs are not of one length stay whole."""
    for batch in batches:
        sizes = {value.shape[0] if value.ndim else 0 for value in batch.values()}
        if len(sizes) > 1 or not sizes:
            yield batch
            continue
        yield from ({name: value[at : at + 1] for name, value in batch.items()} for at in range(sizes.pop()))


def _with(model: Model, parts: WeightScores) -> Model:
    """The model with other numbers for its weights, and nothing in its other floating-point constants."""
    copy = model.copy()
    for name, weight in model.weights.items():
        if name in parts:
            copy.weights[name] = Weight(name, None, parts[name].float().cpu().numpy())
        elif weight.is_float:
            copy.weights[name] = Weight(name, None, np.zeros(weight.shape, np.float32))
    return copy
