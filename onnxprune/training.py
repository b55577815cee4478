"""How a model is trained, as data: the same fields for the Python API and the command line. Needs no PyTorch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from onnxprune.errors import OptionError

__all__ = ["LOSSES", "OPTIMIZERS", "PRECISIONS", "SCHEDULES", "Training"]

LOSSES = ("distill", "cross_entropy", "mse")
OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop")
SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("float32", "bfloat16", "float16")
_RATES = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2, "rmsprop": 1e-4}
_AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Training:
    """How to train.

    Attributes:
        loss: ``distill`` (to put out what the teacher does), ``cross_entropy`` (by labels), ``mse`` (to labels, or to the
            teacher's outputs where there are none), ``package.module:function`` of (outputs, reference, labels), or a sum such as
            ``0.9*distill+0.1*cross_entropy``. ``auto`` is ``distill`` where there is a teacher, else ``cross_entropy``.
        temperature: that ``distill`` divides logits by (Hinton et al. 2015).
        match: globs over names of values inside the graph that shall be the teacher's, too.
        match_weight: what the mean relative squared error of those is multiplied by.
        epochs: passes over the data.
        steps: batches per epoch at most, for data without end; 0 for all.
        batch: samples at a time; of a static batch the model's.
        optimizer: ``adamw``, ``adam``, ``sgd`` (with Nesterov momentum) or ``rmsprop``.
        lr: the largest learning rate; 0 for what suits the optimizer: 0.001, with sgd 0.01, with rmsprop 0.0001.
        momentum: of sgd and rmsprop.
        weight_decay: of weights with more than one axis.
        schedule: of the learning rate: ``cosine`` to zero, ``step`` (a tenth after half, and after three quarters) or
            ``constant``.
        warmup: share of the steps in which the learning rate rises from zero.
        clip: largest norm of all gradients together; 0 for any.
        precision: that layers compute in: ``float32``, ``bfloat16`` or ``float16``; weights stay as they are.
        patience: epochs without a better score after which training stops; 0 for never. Needs evaluation samples.
        metric: the score on evaluation samples, as for ``prune``: ``top1``, ``agreement``, ``mse``, ``cosine``, a function.
        keep_zeros: whether weights of which at least 1 % are zero keep their zeros.
        device: ``cpu``, ``cuda``, ``cuda:1``; ``auto`` is a CUDA device if there is one.
        seed: of everything drawn.

    Raises:
        OptionError: a field has no sensible value.
    """

    loss: str = _AUTO
    temperature: float = 2.0
    match: tuple[str, ...] = ()
    match_weight: float = 1.0
    epochs: int = 10
    steps: int = 0
    batch: int = 64
    optimizer: str = "adamw"
    lr: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.05
    clip: float = 0.0
    precision: str = "float32"
    patience: int = 0
    metric: str = _AUTO
    keep_zeros: bool = True
    device: str = _AUTO
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise OptionError(f"--{option} {value!r}: write one of {', '.join(known)}")
        for option, least in (("epochs", 1), ("batch", 1), ("steps", 0), ("patience", 0), ("seed", 0)):
            if getattr(self, option) < least:
                raise OptionError(f"--{option} {getattr(self, option)}: write {least} or more")
        for option in ("lr", "weight_decay", "clip", "match_weight"):
            if not 0 <= getattr(self, option) < float("inf"):
                raise OptionError(f"--{option.replace('_', '-')} {getattr(self, option)}: write 0 or a positive number")
        if not 0 < self.temperature < float("inf"):
            raise OptionError(f"--temperature {self.temperature}: write a positive number")
        for option in ("momentum", "warmup"):
            if not 0 <= getattr(self, option) < 1:
                raise OptionError(f"--{option} {getattr(self, option)}: write a number from 0 to below 1")

    @property
    def rate(self) -> float:
        """The largest learning rate."""
        return self.lr or _RATES[self.optimizer]

    def settled(self, *, teacher: bool, labelled: bool) -> Training:
        """The same with the loss decided, by what there is.

        Raises:
            OptionError: it needs a teacher or labels and there are none.
        """
        loss = ("distill" if teacher else "cross_entropy") if self.loss == _AUTO else self.loss
        if not teacher and "distill" in loss:
            raise OptionError(f"--loss {loss} needs the model whose outputs are right: add --teacher ORIGINAL")
        if not labelled and "cross_entropy" in loss:
            raise OptionError(f"--loss {loss} needs labels, and the data has none: add them, or --teacher ORIGINAL for distillation")
        if not labelled and not teacher and loss == "mse":
            raise OptionError("--loss mse needs labels or the model whose outputs are right: add --teacher ORIGINAL")
        if not teacher and self.match:
            raise OptionError("--match compares values with a teacher's: add --teacher ORIGINAL")
        return dataclasses.replace(self, loss=loss)

    def factor(self, progress: float) -> float:
        """What the learning rate is multiplied by at a share of the steps, from 0 to 1."""
        if progress < self.warmup:
            return progress / self.warmup
        rest = (progress - self.warmup) / (1 - self.warmup)
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * rest)) / 2
        if self.schedule == "step":
            return 0.1 ** ((rest >= 0.5) + (rest >= 0.75))
        return 1.0

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)
