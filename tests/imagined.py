"""Levers and trials of imagined models, for tests of the search over mixtures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onnxprune.driver.levers.base import GradedLever, Lever, Made, Mixture
from onnxprune.driver.trials import Trial, Trials
from onnxprune.errors import TargetError

NOISE = {"0 of 9": 8.0, "1 of 9": 4.0, "2 of 9": 2.0, "4 of 9": 1.0}
"""Of rungs."""
FULL = 0.9
"""The score of the original."""


class Ladder(Lever):
    """A lever of a certain name with some choices."""

    def __init__(self, name: str, *choices: str, exact: bool = False) -> None:
        self._choices = choices
        self.__dict__.update(name=name, exact=exact)

    def choices(self) -> Sequence[str]:
        return self._choices

    def carry_out(self, made: Made, choice: str) -> Made:
        raise AssertionError(choice)


class Noisy(Ladder):
    """The same, with choices whose loss follows from their noise."""

    def noise(self, choice: str) -> float:
        return NOISE[choice]


class Graded(Ladder, GradedLever):
    """The same with one for every share."""

    def at(self, share: float, beside: Mixture) -> str:
        return f"{share:g}"


class Coarse(Graded):
    """The same with few choices, of which the mildest leaves nine tenths."""

    coarse = True

    def at(self, share: float, beside: Mixture) -> str:
        return f"{min(share, 0.9):g}"


class Imagined(Trials):
    """Trials of models whose latency is a product over levers, and whose loss is a sum."""

    def __init__(self, int8: float = 0.5, loss: float = 0.002, least: float = 0.1, most: int = 1000) -> None:
        self.int8, self.loss, self.least, self.most = int8, loss, least, most
        self.levers: tuple[Any, ...] = (
            Ladder("lossless", "lossless", exact=True),
            Graded("channels", "0.5"),
            Ladder("precision", "all", "most", "half"),
        )
        self.tried = {Mixture(): Trial(Mixture(), 1.0, 1.0, FULL)}

    def of(self, mixture: Mixture) -> Trial:
        if mixture in self.tried:
            return self.tried[mixture]
        if len(self.tried) > self.most:
            raise TimeoutError
        chosen = dict(mixture.choices)
        share = float(chosen.get("channels", "1"))
        if share < self.least:
            raise TargetError("narrower than widths go")
        rungs = {
            "all": (self.int8, self.loss),
            "most": (self.int8 * 1.1, self.loss / 2),
            "half": ((1 + self.int8) / 2, self.loss / 4),
        }
        time, loss = rungs.get(chosen.get("precision", ""), (1.0, 0.0))
        time *= 0.95 if "lossless" in chosen else 1.0
        score = FULL - loss - 0.04 * (1 - share) ** 2
        self.tried[mixture] = Trial(mixture, time * share, time * share, score)
        return self.tried[mixture]

    def draft(self, mixture: Mixture, lever: Lever) -> Trial | None:
        return None


class Fragile(Imagined):
    """The same with a ladder of many rungs, which lose as much as they are noisy."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.levers = (*self.levers[:2], Noisy("precision", *NOISE))

    def of(self, mixture: Mixture) -> Trial:
        rung = dict(mixture.choices).get("precision")
        if mixture in self.tried or rung is None:
            return super().of(mixture)
        found = super().of(mixture.without("precision"))
        score = found.score - self.scale * NOISE[rung]
        share = 0.5 + 0.02 * list(NOISE).index(rung)
        self.tried[mixture] = Trial(mixture, share * found.latency, share * found.size, score)
        return self.tried[mixture]


class WithDrafts(Imagined):
    """The same, with drafts from each lever on."""

    def __init__(self, off: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.off, self.drafts = off, list[Mixture]()

    def draft(self, mixture: Mixture, lever: Lever) -> Trial | None:
        assert lever.name in dict(mixture.choices)
        self.drafts.append(mixture)
        try:
            found = Imagined(self.int8, self.loss, self.least).of(mixture)
        except TargetError:
            return None
        return replace(found, latency=found.latency * self.off, size=found.size * self.off, score=math.nan)


class WithZeros(Imagined):
    """The same with a second graded lever, whose time and loss follow another rule."""

    def __init__(self, weight: float = 0.03, **settings: Any) -> None:
        super().__init__(**settings)
        self.weight = weight
        first, channels, precision = self.levers
        self.levers = (first, channels, Graded("zeros", "0.5"), precision)

    def of(self, mixture: Mixture) -> Trial:
        if mixture in self.tried or "zeros" not in dict(mixture.choices):
            return super().of(mixture)
        found = super().of(mixture.without("zeros"))
        share = float(dict(mixture.choices)["zeros"])
        score = found.score - self.weight * (1 - share) ** 2
        self.tried[mixture] = Trial(mixture, found.latency * share, found.size * share, score)
        return self.tried[mixture]
