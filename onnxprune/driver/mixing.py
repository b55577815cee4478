"""The search over mixtures of levers: what is tried, and in which order. It knows no lever by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

from onnxprune.driver.levers.base import GradedLever, Lever, Mixture
from onnxprune.driver.search import approach, least_share
from onnxprune.driver.trials import Meets, Trial, Trials, Wish, WithinDrop
from onnxprune.errors import TargetError

__all__ = ["search"]

_FIRST = 2
"""Rungs of a ladder that are tried in any case: what is predicted to be fastest, and the boldest choice or the one after it."""
_MILD = 0.9
"""The share that a graded lever begins with where no rung of a ladder holds: such a network loses much by little."""
_FEW = 2
"""Rungs that a lever before the last one is searched on for a drop: the best, and none. For a coarse lever the best does: each of
its choices is tried without that, too."""
_BEYOND = 2.0
"""A rung that is predicted to lose so many times what may be lost is not tried."""
_LESS, _IDLE = 0.95, 2
"""How little less is no less, and rungs in a row that lose no less after which a ladder is left."""
_NEAR = 1.1
"""By how much more time rungs take that hardly differ."""
_WIDER = 1.2
"""By how much more remains in the next try where a share is too small."""


def search(trials: Trials, wish: Wish) -> None:
    """Try each lever alone, and then mixtures of them.

    Exact levers that make the model no slower are part of all that follows. A lever with a few choices is a ladder, each
    rung of which loses less and saves less; what is predicted to be fastest is tried first, until one is good enough and the next
    is no better.
    A graded lever is then searched with each rung that saves anything, and alone: for the most that may be lost, or by aiming at
    what is asked for. For a drop those before the last one are searched with the best rung and alone, and coarse ones not at all
    where their mildest choice loses too much; for a target coarse ones come last, since the most accurate is wanted. A rung that
    loses too much where it would catch up with the best is left, by the last of these levers. What the others found goes on from
    a milder choice, which leaves the next graded lever about half of what may be lost, or is to be saved: that one is searched on
    top of it, too.

    Raises:
        TimeoutError: the time is over.
    """
    start = Mixture()
    offering = [lever for lever in trials.levers if lever.choices()]
    ladders = [lever for lever in offering if not isinstance(lever, GradedLever)]
    for lever in (lever for lever in ladders if lever.exact):
        for choice in lever.choices():
            found = _tried(trials, start.having(lever.name, choice))
            if found and found.latency <= 1:
                start = found.mixture
    rungs = [trials.of(start)]
    inexact = [lever for lever in ladders if not lever.exact]
    for lever in inexact:
        rungs += _climbed(trials, wish, start, lever)
    useful = [rung for rung in rungs if rung.mixture == start or _saves(wish, rung) < _saves(wish, rungs[0])]
    graded = [lever for lever in offering if isinstance(lever, GradedLever)]
    if isinstance(wish, Meets):
        graded.sort(key=lambda lever: lever.coarse)
    for lever in graded:
        if _offers_nothing(trials, wish, start, lever):
            continue
        share, milder = lever.start if len(rungs) > 1 or not inexact else _MILD, list[Trial]()
        last, ordered = lever is graded[-1], sorted(useful, key=lambda rung: _saves(wish, rung))
        turn = _in_turn(trials, wish, ordered, start, lever, share)
        for rung in turn if last or isinstance(wish, Meets) else turn[: 1 if lever.coarse else _FEW]:
            if last and rung.mixture != start and _is_behind(trials, wish, rung, lever):
                continue
            share = _graded(trials, wish, rung, lever, share)
            milder += [] if last else _milder(trials, wish, rung, lever, share)
        useful += milder


def _offers_nothing(trials: Trials, wish: Wish, start: Mixture, lever: GradedLever) -> bool:
    """Whether the mildest choice of a lever loses more than the drop by itself."""
    if not (lever.coarse and isinstance(wish, WithinDrop)):
        return False
    found = _tried(trials, start.having(lever.name, lever.at(1.0, start)))
    return found is None or not wish.holds(found)


def _in_turn(trials: Trials, wish: Wish, rungs: Sequence[Trial], start: Mixture, lever: GradedLever, share: float) -> list[Trial]:
    """Rungs, those that save most first, in the order in which a graded lever goes on from them; time may end.

    Of those that hardly differ the one comes first that is fastest with a share of the lever: widths that suit it may suit the
    others worse. None of them, the lever alone, is the second.
    """
    near = [rung for rung in rungs if rung.mixture != start and _saves(wish, rung) <= _NEAR * _saves(wish, rungs[0])]
    if len(near) > 1 and isinstance(wish, WithinDrop):
        found = {rung.mixture: _graded_at(trials, rung, lever, share) for rung in near}
        near.sort(key=lambda rung: _latency(found[rung.mixture]))
    first, *others = [*near, *(rung for rung in rungs if rung not in near)]
    return [first, *sorted(others, key=lambda rung: rung.mixture != start)]


def _latency(trial: Trial | None) -> float:
    """That of a trial; no end where it cannot be made."""
    return math.inf if trial is None else trial.latency


def _tried(trials: Trials, mixture: Mixture) -> Trial | None:
    """A trial; ``None`` if it cannot be made."""
    try:
        return trials.of(mixture)
    except TargetError:
        return None


def _graded_at(trials: Trials, rung: Trial, lever: GradedLever, share: float) -> Trial | None:
    """A graded lever on top of a rung. Without what comes after it in the rung it is tried, too: that is built already."""
    choice = lever.at(round(share, 4), rung.mixture)
    found = _tried(trials, rung.mixture.having(lever.name, choice))
    if found:
        names = [one.name for one in trials.levers]
        before = names[: names.index(lever.name)]
        built = Mixture(tuple(pair for pair in rung.mixture.choices if pair[0] in before))
        _tried(trials, built.having(lever.name, choice))
    return found


def _milder(trials: Trials, wish: Wish, rung: Trial, lever: GradedLever, share: float) -> list[Trial]:
    """A graded lever on top of a rung with about half of what it may do, if that saves anything: room for another one.

    Loss grows about with the square of what is removed, of which half is then lost. Shares of a target multiply.
    """
    if share >= 1:
        return []
    half = math.sqrt(share) if isinstance(wish, Meets) else 1 - (1 - share) * math.sqrt(0.5)
    found = _graded_at(trials, rung, lever, half)
    return [found] if found and _saves(wish, found) < _saves(wish, rung) else []


def _saves(wish: Wish, trial: Trial) -> float:
    """What remains of what is to be saved."""
    return wish.of(trial) if isinstance(wish, Meets) else trial.latency


def _climbed(trials: Trials, wish: Wish, start: Mixture, lever: Lever) -> list[Trial]:
    """The rungs of a ladder that a graded lever goes on from, those that save most first.

    For a drop these must hold by themselves, and the climb ends where further rungs do not lose less. For a target every rung
    that was tried may: what it lacks is cut.
    """
    found: list[Trial] = []
    rates: list[float] = []  # what rungs lost for their noise
    least, idle = math.inf, 0
    for number, choice in enumerate(_promising(lever)):
        if number >= _FIRST and min(rates, default=0.0) * lever.noise(choice) > _BEYOND:
            continue
        mixture = start.having(lever.name, choice)
        draft = trials.draft(mixture, lever) if found and isinstance(wish, Meets) else None
        # What does not meet a target by itself is cut, and tried as a whole then.
        trial = draft if draft is not None and not wish.holds(draft) else _tried(trials, mixture)
        if trial is None:
            continue
        better = [one for one in found if wish.holds(one) and wish.rank(one) <= wish.rank(trial)]
        found.append(trial)
        if isinstance(wish, WithinDrop) and lever.noise(choice):
            rates.append(wish.lost(trial) / lever.noise(choice))
        if isinstance(wish, WithinDrop):
            idle = idle + 1 if number >= _FIRST and wish.lost(trial) > _LESS * least else 0
            least = min(least, wish.lost(trial))
        late = number + 1 >= _FIRST
        over = isinstance(wish, Meets) and not wish.holds(trial)
        if late and (better or over or idle >= _IDLE):
            break
    kept = found if isinstance(wish, Meets) else list(filter(wish.holds, found))
    return sorted(kept, key=lambda trial: _saves(wish, trial))


def _promising(lever: Lever) -> list[str]:
    """The choices of a lever by the latency that layer times predict, the best first; the boldest is the second at the latest."""
    boldest, *_ = choices = lever.choices()
    first, *others = sorted(choices, key=lever.expected)
    return list(dict.fromkeys([first, boldest, *others]))


def _is_behind(trials: Trials, wish: Wish, rung: Trial, lever: GradedLever) -> bool:
    """Whether a rung loses more than the drop where it would be as fast as the best so far: then it is not searched.

    One that hardly differs is not tried for that: a little is gained by any share.
    """
    bar = trials.ranked(wish)[0].latency / rung.latency if isinstance(wish, WithinDrop) else 1.0
    if bar * _NEAR >= 1:
        return False
    found = _graded_at(trials, rung, lever, bar)
    return found is None or not wish.holds(found)


def _graded(trials: Trials, wish: Wish, rung: Trial, lever: GradedLever, share: float) -> float:
    """Search a graded lever on top of a rung, from a share on; returns the share that was found."""
    if isinstance(wish, Meets):
        return _aimed(trials, wish, rung, lever)

    def lost(share: float) -> float:
        found = _graded_at(trials, rung, lever, share)
        return math.inf if found is None else wish.lost(found)

    return least_share(lost, share)


def _aimed(trials: Trials, wish: Meets, rung: Trial, lever: GradedLever) -> float:
    """Aim at a target with a graded lever; a rung that meets it by itself stays whole.

    What meets it is found by drafts where levers make some: there is time for few models that are repaired and rounded.
    """
    wanted = wish.target.fraction
    share = wanted / max(wish.of(rung), wanted)
    if (drafted := _drafted(trials, wish, rung, lever, share)) is not None:
        share = drafted
        found = _graded_at(trials, rung, lever, share)
        if found is not None and wish.holds(found):
            return share

    def measure(share: float) -> float:
        found = _graded_at(trials, rung, lever, share)
        if found is None:
            raise TargetError(f"{lever.name}: nothing remains at {share}")
        return wish.of(found)

    while share < 1 and _graded_at(trials, rung, lever, share) is None:
        share *= _WIDER  # narrower than widths go, as they are predicted
    if share < 1:
        with suppress(TargetError):
            approach(measure, wanted, share)
    return share


def _drafted(trials: Trials, wish: Meets, rung: Trial, lever: GradedLever, start: float) -> float | None:
    """The largest share whose draft meets a target, if one does."""
    met: dict[float, float] = {}

    def measure(share: float) -> float:
        draft = trials.draft(rung.mixture.having(lever.name, lever.at(share, rung.mixture)), lever)
        if draft is None:
            raise TargetError(f"{lever.name}: no draft at {share}")
        if wish.holds(draft):
            met[share] = wish.of(draft)
        return wish.of(draft)

    if start < 1:
        with suppress(TargetError):
            approach(measure, wish.target.fraction, start)
    return max(met, default=None)
