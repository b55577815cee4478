"""Settings of a sweep chosen one after the other, towards the least cost of a model that loses little; needs Optuna.

A grid spends as much on settings that are far off as on those that matter. The search (the tree-structured Parzen estimator of
Bergstra et al. 2011, as Optuna has it) learns from what was tried where good settings lie, and takes targets between those of the
grid, too. What is hopeless is given up before it is built, by the cheapest reason that holds:

- with the same options a larger target lost too much, or a smaller one did not; cost and loss are taken to follow the target;
- its plan costs more than what was found;
- its outputs, after a quick repair, move further than those of several others that lost too much.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from onnxprune.errors import OptionError
from onnxprune.options.targets import Target, number
from onnxprune.sweep.summary import COSTS

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = ["Goal", "Preview", "Searcher", "Tried", "searched"]

Settings = dict[str, Any]
"""Options of a run by name, as a grid has them."""

_STEP = 0.005
"""Between two targets, as a fraction of the original."""
_FAILED, _LOST = 4.0, 2.0
"""Values for Optuna: of what cannot be built; added to the excess of what loses too much. Costs are below."""
_CERTAIN = 2
"""So many runs must have lost too much before one that moves further is given up."""
_REPEATS = 256
"""Proposals in a row of what is known to bring nothing, after which nothing new is expected."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is searched for: the least cost of a run that loses little.

    Attributes:
        cost: of `COSTS`.
        max_drop: of the score, as a fraction of 1; without labels of the share of answers that are the original's.

    Raises:
        OptionError: there is no such cost, or the drop is no fraction.
    """

    cost: str = "latency"
    max_drop: float = 0.01

    def __post_init__(self) -> None:
        if self.cost not in COSTS:
            raise OptionError(f"there is no cost {self.cost!r}; there are {', '.join(COSTS)}")
        if not 0 <= self.max_drop < 1:
            raise OptionError(f"a drop of {self.max_drop}: write a fraction of 1, as 0.01")

    def cost_of(self, outcome: Mapping[str, Any]) -> float:
        """What a run costs, as a fraction of the original; infinite where that is not known."""
        value = outcome.get(COSTS[self.cost])
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.inf

    def excess(self, outcome: Mapping[str, Any]) -> float:
        """By how much a run loses more than it may; infinite where it failed, or nobody knows what it lost."""
        drop, agreement = outcome.get("drop"), outcome.get("agreement")
        lost = drop if drop is not None else None if agreement is None else 1 - agreement
        return math.inf if lost is None or not math.isfinite(lost) else max(float(lost) - self.max_drop, 0.0)


@dataclass(frozen=True, slots=True)
class Preview:
    """What is known of a run before it is done.

    Attributes:
        cost: at least what it will cost, as a fraction of the original; ``None`` where that is not known.
        drift: how far its outputs move on samples that nothing is fitted on; ``None`` where that is not known.
    """

    cost: float | None = None
    drift: float | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """A run of a search.

    Attributes:
        settings: its options.
        outcome: what came of it, see `onnxprune.pages.sweep.sweep_page`; ``None`` where it was given up.
        given_up: why; empty where it was done.
    """

    settings: Settings
    outcome: Mapping[str, Any] | None
    given_up: str = ""


class Searcher:
    """Proposes settings, and learns from what they came to.

    With one worker, which tells of each run before it asks for the next, the same seed gives the same settings. With several,
    each tells when its run is done.

    Attributes:
        goal: what is searched for.
        tried: what was asked for and told of, in order.
    """

    def __init__(self, axes: Mapping[str, Sequence[Any]], goal: Goal, *, trials: int, seed: int = 0) -> None:
        """Nothing is proposed yet.

        Args:
            axes: the values of each option, as a grid has them; of targets any between the least and the largest may be taken.
            goal: what is searched for.
            trials: how many runs there will be, about.
            seed: of the search.

        Raises:
            OptionError: Optuna is not installed, a target makes no sense, or ``trials`` is no number of runs.
        """
        if trials < 1:
            raise OptionError(f"--search {trials}: write a number of runs, 1 or more")
        if find_spec("optuna") is None:
            raise OptionError('--search needs Optuna: run pip install "onnxprune[search]"')
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.goal = goal
        self._axes = {name: list(values) for name, values in axes.items() if name != "target"}
        self._targets = _ranges(axes.get("target", ()))
        first = min(10, max(3, trials // 4))
        together = len(self._targets) < 2  # one space for all trials
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=first, multivariate=together)
        self._study = optuna.create_study(sampler=sampler)
        self._asked: dict[str, list[Trial]] = {}
        self._values: dict[str, float] = {}
        self._drifts: dict[str, float] = {}
        self._told: list[tuple[Target, str, float]] = []
        self.tried: list[Tried] = []

    def ask(self) -> Settings | None:
        """Settings to try next; ``None`` where all that is proposed is known."""
        for _ in range(_REPEATS):
            trial = self._study.ask()
            settings = self._settings(trial)
            key = _key(settings)
            if key in self._asked:  # it is being tried
                self._asked[key].append(trial)
                continue
            value = self._values.get(key, self._foregone(settings))
            if value is None:
                self._asked[key] = [trial]
                return settings
            self._study.tell(trial, value)
        return None

    def _foregone(self, settings: Settings) -> float | None:
        """What settings come to at best, by others that differ in the target alone; ``None`` where they may bring something."""
        if "target" not in settings:
            return None
        target, options = Target.parse(settings["target"]), _key({**settings, "target": ""})
        for other, same, value in self._told:
            if same == options and other.metric == target.metric:
                if value >= _LOST and other.fraction >= target.fraction:
                    return value + other.fraction - target.fraction
                if value < _LOST and other.fraction <= target.fraction:
                    return min(value + target.fraction - other.fraction, _LOST)
        return None

    def _settings(self, trial: Trial) -> Settings:
        settings: Settings = {}
        if self._targets:
            metric = (
                trial.suggest_categorical("metric", list(self._targets)) if len(self._targets) > 1 else next(iter(self._targets))
            )
            low, high = self._targets[metric]
            steps = max(round((high - low) / _STEP), 1)
            at = trial.suggest_int(metric, 0, steps) if high > low else 0
            settings["target"] = f"{metric}={number(round(low + (high - low) * at / steps, 4))}"
        for name, values in self._axes.items():  # by place, because Optuna takes only some types
            settings[name] = values[trial.suggest_categorical(name, range(len(values)))]
        return settings

    def hopeless(self, settings: Settings, preview: Preview) -> str:
        """Why settings that were asked for need not be tried; empty where they should be. It is told of, then.

        Args:
            settings: as `ask` gave them.
            preview: what is known of the run.
        """
        key, why, value = _key(settings), "", _LOST
        best = self.best
        if preview.cost is not None and best and preview.cost >= (found := self.goal.cost_of(best.outcome or {})):
            why, value = f"it would cost {preview.cost:.3f}, and {found:.3f} was found", min(preview.cost, _LOST)
        elif preview.drift is not None and (count := self._lost_closer(preview.drift)) >= _CERTAIN:
            why, value = f"its outputs move by {preview.drift:.3g}, and {count} runs that moved less lost too much", _LOST + 1
        if why:
            self._tell(key, value)
            self.tried.append(Tried(settings, None, why))
        elif preview.drift is not None:
            self._drifts[key] = preview.drift
        return why

    def _lost_closer(self, drift: float) -> int:
        """How many runs moved less and lost too much; none if one that moved further did not."""
        known = [(other, self._values[key] >= _LOST) for key, other in self._drifts.items() if key in self._values]
        if any(other >= drift and not lost for other, lost in known):
            return 0
        return len([other for other, lost in known if lost and other <= drift])

    def tell(self, settings: Settings, outcome: Mapping[str, Any]) -> None:
        """What settings that were asked for came to.

        Args:
            settings: as `ask` gave them.
            outcome: the run, see `onnxprune.pages.sweep.sweep_page`: ``drop`` or ``agreement``, and the cost.
        """
        excess, cost = self.goal.excess(outcome), self.goal.cost_of(outcome)
        value = _FAILED if math.isinf(excess) or math.isinf(cost) else _LOST + min(excess, 1.0) if excess else min(cost, _LOST)
        self._tell(_key(settings), value)
        if "target" in settings:
            self._told.append((Target.parse(settings["target"]), _key({**settings, "target": ""}), value))
        self.tried.append(Tried(settings, outcome))

    def _tell(self, key: str, value: float) -> None:
        """What Optuna is told: a cost, or more than any where too much is lost, so that it goes down towards what holds."""
        self._values[key] = value
        for trial in self._asked.pop(key, ()):
            self._study.tell(trial, value)

    @property
    def best(self) -> Tried | None:
        """The run of least cost that loses little; ``None`` where there is none yet."""
        good = [one for one in self.tried if one.outcome is not None and not self.goal.excess(one.outcome)]
        good = [one for one in good if math.isfinite(self.goal.cost_of(one.outcome or {}))]
        return min(good, key=lambda one: self.goal.cost_of(one.outcome or {}), default=None)


def searched(
    searcher: Searcher,
    attempt: Callable[[Settings], Mapping[str, Any]],
    *,
    preview: Callable[[Settings], Iterable[Preview]] | None = None,
    more: Callable[[int], bool],
) -> Tried | None:
    """Search with one worker; what was found, and ``searcher.tried`` has all.

    Args:
        searcher: proposes settings.
        attempt: does a run.
        preview: says what is known before, the cheapest first; nothing more is asked once that is hopeless.
        more: whether another one is tried, by how many were.
    """
    while more(len(searcher.tried)) and (settings := searcher.ask()) is not None:
        if preview and any(searcher.hopeless(settings, one) for one in preview(settings)):
            continue
        searcher.tell(settings, attempt(settings))
    return searcher.best


def _ranges(targets: Sequence[Any]) -> dict[str, tuple[float, float]]:
    """The least and the largest target of each metric."""
    found: dict[str, tuple[float, float]] = {}
    for text in targets:
        target = Target.parse(str(text))
        low, high = found.get(target.metric, (target.fraction, target.fraction))
        found[target.metric] = min(low, target.fraction), max(high, target.fraction)
    return found


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True, default=str)
