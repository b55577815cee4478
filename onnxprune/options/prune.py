"""What a user asks for, as data: the same fields for the Python API, the command line and a TOML file."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from onnxprune.errors import OptionError

__all__ = ["BLOCKS", "SCOPES", "TARGETS", "Align", "Recipe", "Target", "parse_align"]

TARGETS = ("latency", "macs", "params", "size", "channels")
SCOPES = ("auto", "sensitivity", "uniform", "global", "isomorphic")
KINDS = ("channels", "heads", "mlp", "residual")
CRITERIA = ("l1", "l2", "linf", "fpgm", "bn_scale", "random")
"""Names alone, which the command line lists without numpy; the functions are in `onnxprune.pruning.criteria`."""
CALIBRATED = ("obs", "wanda", "flap", "variance")
"""Criteria that need data; their functions are in `onnxprune.pruning.data_criteria`."""
NOISE = "noise"
"""What ``calib`` names where there are no samples, and noise stands in for them."""
GRADIENT = ("taylor", "fisher", "synflow", "snip", "grasp", "movement")
"""Criteria that need data and PyTorch, the last three labels, too; their functions are in `onnxprune.torch.importance`."""
BLOCKS = 4
"""Steps that a layer can be cut in, at least, where alignment adapts."""
_KINDS: dict[type, str] = {str: "a text", int: "a whole number", bool: "true or false", tuple: "a list of texts"}


@dataclass(frozen=True, slots=True)
class Target:
    """What shall remain, as a fraction of the original."""

    metric: str
    fraction: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``macs=0.5``.

        Raises:
            OptionError: no such metric, or no fraction above 0 and up to 1.
        """
        metric, equals, value = (part.strip() for part in text.partition("="))
        if not equals or metric not in TARGETS:
            raise OptionError(f"target {text!r}: write one of {', '.join(f'{t}=0.5' for t in TARGETS)}")
        try:
            fraction = float(value)
        except ValueError:
            fraction = math.nan
        if not 0 < fraction <= 1:
            raise OptionError(f"target {text!r}: give the fraction that remains, above 0 and at most 1, as {metric}=0.5")
        return cls(metric, fraction)

    def __str__(self) -> str:
        return f"{self.metric}={self.fraction:g}"


@dataclass(frozen=True, slots=True)
class Align:
    """What widths are multiples of.

    Attributes:
        channels: the multiple.
        least: a layer with fewer than ``BLOCKS`` of these gets half the multiple, and so on, but no less than this; 0 for the
            same multiple everywhere.
    """

    channels: int
    least: int = 0

    def of(self, width: int) -> int:
        """What the width of a layer that has so many channels is a multiple of."""
        step = self.channels
        while self.least and step // 2 >= self.least and BLOCKS * step > width:
            step //= 2
        return step

    def __str__(self) -> str:
        return f"{self.channels}, in narrow layers {self.least}" if self.least else f"{self.channels}"


