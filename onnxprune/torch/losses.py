"""Losses: the distance to a teacher's outputs, or to labels, or a function that a user writes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.errors import OptionError
from onnxprune.options.functions import guarded, load_named
from onnxprune.options.globs import check_globs
from onnxprune.torch.module import GraphModule

__all__ = ["LossFunction", "Objective", "cross_entropy", "distill", "matched", "mse_loss", "parse_loss", "relative_mse"]

_NO_CLASS = -100
Outputs = Sequence[Tensor]
LossFunction = Callable[[Outputs, Outputs | None, Tensor | None], Tensor]
"""Maps a batch's outputs, the teacher's (``None`` without one) and the labels (``None`` if there are none) to a scalar."""


def distill(outputs: Outputs, reference: Outputs | None, labels: Tensor | None, temperature: float = 2.0) -> Tensor:
    """The divergence of the distribution over classes from the teacher's: ``T^2 KL(softmax(t / T) || softmax(s / T))``, the mean
    over samples and positions (Hinton et al. 2015). Outputs of one axis have no classes: there it is the mean squared error.
    """
    assert reference is not None  # noqa: S101 - `Training.settled` saw to it
    terms = []
    for student, teacher in _floating_pairs(outputs, reference):
        if student.dim() < 2:
            terms.append(F.mse_loss(student, teacher))
            continue
        axis = _class_axis(student)
        s, t = (F.log_softmax(x.float() / temperature, axis) for x in (student, teacher))
        terms.append((t.exp() * (t - s)).sum(axis).mean() * temperature**2)
    return torch.stack(terms).sum()


def cross_entropy(outputs: Outputs, reference: Outputs | None, labels: Tensor | None) -> Tensor:
    """The cross-entropy of the first output, logits with classes on the second axis or on the last, and class indices.

    Raises:
        OptionError: the labels are not one class for each sample or place of the output.
    """
    scores = outputs[0].float()
    assert labels is not None  # noqa: S101 - `Training.settled` saw to it
    if labels.dim() == scores.dim() and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if not labels.is_floating_point():
        labels = labels.long()  # PyTorch takes no other integers, and no booleans, of two classes
    if labels.shape == scores.shape[:-1] and not labels.is_floating_point():
        _check_classes(labels, scores.shape[-1])
        return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1))
    if labels.shape == (scores.shape[0], *scores.shape[2:]) and not labels.is_floating_point():
        _check_classes(labels, scores.shape[1])
        return F.cross_entropy(scores, labels)
    raise OptionError(
        f"--loss cross_entropy: labels {list(labels.shape)} of {labels.dtype} are not class indices for an output of shape "
        f"{list(scores.shape)}: use --loss mse, or package.module:function"
    )


def _check_classes(labels: Tensor, classes: int) -> None:
    """Raise where a label is no class; -100 marks a place without one, as in PyTorch."""
    wrong = labels[((labels < 0) | (labels >= classes)) & (labels != _NO_CLASS)]
    if wrong.numel():
        raise OptionError(
            f"--loss cross_entropy: label {int(wrong[0])} is no class of the model, which has 0 to {classes - 1}; "
            f"{_NO_CLASS} marks a place without one"
        )


def mse_loss(outputs: Outputs, reference: Outputs | None, labels: Tensor | None) -> Tensor:
    """The mean squared error of the first output to the labels, or of all outputs to the teacher's where there are no labels.

    Raises:
        OptionError: the labels do not have the shape of the output.
    """
    if labels is None:
        assert reference is not None  # noqa: S101 - `Training.settled` saw to it
        return torch.stack([F.mse_loss(a, b) for a, b in _floating_pairs(outputs, reference)]).sum()
    if labels.numel() != outputs[0].numel():
        raise OptionError(f"--loss mse: labels are of shape {list(labels.shape)}, the output of {list(outputs[0].shape)}")
    return F.mse_loss(outputs[0], labels.reshape(outputs[0].shape).to(outputs[0].dtype))


def relative_mse(outputs: Outputs, reference: Outputs) -> Tensor:
    """The mean over tensors of the squared error, each over the mean square of the teacher's."""
    terms = [F.mse_loss(a, b) / b.square().mean().clamp_min(1e-12) for a, b in zip(outputs, reference, strict=True)]
    return torch.stack(terms).mean()


def _floating_pairs(outputs: Outputs, reference: Outputs) -> list[tuple[Tensor, Tensor]]:
    pairs = [(a, b) for a, b in zip(outputs, reference, strict=True) if a.is_floating_point()]
    if not pairs:
        raise OptionError("the model has no floating-point output to train: use --loss package.module:function")
    return pairs


def _class_axis(output: Tensor) -> int:
    """The axis of classes: the second of images, otherwise the last."""
    return 1 if output.dim() > 3 else output.dim() - 1


