"""How a model is trained, as data: the same fields for the Python API and the command line. Needs no PyTorch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from onnxprune.errors import OptionError
from onnxprune.options.prune import Target

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
            ``0.9*distill+0.1*cross_entropy``. ``auto`` is ``distill`` where there is a teacher, else ``cross_entropy``. Where no
            teacher is named, the model as it came is the one of methods that make it sparse from the weights it has (and of
            the others, too, where there are no labels).
        temperature: that ``distill`` divides logits by (Hinton et al. 2015).
        match: globs over names of values inside the graph that shall be the teacher's, too.
        match_weight: what the mean relative squared error of those is multiplied by.
        epochs: passes over the data.
        steps: batches per epoch at most, for data without end; 0 for all.
        augment: what is done to images, each time they are seen: ``flip`` (half of them mirrored), ``shift`` (moved by up to an
            eighth), ``shift:N`` (by up to N pixels), ``flip,shift``, ``none``. ``auto`` is ``flip,shift`` for images of three
            channels where a teacher alone says what is right, else ``none``: labels may not survive a mirror.
        batch: samples at a time; of a static batch the model's.
        optimizer: ``adamw``, ``adam``, ``sgd`` (with Nesterov momentum) or ``rmsprop``.
        lr: the largest learning rate; 0 for what suits the optimizer: 0.001, with sgd 0.01, with rmsprop 0.0001; ten times that
            for methods that train from the start.
        momentum: of sgd and rmsprop.
        weight_decay: of weights with more than one axis.
        schedule: of the learning rate: ``cosine`` to zero, ``step`` (a tenth after half, and after three quarters) or
            ``constant``.
        warmup: share of the steps in which the learning rate rises from zero.
        clip: largest norm of all gradients together; 0 for any.
        precision: that layers compute in: ``float32``, ``bfloat16`` or ``float16``; weights stay as they are.
        patience: epochs without a better score after which training stops; 0 for never. Needs evaluation samples.
        metric: the score on evaluation samples, as for ``prune``: ``top1``, ``agreement``, ``mse``, ``cosine``, a function.
        restore_norms: whether convolutions with a bias get back, for the training, the batch normalisation that exporters fold
            into them; at the end it is folded again. ``auto`` is ``yes`` where weights are zero or shall be, else ``no``: dense
            nets learn faster as they are. Only where a batch has at least 8 samples.
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
    augment: str = _AUTO
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
    restore_norms: str = _AUTO
    keep_zeros: bool = True
    device: str = _AUTO
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("precision", self.precision, PRECISIONS),
            ("restore-norms", self.restore_norms, (_AUTO, "yes", "no")),
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

    @property
    def fresh_rate(self) -> float:
        """The largest learning rate for new weights, of which retraining takes a tenth (Han et al. 2015)."""
        return self.lr or 10 * _RATES[self.optimizer]

    def settled(self, *, teacher: bool, labelled: bool) -> Training:
        """The same with the loss decided, by what there is.

        Raises:
            OptionError: it needs a teacher or labels and there are none.
        """
        loss = ("distill" if teacher else "cross_entropy") if self.loss == _AUTO else self.loss
        if not teacher and "distill" in loss:
            raise OptionError(f"--loss {loss} needs the model whose outputs are right: add --teacher ORIGINAL")
        if not labelled and "cross_entropy" in loss:
            raise OptionError(
                f"--loss {loss} needs labels, and the data has none: add them, or --teacher ORIGINAL for distillation"
            )
        if not labelled and not teacher and loss == "mse":
            raise OptionError("--loss mse needs labels or the model whose outputs are right: add --teacher ORIGINAL")
        if not teacher and self.match:
            raise OptionError("--match compares values with a teacher's: add --teacher ORIGINAL")
        return dataclasses.replace(self, loss=loss)

    @property
    def by_labels(self) -> bool:
        """Whether a settled loss asks labels."""
        return "distill" not in self.loss or "cross_entropy" in self.loss

    def compares(self, *, labelled: bool) -> bool:
        """Whether the loss looks at a teacher, if there is one."""
        own = {"cross_entropy", "mse"} if labelled else {"cross_entropy"}
        return bool(self.match) or any(term.rpartition("*")[2].strip() not in own for term in self.loss.split("+"))

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


def turns(remaining: float) -> int:
    """In how many rounds a fraction remains, if each leaves four fifths."""
    return max(1, math.ceil(math.log(remaining) / math.log(0.8) - 1e-9))


METHODS = (
    "gradual", "constant", "oneshot", "iterative", "random", "snip", "grasp", "synflow", "lottery", "weight_rewinding",
    "rate_rewinding", "supermask", "movement", "soft_movement", "scratch",
)  # fmt: skip
"""Names alone, which the command line lists without torch; the functions are in `onnxprune.training.recipes`."""
SURGICAL = ("iterative", "group_sl", "oneshot")
"""Those that with a target remove channels between trainings, with repair; the others mask channels while they train."""
CHANNEL_METHODS = (*SURGICAL, *(name for name in METHODS if name not in SURGICAL))
"""Those that remove channels; `onnxprune.training.channels` carries them out."""
ALLOCATIONS = (_AUTO, "erk", "global", "lamp", "uniform")


@dataclass(frozen=True, slots=True)
class Sparse:
    """How a model becomes sparse, or smaller, while it is trained.

    Attributes:
        method: on weights ``gradual``, ``constant`` (Zhu and Gupta 2017), ``oneshot`` (Han et al. 2015), ``iterative``,
            ``random``, ``snip``, ``grasp``, ``synflow``, ``lottery`` (Frankle and Carbin 2019), ``weight_rewinding``,
            ``rate_rewinding`` (Renda et al. 2020), ``supermask`` (Ramanujan et al. 2020), ``movement``, ``soft_movement`` (Sanh
            et al. 2020) or ``scratch`` (Liu et al. 2019). With a target the same on channels: each is worth what its weights
            are together, is masked wherever it goes, and is cut out at the end; but ``iterative``, ``oneshot`` and ``group_sl``
            (Fang et al. 2023) prune as ``prune`` does, repaired, and train in between. ``auto`` is ``gradual``, with a target
            ``iterative``.
        sparsity: share of zeros in the weights of layers at the end; 0.8 if it is not given, and with 0 every weight stays.
        threshold: instead of a share, with ``oneshot``: weights below this many standard deviations of their layer go; 0 for
            ``sparsity``.
        pattern: which weights may stay: ``unstructured``; N:M of the channels that are summed over, as ``2:4``, which says the
            sparsity; blocks of outputs and channels, as ``4x1``; ``channel`` or ``filter``.
        allocation: how many weights each layer keeps: as many as have the highest scores of all layers, ``global``; by shares
            that fall with its size, so that small layers stay whole, ``erk`` (Evci et al. 2020); as many as have the highest
            squares among those of their layer that are not smaller, ``lamp`` (Lee et al. 2021); or the same share, ``uniform``.
            ``auto`` is ``lamp`` for what is ranked by magnitude, ``erk`` for draws, masks that are learnt layer by layer, and
            ``global`` where the method's paper has layers compete.
        rounds: of methods that prune and train in turns; 0 for a fifth of what remains at a time.
        start: the weights that training begins with: ``given``, ``random``, or an .onnx file of the same graph; ``auto`` is what
            the method's paper does.
        rewind: what ``lottery`` and ``weight_rewinding`` go back to: ``epoch:N`` of the first training, or an .onnx file of the
            same graph; ``auto`` is the start of it, for ``weight_rewinding`` a fifth of it.
        protect: globs over names of weights that stay dense; with a target of nodes and tensors that stay as they are.
        target: removes channels instead: what remains, as a fraction: ``macs=0.5``, ``params=0.4``, ``size=0.25``,
            ``channels=0.5``, or ``latency=0.5``, measured here.
        penalty: with ``group_sl``, how much channels shrink in the whole training: the strongest by a factor of
            ``exp(-penalty)`` at most, the weakest by its 16th power. With sgd less, as 0.03: it recovers more slowly.
        criterion: of methods that prune between trainings, how channels are ranked, as for ``prune``; ``auto`` is ``obs``.
        scope: with a target, how it is shared out, as for ``prune``; ``auto`` is ``sensitivity``, for methods that mask
            ``global``.
        align: with a target, what widths are multiples of, as for ``prune``: ``auto``, ``1`` or a number.

    Raises:
        OptionError: a field has no sensible value, or fields do not go together.
    """

    method: str = _AUTO
    sparsity: float | None = None
    threshold: float = 0.0
    pattern: str = "unstructured"
    allocation: str = _AUTO
    rounds: int = 0
    start: str = _AUTO
    rewind: str = _AUTO
    protect: tuple[str, ...] = ()
    target: str = ""
    penalty: float = 0.1
    criterion: str = _AUTO
    scope: str = _AUTO
    align: str = _AUTO

    def __post_init__(self) -> None:
        self._check_kind()
        if self.method == _AUTO:
            object.__setattr__(self, "method", "iterative" if self.target else "gradual")
        if self.threshold and self.sparsity is not None:
            raise OptionError(f"--threshold {self.threshold} says what goes: leave --sparsity {self.sparsity} out")
        if self.sparsity is None and not self.target and not self.threshold:
            object.__setattr__(self, "sparsity", 0.8)
        for option, value, known in (
            ("method", self.method, CHANNEL_METHODS if self.target else METHODS),
            ("allocation", self.allocation, ALLOCATIONS),
        ):
            if value not in known:
                raise OptionError(f"--{option} {value!r}: write one of {', '.join(known)}")
        if not 0 <= self.share < 1:
            raise OptionError(f"--sparsity {self.sparsity}: write the share of zeros, at least 0 and below 1, as 0.8")
        if not 0 <= self.threshold < float("inf") or (self.threshold and self.method != "oneshot"):
            raise OptionError(f"--threshold {self.threshold}: write standard deviations, as 1.5, with --method oneshot")
        if self.rounds < 0:
            raise OptionError(f"--rounds {self.rounds}: write 0 or more")
        if not 0 <= self.penalty < float("inf"):
            raise OptionError(f"--penalty {self.penalty}: write 0 or a positive number, as 0.1")
        if self.rewind != _AUTO and self.method not in {"lottery", "weight_rewinding"}:
            raise OptionError(f"--rewind {self.rewind}: is for --method lottery and weight_rewinding")
        if self.rewind.startswith("epoch:") and not self.rewind[6:].isdecimal():
            raise OptionError(f"--rewind {self.rewind}: write epoch:N, as epoch:2, or an .onnx file")

    def _check_kind(self) -> None:
        """Weights, or channels: options of the one say nothing of the other."""
        if not self.target:
            if self.method in set(CHANNEL_METHODS) - set(METHODS):
                raise OptionError(f"--method {self.method} removes channels: say what remains, as --target macs=0.5")
            if self.pattern == "channels":
                raise OptionError("--pattern channels: say what remains instead, as --target macs=0.5")
            wrong = [name for name in ("criterion", "scope", "align") if getattr(self, name) != _AUTO]
            if wrong:
                raise OptionError(f"--{wrong[0]} {getattr(self, wrong[0])}: is for channels: add --target, as macs=0.5")
            return
        foreign = {"criterion": self.criterion != _AUTO, "scope": self.scope == "sensitivity", "target": "latency" in self.target}
        for name in [name for name, given in foreign.items() if given and self.masks]:
            said = f"--{name} {getattr(self, name)} is for --method {', '.join(SURGICAL)}"
            raise OptionError(f"{said}: {self.method} masks channels by scores of its own")
        for name, nothing in (("sparsity", None), ("threshold", 0), ("pattern", "unstructured"), ("allocation", _AUTO),
                              *((option, _AUTO) for option in ("start", "rewind") if not self.masks)):  # fmt: skip
            if getattr(self, name) != nothing:
                said = f"--{name} {getattr(self, name)} is for zeros in weights, --target {self.target} for channels"
                raise OptionError(f"{said}: give one of them")

    @property
    def share(self) -> float:
        """The share of zeros at the end, or of the target's metric that goes."""
        return 1 - Target.parse(self.target).fraction if self.target else self.sparsity or 0.0

    @property
    def masks(self) -> bool:
        """Whether a training masks channels, which are cut out at its end."""
        return bool(self.target) and self.method not in {_AUTO, *SURGICAL}

    @property
    def turns(self) -> int:
        """How many rounds it takes, a fifth of what remains at a time."""
        return self.rounds or turns(1 - self.share)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)
