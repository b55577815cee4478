"""Axis rules as text: parse, size, check and print one equation per node.

An equation writes the axes of a node's inputs and outputs with letters; the same letter is the same index set.

    Conv      n (g i) _..., (g o) i _..., (g o) -> n (g o) _...
    Concat    n a h w, n b h w -> n (a+b) h w
    Flatten   n c h w -> n (c h w)

`( )` is a mixed-radix product, major first; `+` inside it is a direct sum; `1` is a unit axis; `_` is an axis whose size or
order matters; `_...` is any number of those; `...` is any number of free axes, aligned from the right as broadcasting aligns
them. Inputs that the equation does not reach are control inputs: every axis of theirs is `_`.

`c@1` is an axis of an output that picks positions of `c`, those that input 1 lists; if no input has a `c`, what is listed stays.

    Gather    n c h w, _ -> n c@1 h w
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from onnxprune.errors import RuleError
from onnxprune.ir.types import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["ANONYMOUS", "Axis", "AxisRule", "Equation", "expand_ellipses", "parse", "show_axis", "solve"]

Block = tuple[str, ...]
Axis = tuple[Block, ...]
"""A direct sum of blocks; a block is a product of letters, major first; the empty block has size 1."""
Clauses = tuple[tuple[int, ...], ...]

ANONYMOUS = "_"
UNIT: Axis = ((),)
_TOKEN = re.compile(r"\s*(_\.\.\.|\.\.\.|[A-Za-z]\w*(?:@\d+)?|[()+1_])")


@dataclass(frozen=True, eq=False)
class Equation:
    """The axes of every input and output of a node; `...` may still stand for several.

    Equations are interned: one text is one object, so that what follows from it is worked out once.
    """

    inputs: tuple[tuple[Axis, ...], ...]
    outputs: tuple[tuple[Axis, ...], ...]

    @cached_property
    def carriers(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """For each letter the (input, axis) places that carry it."""
        places: dict[str, list[tuple[int, int]]] = {}
        for position, tensor in enumerate(self.spelling[0]):
            for at, axis in enumerate(tensor):
                for letter in (axis,) if isinstance(axis, str) else {f for block in axis for f in block}:
                    if letter != ANONYMOUS:
                        places.setdefault(letter, []).append((position, at))
        picked = {letter: places.get(source, []) for letter, (source, _) in self.picks.items()}
        return {letter: tuple(found) for letter, found in (places | picked).items()}

    @cached_property
    def picks(self) -> dict[str, tuple[str, int]]:
        """For each letter that picks positions of another that other letter, and the input that lists them."""
        spelled = {letter for tensor in self.outputs for axis in tensor for block in axis for letter in block}
        split = {letter: letter.partition("@") for letter in sorted(spelled)}
        return {letter: (source, int(at)) for letter, (source, _, at) in split.items() if at}

    @cached_property
    def contracted(self) -> frozenset[str]:
        """Letters that inputs carry and no output does."""
        sources = {source for source, _ in self.picks.values()}
        made = {f for tensor in self.outputs for axis in tensor for block in axis for f in block}
        return frozenset(self.carriers) - made - sources

    @cached_property
    def spelling(self) -> tuple[tuple[tuple[str | Axis, ...], ...], tuple[tuple[str | Axis, ...], ...]]:
        """The axes of inputs and of outputs, each as its letter where it is a single one."""
        sides = (
            tuple(tuple(axis[0][0] if len(axis) == 1 == len(axis[0]) else axis for axis in tensor) for tensor in side)
            for side in (self.inputs, self.outputs)
        )
        inputs, outputs = sides
        return inputs, outputs

    def __str__(self) -> str:
        sides = (", ".join(" ".join(map(show_axis, axes)) for axes in side) for side in (self.inputs, self.outputs))
        return " -> ".join(sides)


@dataclass(frozen=True, slots=True)
class AxisRule:
    """The effect of an operator on the axes of its tensors.

    Attributes:
        equation: the axes, with `...` expanded.
        sizes: sizes of letters that the shapes alone do not determine.
        mix: letters that statistics or a normalisation run over (shape-valid, not equal to zeroing).
        fixed: letters whose size or order matters.
        attrs: attributes that spell sizes: an axis (`g`, `(k r)`), a list of axes and literals, or a literal that is written
            out because the operator's default depends on a size.
        sizes_at: constant inputs that spell sizes: for each entry an axis, or ``None`` where the entry stays as it is.
        zero: when outputs are zero at removed positions: a conjunction of clauses, each satisfied by any one of the inputs
            it names. ``None``: when every input that carries the letter is zero there (as operators have it that move data).
            ``((),)``: never, because the operator does not map zero to zero.
        poles: inputs at which zero is a pole (a divisor, a logarithm): where one is zero at removed positions, the masked model
            is not finite there.
        sums: letters that are summed over although outputs carry them too (a range or norm over everything).
        quantized: inputs that hold quantised constants, with the inputs of their scale (-1: none) and zero point.
        packed: inputs each of whose bytes holds several integers, lowest bits first, along the last axis; with how many.
        macs: the multiply-accumulates of the node, as a sum of products of letters; empty if it has none worth counting.
    """

    equation: Equation
    sizes: Mapping[str, int] = field(default_factory=dict)
    mix: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    sizes_at: Mapping[int, tuple[Axis | None, ...]] = field(default_factory=dict)
    zero: Clauses | None = None
    poles: tuple[int, ...] = ()
    sums: frozenset[str] = frozenset()
    quantized: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    packed: Mapping[int, int] = field(default_factory=dict)
    macs: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        marks = [f"mix {' '.join(sorted(self.mix))}"] if self.mix else []
        marks += [f"fixed {' '.join(sorted(self.fixed))}"] if self.fixed else []
        return "; ".join([str(self.equation), *marks])


def show_axis(axis: Axis) -> str:
    """The text of one axis: ``c``, ``(g o)``, ``(a+b)``, ``1``."""
    blocks = [" ".join(block) or "1" for block in axis]
    text = "+".join(blocks)
    return text if len(axis) == 1 and len(axis[0]) < 2 else f"({text})"


@lru_cache(maxsize=4096)
def parse(text: str) -> Equation:
    """Parse an equation.

    Raises:
        RuleError: the text is not an equation; the message quotes it and the place.
    """
    left, arrow, right = text.partition("->")
    if not arrow:
        raise RuleError(f"no '->' in the equation {text!r}")
    try:
        return Equation(*(tuple(_axes(tensor) for tensor in side.split(",")) for side in (left, right)))
    except RuleError as error:
        raise RuleError(f"{error} in the equation {text!r}") from error


@lru_cache(maxsize=4096)
def parse_axis(text: str) -> Axis:
    """Parse one axis, as attributes and size-carrying inputs spell it."""
    (axis,) = _axes(text)
    return axis


@lru_cache(maxsize=4096)
def _axes(tensor: str) -> tuple[Axis, ...]:
    """Parse the axes of one tensor; a concatenation of many has most of them in common with others."""
    axes: list[Axis] = []
    open_axis: list[list[str]] | None = None
    at = 0
    while tensor[at:].strip():
        match = _TOKEN.match(tensor, at)
        if not match:
            raise RuleError(f"unexpected {tensor[at:].strip()[0]!r}")
        at, token = match.end(), match[1]
        if token == "(":
            if open_axis is not None:
                raise RuleError("nested '('")
            open_axis = [[]]
        elif token in ")+" and open_axis is None:
            raise RuleError(f"{token!r} without '('")
        elif token == ")":
            axes.append(tuple(map(tuple, open_axis or ())))
            open_axis = None
        elif token == "+":
            (open_axis or []).append([])
        elif open_axis is not None:
            open_axis[-1].extend([] if token == "1" else [token])
        else:
            axes.append(UNIT if token == "1" else ((token,),))
    if open_axis is not None:
        raise RuleError("'(' is not closed")
    return tuple(axes)


@lru_cache(maxsize=4096)
def expand_ellipses(equation: Equation, ranks: tuple[tuple[int | None, ...], tuple[int | None, ...]]) -> Equation:
    """Replace `...` and `_...` by as many axes as the ranks leave (``None``: the tensor is absent, its axes are dropped).

    Raises:
        RuleError: a tensor has another rank than the equation writes.
    """
    sides = []
    for side, side_ranks in zip((equation.inputs, equation.outputs), ranks, strict=True):
        tensors = []
        for axes, rank in zip(side, (*side_ranks, *[None] * (len(side) - len(side_ranks))), strict=False):
            tensors.append(() if rank is None else _expand_one(axes, rank, equation))
        sides.append(tuple(tensors))
    return Equation(*sides)


def _expand_one(axes: tuple[Axis, ...], rank: int, equation: Equation) -> tuple[Axis, ...]:
    gap = rank - len(axes)
    for at, axis in enumerate(axes):
        if axis in ((("...",),), (("_...",),)):
            gap += 1
            if gap < 0:
                break
            free = axis == (("...",),)
            fill = tuple(((f"dim{gap - 1 - i}",),) if free else ((ANONYMOUS,),) for i in range(gap))
            return axes[:at] + fill + axes[at + 1 :]
    if gap:
        raise RuleError(f"a tensor of rank {rank} does not fit {' '.join(map(show_axis, axes))!r} in {equation}")
    return axes


def solve(
    equation: Equation, known: Mapping[str, int], inputs: Sequence[Shape | None], outputs: Sequence[Shape | None]
) -> dict[str, int]:
    """Find the size of every letter, from the shapes of the tensors and the sizes already known.

    A single letter takes the size of its axis; in a product or sum one unknown letter follows from the others:

    >>> conv = parse("n (g i) x, (g o) i k, (g o) -> n (g o) x")
    >>> solve(conv, {"g": 2}, [(5, 6, 7), (8, 3, 1), (8,)], [(5, 8, 7)])
    {'g': 2, 'n': 5, 'x': 7, 'i': 3, 'k': 1, 'o': 4}
    >>> concat = parse("n a, n b -> n (a+b)")
    >>> solve(concat, {}, [(2, 3), None], [(2, 10)])  # 3 + b = 10
    {'n': 2, 'a': 3, 'b': 7}

    Raises:
        RuleError: the equation contradicts the shapes, or leaves a letter undetermined.
    """
    sizes = dict(known)
    pending: list[tuple[Axis, int]] = []
    for spelling, shapes in zip(equation.spelling, (inputs, outputs), strict=True):
        for axes, shape in zip(spelling, shapes, strict=False):
            if shape is None:
                continue
            for axis, size in zip(axes, shape, strict=True):
                if not isinstance(axis, str):
                    pending.append((axis, size))
                elif axis != ANONYMOUS and sizes.setdefault(axis, size) != size:
                    raise RuleError(f"{axis} is both {sizes[axis]} and {size} in {equation}")
    while pending:
        rest = [(axis, size) for axis, size in pending if not _settle(axis, size, sizes, equation)]
        if len(rest) == len(pending):
            unknown = sorted({f for axis, _ in rest for block in axis for f in block} - sizes.keys())
            raise RuleError(f"the sizes of {', '.join(unknown)} do not follow from the shapes in {equation}")
        pending = rest
    return sizes


def _settle(axis: Axis, size: int, sizes: dict[str, int], equation: Equation) -> bool:
    """Say whether the axis is settled: every letter known and the size right, after solving for at most one unknown letter.

    ``(h d+h d+h v)`` of size 20 with h = 2, d = 3: the unknown v is in the last block, the others have 6 + 6 = 12 positions,
    and the known letters of the block are h = 2, so that v = (20 - 12) / 2 = 4.
    """
    unknown = [f for block in axis for f in block if f not in sizes]
    if len(unknown) > 1:
        return False
    if unknown:
        (block,) = (block for block in axis if unknown[0] in block)
        others = size_of((other for other in axis if other is not block), sizes)
        factor = math.prod(sizes[f] for f in block if f != unknown[0])
        sizes[unknown[0]] = (size - others) // factor if factor else 0
    if size_of(axis, sizes) != size or any(sizes[f] < 0 for f in unknown):
        raise RuleError(f"{show_axis(axis)} is {size_of(axis, sizes)}, not {size}, in {equation}")
    return True


def size_of(axis: Iterable[Block], sizes: Mapping[str, int]) -> int:
    """The size of an axis, given the sizes of its letters."""
    return sum(math.prod(sizes[f] for f in block) for block in axis)