def parse_loss(text: str, temperature: float = 2.0) -> LossFunction:
    """Read a loss, or a sum of losses with weights: ``0.9*distill+0.1*cross_entropy``.

    Raises:
        OptionError: there is no such loss.
    """
    terms = []
    for part in text.split("+"):
        found = re.fullmatch(r"\s*(?:(\d+\.?\d*|\.\d+)\s*\*)?\s*([\w.:]+)\s*", part)
        if not found:
            raise OptionError(f"--loss {text!r}: write distill, cross_entropy, mse, package.module:function, or 0.9*A+0.1*B")
        terms.append((float(found[1] or 1), _find_loss(found[2], temperature)))

    def total(outputs: Outputs, reference: Outputs | None, labels: Tensor | None) -> Tensor:
        return torch.stack([weight * loss(outputs, reference, labels) for weight, loss in terms]).sum()

    return total


def _find_loss(name: str, temperature: float) -> LossFunction:
    if name == "distill":
        return lambda outputs, reference, labels: distill(outputs, reference, labels, temperature)
    known: dict[str, LossFunction] = {"cross_entropy": cross_entropy, "mse": mse_loss}
    if name in known:
        return known[name]
    if ":" not in name:
        raise OptionError(f"there is no loss {name!r}; there are distill, {', '.join(known)}, or write package.module:function")
    found = load_named(name, f"--loss {name}")
    if not callable(found):
        raise OptionError(f"--loss {name}: is not a function of (outputs, reference, labels)")
    loss: LossFunction = guarded(found, f"--loss {name}")
    return loss


def matched(student: GraphModule, teacher: GraphModule, globs: Sequence[str]) -> tuple[str, ...]:
    """The names of values that both graphs compute and that fit a glob.

    Raises:
        OptionError: a glob fits none.
    """
    sides = [{name for step in module.program.steps for name in step.outputs if name} for module in (student, teacher)]
    common = sorted(sides[0] & sides[1])
    check_globs(globs, common, "--match", "value that both graphs compute")
    return tuple(dict.fromkeys(name for glob in globs for name in common if fnmatchcase(name, glob)))


@dataclass(frozen=True)
class Objective:
    """A loss, made ready for a module.

    Attributes:
        loss: of the outputs.
        outputs: their names in the student's graph; ``reference`` in the teacher's.
        match: names of values inside both graphs that must become equal.
        match_weight: the factor of their error in the loss.
        logs: positions of outputs that are probabilities. Losses get their logarithms, which are logits up to a constant.
    """

    loss: LossFunction
    outputs: tuple[str, ...]
    reference: tuple[str, ...]
    match: tuple[str, ...]
    match_weight: float
    logs: frozenset[int]

    @classmethod
    def of(
        cls, text: str, student: GraphModule, teacher: GraphModule | None, match: Sequence[str], weight: float, temperature: float
    ) -> Objective:
        """A loss by its name.

        Raises:
            OptionError: there is no such loss, or the two graphs have different numbers of outputs.
        """
        reference = () if teacher is None else teacher.outputs
        if teacher is not None and len(reference) != len(student.outputs):
            raise OptionError(f"--teacher {teacher.title}: has {len(reference)} outputs, the model {len(student.outputs)}")
        found = () if teacher is None else matched(student, teacher, match)
        ends = {name: step.node.op for step in student.program.steps for name in step.outputs}
        own = any(name in text for name in ("distill", "cross_entropy"))
        logs = frozenset(at for at, name in enumerate(student.outputs) if own and ends.get(name) == "Softmax")
        return cls(parse_loss(text, temperature), student.outputs, reference, found, weight, logs)

    def __call__(self, values: dict[str, Tensor], given: dict[str, Tensor] | None, labels: Tensor | None) -> Tensor:
        """The loss of a batch, from values by name of the student and of the teacher.

        Raises:
            OptionError: a value of ``match`` has another shape than the teacher's.
        """
        reference = None if given is None else self._scores(given, self.reference)
        total = self.loss(self._scores(values, self.outputs), reference, labels)
        if not self.match or given is None:
            return total
        for name in self.match:
            if values[name].shape != given[name].shape:
                mine, theirs = list(values[name].shape), list(given[name].shape)
                raise OptionError(f"--match {name}: is {mine}, the teacher's {theirs}: match values whose channels all remain")
        return total + self.match_weight * relative_mse([values[n] for n in self.match], [given[n] for n in self.match])

    def _scores(self, values: dict[str, Tensor], names: Sequence[str]) -> list[Tensor]:
        return [_log(values[name]) if at in self.logs else values[name] for at, name in enumerate(names)]


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(math.exp(-30)).log()
