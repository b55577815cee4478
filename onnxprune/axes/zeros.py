"""Find the values that are zero at removed positions, and the nodes that need them to be.

The masked model zeroes constants, not activations. Where two activations are multiplied and summed over a group, or an
activation is summed over it, removing equals masking only if the summand is zero there: through ``Relu`` it stays zero,
through ``Sigmoid`` it does not. And where such a zero is divided by, the masked model is not finite. One forward walk decides
both, from what each rule says about zeros.

`onnxprune.pruning.lossless.value_numbering` walks a graph with the same rules for zeros (`passes_zero`, `drops_out`) and
another question. Here the positions are not chosen yet: all constants count as zero wherever positions *will* be removed, no
weight is read, and one flag an axis answers for every choice. There the weights are given: a flag for each position says
whether the value is zero in the model as it is, which also takes bounds and digests of its entries.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxprune.axes.equation import Axis, AxisRule
from onnxprune.axes.rules.registry import Reason

if TYPE_CHECKING:
    from onnxprune.axes.factors import Factor
    from onnxprune.axes.node_axes import NodeAxes

__all__ = ["check_zeros", "drops_out", "passes_zero"]

FixBecause = Callable[["Factor", "NodeAxes", Reason, str], None]
Places = tuple[tuple[int, int], ...]
AxisFlags = tuple[bool, ...]
"""For each axis of a value whether the value is zero at removed positions of that axis."""
InputFlags = Sequence["AxisFlags | None"]
"""For each input of a node; ``None`` for an absent one."""

_LOOPS = frozenset({"Loop", "Scan"})


def check_zeros(
    nodes: Sequence[NodeAxes],
    axes: Mapping[str, tuple[Factor, ...]],
    constants: Collection[str],
    fix_because: FixBecause,
) -> None:
    """Fix the factors whose removal would differ from masking constants, and those whose masked model is not finite."""
    walk = _Walk(axes, constants)
    if any(node.view.op in _LOOPS for node in nodes):
        walk.around(nodes)
    for node in nodes:
        _check(node, walk.step(node), fix_because)


def _check(node: NodeAxes, inputs: InputFlags, fix_because: FixBecause) -> None:
    rule, equation = node.rule, node.equation
    for letter in equation.contracted | rule.sums:
        summed = node.sizes[letter] > 1 and letter not in rule.mix and letter not in rule.fixed
        if summed and not _vanishes(rule, equation.carriers[letter], inputs):
            text = "sums over this axis, whose removed positions are not zero in the masked model"
            fix_because(node.letters[letter], node, Reason.NOT_ZERO, text)
    for pole in rule.poles:
        for letter, places in equation.carriers.items():
            passes = letter not in equation.contracted and letter not in rule.mix
            if passes and node.sizes[letter] > 1 and pole in _zero_at(places, inputs):
                text = "divides by what is zero at removed positions in the masked model"
                fix_because(node.letters[letter], node, Reason.NOT_ZERO, text)


class _Walk:
    """The zeros known so far, while the nodes are gone through in order."""

    def __init__(self, axes: Mapping[str, tuple[Factor, ...]], constants: Collection[str]) -> None:
        self._axes, self._constants = axes, constants
        self._zero: dict[str, AxisFlags] = {}
        self._carried: dict[str, AxisFlags] = {}

    def around(self, nodes: Sequence[NodeAxes]) -> None:
        """Go through the nodes until what loops carry is zero after an iteration wherever it was taken to be before."""
        before = None
        while before != self._carried:
            before = dict(self._carried)
            for node in nodes:
                self.step(node)
            self._zero = {}

    def step(self, node: NodeAxes) -> InputFlags:
        """Tell the zeros of the inputs of a node; from then on those of its outputs are known."""
        rule, equation = node.rule, node.equation
        inputs = [self._known(name) for name in node.view.inputs]
        present = {position for position, flags in enumerate(inputs) if flags is not None}
        satisfied = {letter: _is_zero(rule, places, inputs, present) for letter, places in equation.carriers.items()}
        made = _is_zero(rule, (), inputs, present)  # along letters that no input carries
        for name, output in zip(node.view.outputs, equation.spelling[1], strict=False):
            flags = tuple([_along(axis, satisfied, made) for axis in output])
            if name in self._zero:  # a loop closes: it is zero only where it is on both ways
                flags = self._carried[name] = _both(flags, self._zero[name])
            elif name in self._carried:
                flags = _both(flags, self._carried[name])
            self._zero[name] = flags
        return inputs

    def _known(self, name: str) -> AxisFlags | None:
        if not name:
            return None
        return self._zero.get(name) or (name in self._constants,) * len(self._axes.get(name, ()))


def _both(one: AxisFlags, other: AxisFlags) -> AxisFlags:
    return tuple([a and b for a, b in zip(one, other, strict=True)])


def _along(axis: str | Axis, satisfied: Mapping[str, bool], made: bool) -> bool:
    if isinstance(axis, str):
        return satisfied.get(axis, made)
    return all(satisfied.get(letter, made) for block in axis for letter in block)


def _zero_at(places: Places, inputs: InputFlags) -> dict[int, bool]:
    """The inputs that carry a letter and are zero at its removed positions; the work is that of its places, not of all inputs."""
    known = ((at, axis, inputs[at]) for at, axis in places if at < len(inputs))
    return dict.fromkeys((at for at, axis, flags in known if flags is not None and axis < len(flags) and flags[axis]), True)


def _is_zero(rule: AxisRule, places: Places, inputs: InputFlags, present: Collection[int]) -> bool:
    """Whether outputs are zero at removed positions of a letter."""
    if rule.zero is None and len(places) == 1:  # the parts of a concatenation
        ((at, axis),) = places
        flags = inputs[at] if at < len(inputs) else None
        return flags is not None and axis < len(flags) and flags[axis]
    return bool(passes_zero(rule, _zero_at(places, inputs), present, {position for position, _ in places}))


def _vanishes(rule: AxisRule, places: Places, inputs: InputFlags) -> bool:
    """Say whether the terms of a sum vanish at removed positions of the letter it runs over."""
    return bool(drops_out(rule, _zero_at(places, inputs), {position for position, _ in places}))


def passes_zero(rule: AxisRule, zero: Mapping[int, Any], present: Collection[int], carrying: Iterable[int]) -> Any:
    """Say whether outputs are zero at positions of a letter, given whether each input is: every clause of the rule must hold.

    ``Conv`` has the clauses ``((0, 1), (2,))``: data or weight are zero, and the bias is zero or absent.

    Args:
        rule: the rule of the node.
        zero: for inputs whether they are zero there: one flag for all the positions, or an array with one for each; an input
            that is not named is not zero.
        present: the inputs that are there; a clause that names only absent ones holds.
        carrying: the inputs that carry the letter; without clauses all of them must be zero.
    """
    if rule.zero is None:
        return _all(zero.get(at, False) for at in carrying)
    clauses = [
        [at for at in clause if at in present] for clause in rule.zero if not clause or not set(clause).isdisjoint(present)
    ]
    return _all(_any(zero.get(at, False) for at in clause) for clause in clauses)


def drops_out(rule: AxisRule, zero: Mapping[int, Any], carrying: Collection[int]) -> Any:
    """Say whether the terms of a sum over a letter vanish at its positions: every clause that names a carrier must hold.

    In ``Conv`` the sum over input channels needs the clause ``(0, 1)``: data or weight are zero; the bias has no part in it.

    Args:
        rule: the rule of the node.
        zero: for each input whether it is zero there, as for `passes_zero`.
        carrying: the inputs that carry the letter.
    """
    if rule.zero is None:
        return _any(zero.get(at, False) for at in carrying)
    clauses = [clause for clause in rule.zero if not set(clause).isdisjoint(carrying)]
    if rule.zero and not clauses:
        return False
    return _all(_any(zero.get(at, False) for at in clause) for clause in clauses)


def _all(flags: Iterable[Any]) -> Any:
    return functools.reduce(operator.and_, flags, True)


def _any(flags: Iterable[Any]) -> Any:
    return functools.reduce(operator.or_, flags, False)
