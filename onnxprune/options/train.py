"""How a model is trained, as data: the same fields for the Python API and the command line. Needs no PyTorch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated

from onnxprune.errors import OptionError
from onnxprune.options.fields import Option, Options, Parsed
from onnxprune.options.registries import ALLOCATIONS, PATTERNS, TRAININGS
from onnxprune.options.registry import SAMPLES
from onnxprune.options.shared import Criterion, Metric, Preprocess, Scope, Seed, Shape
from onnxprune.options.targets import Align, Target

__all__ = ["Lesson", "Sparse", "Training", "methods", "turns"]

_RATES = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2, "rmsprop": 1e-4}
_SHARE = 0.01
"""The learning rate of a weight as a share of its size. One number for all networks is too much for those of small weights: short
trainings cost ResNet-20 accuracy at the rate that the digits network needs. docs/guide/train.md has the figures."""
_AUTO = "auto"
_Int = Annotated[int, Option(range="[0, inf)", metavar="N")]
_Float = Annotated[float, Option(range="[0, inf)", metavar="X")]
_Share = Annotated[float, Option(range="[0, 1)", metavar="X")]


@dataclass(frozen=True)
class Training(Options):
    """How to train. One attribute for each option.

    Fields without a text here are described in `onnxprune.options.shared`.

    Attributes:
        loss: ``distill`` (to give the outputs of the teacher), ``cross_entropy`` (by labels), ``mse`` (to labels, or to the
            teacher's outputs where there are none), ``package.module:function`` of (outputs, reference, labels), or a sum such as
            ``0.9*distill+0.1*cross_entropy``. ``auto`` is ``distill`` where there is a teacher, else ``cross_entropy``. Where
            ``train`` is given no teacher, the original model is one: for methods that keep its weights, and for the others
            where there are no labels.
        temperature: that ``distill`` divides logits by (Hinton et al. 2015).
        match: globs over names of values inside the graph that must be the teacher's, too.
        match_weight: what the mean relative squared error of those is multiplied by.
        epochs: passes over the data.
        steps: batches per epoch at most, for data without end; 0 for all.
        augment: what is done to images, each time they are seen: ``flip`` (half of them mirrored), ``shift`` (moved by up to an
            eighth), ``shift:N`` (by up to N pixels), ``flip,shift``, ``none``. ``auto`` is ``flip,shift`` for images of three
            channels where a teacher alone says what is right, else ``none``: labels may not survive a mirror.
        batch: samples at a time; of a static batch the model's.
        optimizer: ``adamw``, ``adam``, ``sgd`` (with Nesterov momentum) or ``rmsprop``.
        lr: the largest learning rate; 0 for what suits the optimizer: 0.001, with sgd 0.01, with rmsprop 0.0001; ten times that
            for methods that train from the start. `finetune` with adamw or adam and 0 takes 1 % of each weight's size (the root
            of its mean square).
        momentum: of sgd and rmsprop.
        weight_decay: of weights with more than one axis.
        schedule: of the learning rate: ``cosine`` to zero, ``step`` (a tenth after half, and after three quarters) or
            ``constant``.
        warmup: share of the steps in which the learning rate rises from zero.
        clip: largest norm of all gradients together; 0 for any, but in `finetune` with sgd and no ``lr`` for 1.
        precision: that layers compute in: ``float32``, ``bfloat16`` or ``float16``; weights stay as they are.
        patience: epochs without a better score after which training stops; 0 for never. Needs evaluation samples.
        restore_norms: whether convolutions with a bias get back, for the training, the batch normalisation that exporters fold
            into them; at the end it is folded again. ``auto`` is ``yes`` where weights are or become zero, else ``no``: dense
            nets learn faster as they are. Only where a batch has at least 8 samples.
        keep_zeros: whether weights of which at least 1 % are zero keep their zeros.
        device: ``cpu``, ``cuda``, ``cuda:1``; ``auto`` is a CUDA device if there is one.

    Raises:
        OptionError: a field has no sensible value.
    """

    loss: Annotated[str, Option(metavar="LOSS")] = _AUTO
    temperature: Annotated[float, Option(range="(0, inf)", metavar="T")] = 2.0
    match: Annotated[tuple[str, ...], Option(metavar="GLOB")] = ()
    match_weight: _Float = 1.0
    epochs: Annotated[int, Option(range="[1, inf)", metavar="N")] = 10
    steps: _Int = 0
    augment: Annotated[str, Option(metavar="HOW")] = _AUTO
    batch: Annotated[int, Option(range="[1, inf)", metavar="N")] = 64
    optimizer: Annotated[str, Option(names=("adamw", "adam", "sgd", "rmsprop"), metavar="NAME")] = "adamw"
    lr: _Float = 0.0
    momentum: _Share = 0.9
    weight_decay: _Float = 0.0
    schedule: Annotated[str, Option(names=("cosine", "step", "constant"), metavar="NAME")] = "cosine"
    warmup: _Share = 0.05
    clip: _Float = 0.0
    precision: Annotated[str, Option(names=("float32", "bfloat16", "float16"), metavar="TYPE")] = "float32"
    patience: _Int = 0
    metric: Metric = _AUTO
    restore_norms: Annotated[str, Option(names=(_AUTO, "yes", "no"), metavar="WHEN")] = _AUTO
    keep_zeros: bool = True
    device: Annotated[str, Option(metavar="NAME")] = _AUTO
    shape: Shape = ()
    seed: Seed = 0

    @property
    def rate(self) -> float:
        """The largest learning rate."""
        return self.lr or _RATES[self.optimizer]

    @property
    def fresh_rate(self) -> float:
        """The largest learning rate for new weights, of which retraining takes a tenth (Han et al. 2015)."""
        return self.lr or 10 * _RATES[self.optimizer]

    @property
    def share(self) -> float:
        """The largest learning rate of a model that has its weights, as a share of each weight's size; 0 for `rate` for all."""
        return 0.0 if self.lr or self.optimizer not in {"adamw", "adam"} else _SHARE

    @property
    def bound(self) -> float:
        """The largest norm of all gradients together for a model that has its weights; 0 for any.

        With sgd at its own rate there is one: a step is as long as the gradients, and those of networks whose batch normalisation
        is folded grew until the loss was no number.
        """
        return self.clip or (1.0 if self.optimizer == "sgd" and not self.lr else 0.0)

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


