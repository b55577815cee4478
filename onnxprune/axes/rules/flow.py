"""Control flow: what it passes into bodies, around a loop and out again keeps its axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.axes.rules.registry import Reason, Refused, axes, rule
from onnxprune.ir.node import CONTROL_FLOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnxprune.axes.equation import AxisRule
    from onnxprune.ir.control_flow import End, Phi
    from onnxprune.ir.node import NodeView
    from onnxprune.ir.types import Shape


@rule(*sorted(CONTROL_FLOW))
def control_flow(node: NodeView) -> Refused:
    """Bodies that are not followed; of those that are, `phi` is the rule of each value that passes."""
    return Refused("what its body does to axes is not followed", Reason.CONTROL_FLOW)


def phi(node: NodeView, passed: Phi) -> AxisRule | Refused:
    """``a b, a b -> a b``: one source or the other; an axis whose size is not the same in all of them has an order.

    The sequence that a loop runs along is ``_`` where it is: pruning it would change the number of iterations.
    """
    ends, shapes = (*passed.sources, passed.target), (*map(node.shape, range(len(passed.sources))), node.out())
    shared = [_shared(end, shape) for end, shape in zip(ends, shapes, strict=True)]
    if len({len(sizes) for sizes in shared}) > 1:
        return Refused("gives values of different ranks", Reason.CONTROL_FLOW)
    names = [f"a{axis}" if len(set(sizes)) == 1 else "_" for axis, sizes in enumerate(zip(*shared, strict=True))]
    *left, right = (_spell(names, end, shape) for end, shape in zip(ends, shapes, strict=True))
    return axes(f"{', '.join(left)} -> {right}")


def _own(end: End, shape: Shape) -> set[int]:
    return {axis % len(shape) for axis in end.own}


def _shared(end: End, shape: Shape) -> list[int]:
    own = _own(end, shape)
    return [size for axis, size in enumerate(shape) if axis not in own]


def _spell(names: Iterable[str], end: End, shape: Sequence[int]) -> str:
    own, rest = _own(end, tuple(shape)), iter(names)
    return " ".join("_" if axis in own else next(rest) for axis in range(len(shape)))