def parse_align(text: str, metric: str = "macs") -> Align:
    """Read ``auto``, ``1`` or ``N``.

    ``auto`` is 16, the block of ONNX Runtime's fast convolution kernels; narrow layers, to which one block more or less is
    everything, get finer steps: down to 4, below which those kernels do not run. Where prices are measured they tell what a
    whole block is worth, and it is 4 everywhere.

    Raises:
        OptionError: neither.
    """
    if text == "auto":
        return Align(4) if metric == "latency" else Align(16, 4)
    if not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise OptionError(f"align {text!r}: write auto, 1 or a number of channels")
    return Align(int(text))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to prune a model.

    Attributes:
        target: what remains, as a fraction of the original: ``macs=0.5``, ``params=0.4``, ``size=0.25``, ``channels=0.5``, or
            ``latency=0.5``, measured here;
            ``auto`` is ``macs=0.5``, and with ``lossless`` everything that is not removed without loss.
        criterion: how positions are ranked: by data ``obs``, ``wanda``, ``flap``, ``variance``; by gradients, which need PyTorch,
            ``taylor``, ``fisher``, ``synflow`` (of its data only shapes are read), and with labels ``snip``, ``grasp``,
            ``movement``; by weights ``l1``, ``l2``, ``linf``, ``fpgm``,
            ``bn_scale``; or ``random``. ``auto`` is ``obs`` where there is data, else ``l2``.
        scope: how the target is shared out: ``sensitivity`` by what each group is measured to cost, which needs data; or by the
            scores, of groups that are ranked together: ``uniform``, ``global``, ``isomorphic``. ``auto`` is ``sensitivity`` where
            there is data, else ``global``.
        align: widths are multiples of this many channels: ``auto`` (16; in layers of less than 64 channels 8, of less than 32
            channels 4), ``1`` or a number.
        protect: globs over node and tensor names that stay as they are.
        only: kinds of groups that may lose positions: ``channels``, ``heads``, ``mlp``, ``residual``; empty for all.
        allow_inexact: also prune groups that a normalisation or statistic runs over; equality is not verified there.
        verify: prove the surgery on the whole model before anything is returned.
        seed: of everything drawn.
        repair: re-solve what reads pruned channels, where there is data.
        calib: samples: a file, a folder or ``package.module:function``; empty for none. ``noise`` stands in for samples of
            images and other floats where there are none: widths are chosen as without data, and repaired on it.
        max_drop: what the score may lose, as ``1%``; the smallest model within it is searched, from ``target`` on. Empty: none.
        eval: samples that the score is taken on, which calibration should not see; forms as ``calib``.
        metric: the score: ``top1``, ``agreement``, ``mse``, ``cosine`` or ``package.module:function``; ``auto`` chooses.
        preprocess: how the images of a folder become arrays; empty for what follows from the model.
        lossless: first remove what is dead, constant or duplicated; the rest takes over what it did.

    Raises:
        OptionError: a field has no sensible value.
    """

    target: str = "auto"
    criterion: str = "auto"
    scope: str = "auto"
    align: str = "auto"
    protect: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    allow_inexact: bool = False
    verify: bool = True
    seed: int = 0
    repair: bool = True
    calib: str = ""
    preprocess: str = ""
    max_drop: str = ""
    eval: str = ""
    metric: str = "auto"
    lossless: bool = False

    def __post_init__(self) -> None:
        if self.target == "auto":
            object.__setattr__(self, "target", "channels=1" if self.lossless else "macs=0.5")
        Target.parse(self.target)
        parse_align(str(self.align))
        object.__setattr__(self, "align", str(self.align))
        known = ("auto", *CALIBRATED, *GRADIENT, *CRITERIA)
        if self.criterion not in known:
            raise OptionError(f"there is no criterion {self.criterion!r}; there are {', '.join(known)}")
        for kind in self.only:
            if kind not in KINDS:
                raise OptionError(f"there is no kind of group {kind!r}; there are {', '.join(KINDS)}")
        if "residual" in self.only and not self.allow_inexact:
            raise OptionError("only 'residual': a normalisation runs over those groups; add --allow-inexact")
        if self.scope not in SCOPES:
            raise OptionError(f"there is no scope {self.scope!r}; there are {', '.join(SCOPES)}")
        if self.max_drop and not self.eval:
            raise OptionError(f"--max-drop {self.max_drop} needs samples to judge by: add --eval DATA, other than --calib")
        if self.eval and not self.max_drop:
            raise OptionError(f"--eval {self.eval} is for --max-drop: add that, as 1%")
        if self.seed < 0:
            raise OptionError(f"seed {self.seed}: write 0 or a positive number")

    @property
    def blind(self) -> bool:
        """Whether noise stands in for samples."""
        return self.calib == NOISE

    def settled(self, *, data: bool) -> Recipe:
        """The same recipe with every ``auto`` decided, by whether there is calibration data.

        Raises:
            OptionError: it needs data and there is none.
        """
        if not data and self.criterion in {*CALIBRATED, *GRADIENT}:
            raise OptionError(f"criterion {self.criterion!r} needs samples: add --calib DATA, or use --criterion l2")
        if not data and self.scope == "sensitivity":
            raise OptionError("scope 'sensitivity' needs samples: add --calib DATA, or use --scope global")
        criterion, scope = ("obs", "sensitivity") if data else ("l2", "global")
        return dataclasses.replace(
            self,
            criterion=criterion if self.criterion == "auto" else self.criterion,
            scope=scope if self.scope == "auto" else self.scope,
        )

    @property
    def only_exact(self) -> bool:
        """Whether nothing but what goes without loss is asked for."""
        return self.lossless and Target.parse(self.target).fraction == 1

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Read the fields of a recipe; lists become tuples.

        Raises:
            OptionError: no such field, or a value of the wrong type.
        """
        hints = get_type_hints(cls)
        unknown = data.keys() - hints.keys()
        if unknown:
            raise OptionError(f"a recipe has no {min(unknown)!r}; it has {', '.join(hints)}")
        values: dict[str, Any] = {}
        for name, value in data.items():
            kind = hints[name] if hints[name] in _KINDS else tuple
            value = tuple(value) if isinstance(value, list) else str(value) if name == "align" else value
            texts = not isinstance(value, tuple) or all(isinstance(item, str) for item in value)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or not texts:
                raise OptionError(f"{name} = {value!r} is not {_KINDS[kind]}")
            values[name] = value
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read the table ``[prune]`` of a TOML file.

        Raises:
            OptionError: no such file, not TOML, or not a recipe.
        """
        try:
            data = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise OptionError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise OptionError(f"{path}: not TOML: {error}") from error
        if not isinstance(data.get("prune"), dict):
            raise OptionError(f"{path}: has no table [prune]: write the fields of the recipe below that line")
        try:
            return cls.from_dict(data["prune"])
        except OptionError as error:
            raise OptionError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)