@dataclass(frozen=True)
class Lesson(Options):
    """What to train with. Fields without a text here are described in `onnxprune.options.shared`.

    Attributes:
        data: samples: .npz, .npy, folder of images or .npz files, package.module:function. Labels by the name label.
        teacher: the model whose outputs are right: an .onnx file, or ``none``.
        eval: samples that each epoch is judged on; the best is kept, of `finetune` the weights as they were where none is better.
            Forms as ``data``.
        log: write logs for TensorBoard to this folder.
    """

    data: Annotated[str, Option(says="needs samples to train with", metavar="DATA")]
    teacher: Annotated[str, Option(metavar="ORIGINAL")] = "none"
    eval: Annotated[str, Option(metavar="DATA")] = ""
    preprocess: Preprocess = ""
    log: Annotated[str, Option(metavar="FOLDER")] = ""

    @property
    def model(self) -> str | None:
        """The teacher's file, if there is one."""
        return None if self.teacher == "none" else self.teacher


def turns(remaining: float) -> int:
    """In how many rounds a fraction remains, if each leaves four fifths."""
    return max(1, math.ceil(math.log(remaining) / math.log(0.8) - 1e-9))


def _masked(method: str) -> bool:
    """Whether a method masks channels while it trains, which are cut out at its end."""
    return method in TRAININGS and not TRAININGS[method].value.surgical


def methods(*, channels: bool) -> tuple[str, ...]:
    """The methods that remove channels, those with repair first; or those that make weights sparse."""
    if not channels:
        return tuple(name for name, entry in TRAININGS.items() if entry.value.weights)
    return tuple(sorted(TRAININGS, key=_masked))


def _target(text: str) -> Target | None:
    return Target.parse(text) if text else None


