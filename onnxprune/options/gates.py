"""What a result must be as good as, or nothing is written: the same options on every command, in recipes and in Python."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated

from onnxprune.errors import OptionError
from onnxprune.options.fields import Option, Options
from onnxprune.options.shared import Metric

__all__ = ["Gates", "parse_drop", "parse_share"]


def parse_share(text: str, option: str, meaning: str) -> float:
    """Read ``90%`` or ``0.9``.

    Raises:
        OptionError: neither, or not from 0 to 1.
    """
    number, percent = (text[:-1], 0.01) if text.endswith("%") else (text, 1.0)
    try:
        value = float(number) * percent
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise OptionError(f"{option} {text!r}: write {meaning}")
    return value


def parse_drop(text: str) -> float:
    """Read ``1%`` or ``0.01``.

    Raises:
        OptionError: neither.
    """
    value = parse_share(text, "--max-drop", "what the score may lose, as 1% or 0.01")
    if value == 1:
        raise OptionError(f"--max-drop {text!r}: write what the score may lose, as 1% or 0.01")
    return value


def _floor(option: str, meaning: str) -> Option:
    return Option(metavar="S", reads=lambda text: parse_share(text, option, meaning) if text else None)


_SCORE = _floor("--min-score", "the least score, as 0.9 or 90%")
_DROP = Option(metavar="D", reads=lambda text: parse_drop(text) if text else None)
_AGREEMENT = _floor("--min-agreement", "the least share of samples with the original's answer, as 0.95 or 95%")


@dataclass(frozen=True, kw_only=True)
class Gates(Options):
    """What a result must be as good as. Where it is not, nothing is written, and the exit status is 1.

    Attributes:
        eval: samples that the result is judged by, and nothing is learnt from; forms as ``calib``. Without, each eighth of
            ``calib`` is held out for that.
        min_score: write nothing, and exit with 1, if the score is lower, as 0.9 or 90%.
        max_drop: write nothing, and exit with 1, if the score is lower than the original's by more than this, as 1%.
        min_agreement: write nothing, and exit with 1, if fewer of the samples have the original's answer, as 95%.

    Raises:
        OptionError: a field has no sensible value.
    """

    eval: Annotated[str, Option(metavar="DATA")] = ""
    metric: Metric = "auto"
    min_score: Annotated[str, _SCORE] = ""
    max_drop: Annotated[str, _DROP] = ""
    min_agreement: Annotated[str, _AGREEMENT] = ""

    @property
    def asked(self) -> str:
        """The first gate, as it was written; empty if there is none."""
        flags = {"--min-score": self.min_score, "--max-drop": self.max_drop, "--min-agreement": self.min_agreement}
        return next((f"{flag} {text}" for flag, text in flags.items() if text), "")

    @property
    def scored(self) -> bool:
        """Whether a score is asked for."""
        return bool(self.eval or self.min_score or self.max_drop or self.metric != "auto")

    @property
    def gates(self) -> Gates:
        """These options alone."""
        return Gates(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Gates)})
