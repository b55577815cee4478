"""Which values are zero at removed positions, and where that is needed.

The masked model zeroes constants, not activations. Where two activations are multiplied and summed over a group, or an
activation is summed over it, removing equals masking only if the summand is zero there: through ``Relu`` it stays zero,
through ``Sigmoid`` it does not. And where such a zero is divided by, the masked model is not finite. One forward walk decides
both, from what each rule says about zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from onnxprune.axes.equation import Axis, AxisRule
from onnxprune.axes.rules.registry import Reason

if TYPE_CHECKING:
    from onnxprune.axes.factors import Factor
    from onnxprune.axes.node_axes import NodeAxes

__all__ = ["check_zeros"]

FixBecause = Callable[["Factor", "NodeAxes", Reason, str], None]
Places = tuple[tuple[int, int], ...]
Flags = tuple[bool, ...]
"""For each axis of a value whether the value is zero at removed positions of that axis."""
Inputs = Sequence["Flags | None"]

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


def _check(node: NodeAxes, inputs: Inputs, fix_because: FixBecause) -> None:
    rule, equation = node.rule, node.equation
    for letter in equation.contracted | rule.sums:
        summed = node.sizes[letter] > 1 and letter not in rule.mix and letter not in rule.fixed
        if summed and not _drops_out(rule, equation.carriers[letter], inputs):
            text = "sums over this axis, whose removed positions are not zero in the masked model"
            fix_because(node.letters[letter], node, Reason.NOT_ZERO, text)
    for pole in rule.poles:
        for letter, places in equation.carriers.items():
            passes = letter not in equation.contracted and letter not in rule.mix
            if passes and node.sizes[letter] > 1 and _at(places, pole, inputs):
                text = "divides by what is zero at removed positions in the masked model"
                fix_because(node.letters[letter], node, Reason.NOT_ZERO, text)


class _Walk:
    """What is known to be zero as the nodes are gone through."""

    def __init__(self, axes: Mapping[str, tuple[Factor, ...]], constants: Collection[str]) -> None:
        self._axes, self._constants = axes, constants
        self._zero: dict[str, Flags] = {}
        self._carried: dict[str, Flags] = {}

    def around(self, nodes: Sequence[NodeAxes]) -> None:
        """Go through the nodes until what loops carry is zero after an iteration wherever it was taken to be before."""
        before = None
        while before != self._carried:
            before = dict(self._carried)
            for node in nodes:
                self.step(node)
            self._zero = {}

    def step(self, node: NodeAxes) -> Inputs:
        """What is zero of the inputs of a node; from then on it is known of the outputs."""
        rule, equation = node.rule, node.equation
        inputs = [self._known(name) for name in node.view.inputs]
        satisfied = {letter: _is_zero(rule, places, inputs) for letter, places in equation.carriers.items()}
        made = _is_zero(rule, (), inputs)  # along letters that no input carries
        for name, output in zip(node.view.outputs, equation.spelling[1], strict=False):
            flags = tuple([_along(axis, satisfied, made) for axis in output])
            if name in self._zero:  # a loop closes: it is zero only where it is on both ways
                flags = self._carried[name] = _both(flags, self._zero[name])
            elif name in self._carried:
                flags = _both(flags, self._carried[name])
            self._zero[name] = flags
        return inputs

    def _known(self, name: str) -> Flags | None:
        if not name:
            return None
        return self._zero.get(name) or (name in self._constants,) * len(self._axes.get(name, ()))


def _both(one: Flags, other: Flags) -> Flags:
    return tuple([a and b for a, b in zip(one, other, strict=True)])


def _along(axis: str | Axis, satisfied: Mapping[str, bool], made: bool) -> bool:
    if isinstance(axis, str):
        return satisfied.get(axis, made)
    return all(satisfied.get(letter, made) for block in axis for letter in block)


def _at(places: Places, position: int, inputs: Inputs) -> bool:
    """Whether an input carries the letter and is zero at its removed positions."""
    flags = inputs[position] if position < len(inputs) else None
    if flags is None:
        return False
    return any(at == position and axis < len(flags) and flags[axis] for at, axis in places)


def _is_zero(rule: AxisRule, places: Places, inputs: Inputs) -> bool:
    """Whether outputs are zero at removed positions of a letter."""
    if rule.zero is None:
        return all(_at(places, position, inputs) for position, _ in places)
    for clause in rule.zero:
        if any(_at(places, position, inputs) for position in clause):
            continue
        absent = [position >= len(inputs) or inputs[position] is None for position in clause]
        if not clause or not all(absent):
            return False
    return True


def _drops_out(rule: AxisRule, places: Places, inputs: Inputs) -> bool:
    """Whether the terms of a sum vanish at removed positions of the letter it runs over."""
    carrying = {at for at, _ in places}
    if rule.zero is None:
        return any(_at(places, position, inputs) for position in carrying)
    clauses = [clause for clause in rule.zero if carrying & set(clause)]
    return all(any(_at(places, position, inputs) for position in clause) for clause in clauses)