@dataclass(frozen=True)
class Sparse(Options):
    """How a model becomes sparse, or smaller, while it is trained. One attribute for each option.

    Fields without a text here are described in
    `onnxprune.options.shared`.

    Attributes:
        method: how it is pruned. ``auto`` is ``gradual``, with a target ``iterative``. With a target methods remove channels
            instead of weights: each is worth what its weights are together, is masked wherever it goes, and is cut out at the
            end; but ``iterative``, ``oneshot`` and ``group_sl`` prune as ``prune`` does, repaired, and train in between.
        sparsity: share of zeros in the weights of layers at the end; 0.8 if it is not given, and with 0 every weight stays.
        threshold: instead of a share, with ``oneshot``: weights below this many standard deviations of their layer go; 0 for
            ``sparsity``.
        pattern: which weights may stay; N:M says the sparsity, too.
        allocation: how a sparsity is shared out among layers. ``auto`` is ``lamp`` for what is ranked by magnitude, ``erk`` for
            draws, masks that are learnt layer by layer, and ``global`` where the method's paper has layers compete.
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
        criterion: of methods that prune between trainings, how channels are ranked; ``auto`` is ``obs``.
        scope: with a target, how it is shared out, as for ``prune``; ``auto`` is ``sensitivity``, for methods that mask
            ``global``.
        align: with a target, what widths are multiples of, as for ``prune``: ``auto``, ``1`` or a number.

    Raises:
        OptionError: a field has no sensible value, or fields do not go together.
    """

    method: Annotated[str, Option(names=(_AUTO, TRAININGS), free=True, metavar="NAME")] = _AUTO
    sparsity: Annotated[
        float | None,
        Option(range="[0, 1)", says="write the share of zeros, at least 0 and below 1, as 0.8", metavar="S"),
    ] = None
    threshold: Annotated[
        float, Option(range="[0, inf)", says="write standard deviations, as 1.5, with --method oneshot", metavar="X")
    ] = 0.0
    pattern: Annotated[str, Option(names=(PATTERNS,), free=True, metavar="P")] = "unstructured"
    allocation: Annotated[str, Option(names=(_AUTO, ALLOCATIONS), without=SAMPLES, metavar="NAME")] = _AUTO
    rounds: _Int = 0
    start: Annotated[str, Option(metavar="FROM")] = _AUTO
    rewind: Annotated[str, Option(metavar="TO")] = _AUTO
    protect: Annotated[tuple[str, ...], Option(metavar="GLOB")] = ()
    target: Annotated[Parsed[Target | None], Option(metavar="T")] = Parsed(_target, "")
    penalty: Annotated[float, Option(range="[0, inf)", says="write 0 or a positive number, as 0.1", metavar="X")] = 0.1
    criterion: Criterion = _AUTO
    scope: Scope = _AUTO
    align: Annotated[Parsed[Align], Option(metavar="N")] = Parsed(Align.parse, _AUTO)

    def __post_init__(self) -> None:
        self._check_kind()
        if self.method == _AUTO:
            object.__setattr__(self, "method", "iterative" if self.target else "gradual")
        if self.threshold and self.sparsity is not None:
            raise OptionError(f"--threshold {self.threshold} says what goes: leave --sparsity {self.sparsity} out")
        if self.sparsity is None and not self.target and not self.threshold:
            object.__setattr__(self, "sparsity", 0.8)
        known = methods(channels=self.target is not None)
        if self.method not in known:
            raise OptionError(f"--method {self.method!r}: write one of {', '.join(known)}")
        super().__post_init__()
        if self.threshold and self.method != "oneshot":
            raise OptionError(f"--threshold {self.threshold}: write standard deviations, as 1.5, with --method oneshot")
        if self.rewind != _AUTO and self.method not in {"lottery", "weight_rewinding"}:
            raise OptionError(f"--rewind {self.rewind}: is for --method lottery and weight_rewinding")
        if self.rewind.startswith("epoch:") and not self.rewind[6:].isdecimal():
            raise OptionError(f"--rewind {self.rewind}: write epoch:N, as epoch:2, or an .onnx file")

    def _check_kind(self) -> None:
        """Weights, or channels: options of the one say nothing of the other."""
        if not self.target:
            if self.method in set(methods(channels=True)) - set(methods(channels=False)):
                raise OptionError(f"--method {self.method} removes channels: say what remains, as --target macs=0.5")
            if self.pattern == "channels":
                raise OptionError("--pattern channels: say what remains instead, as --target macs=0.5")
            wrong = [name for name in ("criterion", "scope", "align") if str(getattr(self, name)) != _AUTO]
            if wrong:
                raise OptionError(f"--{wrong[0]} {getattr(self, wrong[0])}: is for channels: add --target, as macs=0.5")
            return
        foreign = {"criterion": self.criterion != _AUTO, "scope": self.scope == "sensitivity", "target": self.target.timed}
        for name in [name for name, given in foreign.items() if given and self.masks]:
            surgical = ", ".join(name for name in methods(channels=True) if not _masked(name))
            said = f"--{name} {getattr(self, name)} is for --method {surgical}"
            raise OptionError(f"{said}: {self.method} masks channels by scores of its own")
        for name, nothing in (("sparsity", None), ("threshold", 0), ("pattern", "unstructured"), ("allocation", _AUTO),
                              *((option, _AUTO) for option in ("start", "rewind") if not self.masks)):  # fmt: skip
            if getattr(self, name) != nothing:
                said = f"--{name} {getattr(self, name)} is for zeros in weights, --target {self.target} for channels"
                raise OptionError(f"{said}: give one of them")

    @property
    def share(self) -> float:
        """The share of zeros at the end, or of the target's metric that goes."""
        return 1 - self.target.fraction if self.target else self.sparsity or 0.0

    @property
    def masks(self) -> bool:
        """Whether a training masks channels, which are cut out at its end."""
        return self.target is not None and _masked(self.method)

    @property
    def turns(self) -> int:
        """How many rounds it takes, a fifth of what remains at a time."""
        return self.rounds or turns(1 - self.share)
