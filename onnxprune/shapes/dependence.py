"""Which computed sizes depend on sizes that change from call to call.

That a size is the same in two probes proves nothing: ``max(length / 256, 1)`` is 1 for every short input. A size is static only
if nothing that changes reaches it. Dependence is followed from ``Shape`` and ``Size`` through the arithmetic, entry by entry
where entries are picked, and from there to the axes whose sizes they give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxprune.ir.control_flow import Along, Phi
from onnxprune.ir.node import NodeView, domain_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from onnx import NodeProto

    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array

__all__ = ["WINDOWS", "Dependence"]

_SAME_ENTRIES = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_SIZES = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Tile": 1, "Resize": 3}
"""Operators with an input that has one entry for each axis of the output."""
WINDOWS = frozenset({"Conv", "ConvTranspose", "AveragePool", "LpPool", "MaxPool"})
"""Operators that move a window along axes: many sizes become the same, and those below the window's nothing."""


class Dependence:
    """What depends on dynamic sizes.

    Attributes:
        moved: by value, which axes have sizes that differ between the probes.
        axes: by value, which axes have a size that changes; all of a value without an entry are static.
        entries: by computed value, which entries depend on such a size; the shape is the value's.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape | None],
        values: Mapping[str, Array],
        axes: Mapping[str, tuple[bool, ...]],
        entries: Mapping[str, Array],
    ) -> None:
        self.shapes, self.values = shapes, values
        self.moved, self.axes, self.entries = axes, dict(axes), dict(entries)

    def follow(self, steps: Iterable[NodeProto | Phi]) -> None:
        """Follow dependence through nodes and phis, which are in topological order; around loops until nothing new depends."""
        steps, again = list(steps), True
        while again:
            again = False
            for step in steps:
                if isinstance(step, Phi):
                    again |= self._join(step) and step.back
                elif not domain_of(step):
                    self._follow_values(step)
                    self._follow_axes(step)

    # Control flow

    def _join(self, phi: Phi) -> bool:
        """Let the target of a phi depend on what its sources depend on, and on what decides among them; whether it did not."""
        name = phi.target.value
        before = self.axes.get(name), name in self.entries and bool(self.entries[name].all())
        if name in self.values:
            decided = any(value in self.entries for value in phi.deciding)
            for end in phi.sources:
                entries = self._flags(end.value)
                self._mark(name, np.array(decided or entries.any()) if decided or end.own or phi.target.own else entries)
        if (shape := self.shapes.get(name)) is not None:
            axes = self._joined(phi, shape)
            if any(axes):
                self.axes[name] = tuple(map(any, zip(axes, self.axes.get(name, axes), strict=True)))
        return before != (self.axes.get(name), name in self.entries and bool(self.entries[name].all()))

    def _joined(self, phi: Phi, shape: Shape) -> list[bool]:
        """Which axes of the target of a phi have a size that changes."""
        own = [axis % len(shape) for axis in phi.target.own]
        shared, found = [axis for axis in range(len(shape)) if axis not in own], [False] * len(shape)
        for end in phi.sources:
            flags, rank = self.axes.get(end.value, ()), len(self.shapes.get(end.value) or ())
            left = [flag for axis, flag in enumerate(flags) if axis not in {one % rank for one in end.own}]
            for axis, flag in zip(shared, left, strict=False):
                found[axis] |= flag
        for axis, size in zip(own, phi.sizes, strict=False):
            if isinstance(size, Along):
                found[axis] |= (self.axes.get(size.value) or (False,) * (size.axis + 1))[size.axis]
            else:
                found[axis] |= any(value in self.entries for value in (size.limit, *size.conditions))
        return found

    # Values

    def _follow_values(self, node: NodeProto) -> None:
        if node.op_type in {"Shape", "Size"}:
            if node.output[0] in self.values:
                self._mark(node.output[0], self._sizes(node))
            return
        if not any(name in self.entries for name in node.input):
            return
        for place, name in enumerate(node.output):
            if name in self.values:
                self._mark(name, self._made(node, place))

    def _mark(self, name: str, flags: Array) -> None:
        shape = self.values[name].shape
        flags = flags if flags.shape == shape else np.full(shape, flags.any())
        if flags.any():
            self.entries[name] = flags | self.entries.get(name, False)

    def _sizes(self, node: NodeProto) -> Array:
        shape = self.shapes.get(node.input[0]) or ()
        flags = np.array(self.axes.get(node.input[0], (False,) * len(shape)), bool)
        if node.op_type == "Size":
            return np.array(flags.any())
        attributes = self._attributes(node)
        return flags[attributes.attr("start", 0) : attributes.attr("end", len(flags))]

    def _flags(self, name: str) -> Array:
        """Which entries of a value depend on dynamic sizes."""
        if name in self.entries:
            return self.entries[name]
        return np.zeros(self.values[name].shape if name in self.values else (), bool)

    def _made(self, node: NodeProto, place: int) -> Array:
        """Which entries of an output depend on them: those made of such entries, or all where that is not known."""
        whole, shape = np.ones((), bool), self.values[node.output[place]].shape
        data, *others = (self._flags(name) for name in node.input)
        attributes = self._attributes(node)
        if node.op_type == "Concat":
            flags = [self._flags(name) for name in node.input]
            return np.concatenate(flags, attributes.attr("axis")) if all(flag.ndim for flag in flags) else whole
        if node.op_type in _SAME_ENTRIES:
            return data.reshape(shape) if data.size == np.prod(shape) else whole
        if any(other.any() for other in others) and node.op_type in {"Gather", "Slice", "Split"}:
            return whole
        if node.op_type == "Gather":
            places = self.values.get(node.input[1])
            return (
                whole if places is None or not data.ndim else np.take(data, places.astype(np.int64), attributes.attr("axis", 0))
            )
        if node.op_type == "Slice" and data.ndim == 1 and len(node.input) > 1:
            numbers = [int(self.values[name].item()) if name else 0 for name in (*node.input[1:3], *node.input[4:5])]
            start, end, step = (*numbers, 1)[:3]
            return data[start:end:step] if step > 0 else whole
        if node.op_type == "Split" and data.ndim == 1:
            sizes = [self.values[name].shape[0] if name in self.values else 0 for name in node.output]
            return data[sum(sizes[:place]) : sum(sizes[: place + 1])]
        try:
            made = np.broadcast_arrays(data, *others)
        except ValueError:
            return whole
        return np.logical_or.reduce(made) if made[0].shape == shape else whole

    # Axes

    def _follow_axes(self, node: NodeProto) -> None:
        for place, name in enumerate(node.output):
            shape = self.shapes.get(name)
            if not name or shape is None:
                continue
            flags = self._given(node, place, shape) | self._passed(node, shape)
            if flags:
                known = self.axes.get(name, (False,) * len(shape))
                self.axes[name] = tuple(flag or axis in flags for axis, flag in enumerate(known))

    def _given(self, node: NodeProto, place: int, shape: Shape) -> set[int]:
        """The axes of an output whose sizes are given by inputs that depend on dynamic sizes."""
        names = [*node.input, "", "", "", ""]
        attributes = self._attributes(node)
        position = _SIZES.get(node.op_type)
        if position is not None:
            return self._aligned(names[position], len(shape))
        if node.op_type == "Range":
            return {0} if any(name in self.entries for name in names) else set()
        if node.op_type == "Slice":
            return self._sliced(names, len(shape))
        if node.op_type == "Pad" and names[1] in self.entries:
            flags = self.entries[names[1]]
            axes = self._numbers(names[3], range(len(flags) // 2))
            return {axis % len(shape) for at, axis in enumerate(axes) if flags[at] or flags[at + len(axes)]}
        if node.op_type == "Split" and names[1] in self.entries:
            return {attributes.attr("axis", 0) % len(shape)} if self.entries[names[1]][place] else set()
        if node.op_type == "TopK" and names[1] in self.entries:
            return {attributes.attr("axis", -1) % len(shape)}
        return set()

    def _aligned(self, sizes: str, rank: int) -> set[int]:
        """The axes that entries of sizes give, aligned to the right."""
        if sizes not in self.entries:
            return set()
        flags = self.entries[sizes].reshape(-1)
        return {int(axis) + rank - len(flags) for axis in np.flatnonzero(flags)}

    def _sliced(self, names: list[str], rank: int) -> set[int]:
        borders = [self.entries[name] for name in names[1:3] if name in self.entries]
        if not borders:
            return set()
        axes = self._numbers(names[3], range(len(borders[0])))
        return {axis % rank for at, axis in enumerate(axes) if any(flags[at] for flags in borders)}

    def _numbers(self, name: str, default: Iterable[int]) -> list[int]:
        return [int(number) for number in self.values[name].reshape(-1)] if name in self.values else list(default)

    def _passed(self, node: NodeProto, shape: Shape) -> set[int]:
        """The axes of an output that are axes of inputs with a size that changes."""
        found: set[int] = set()
        attributes = self._attributes(node)
        for position, name in enumerate(node.input):
            flags, source = self.axes.get(name), self.shapes.get(name)
            if not name or flags is None or source is None or not any(flags):
                continue
            for axis in (axis for axis, flag in enumerate(flags) if flag):
                found.update(self._passed_on(node, attributes, position, source, axis, shape))
        return found

    def _passed_on(
        self, node: NodeProto, attributes: NodeView, position: int, source: Shape, axis: int, shape: Shape
    ) -> set[int]:
        """The axes of an output that one axis of an input becomes; none where that is not known."""
        rank = len(source)
        if node.op_type in WINDOWS:
            return {axis} if position == 0 and axis != 1 else set()
        if self.moved.get(node.input[position], (False,) * rank)[axis]:
            return set()  # what it becomes moves, too
        if node.op_type == "Transpose":
            perm = attributes.attr("perm", list(range(rank))[::-1])
            return {perm.index(axis)}
        if node.op_type == "Reshape":
            return self._reshaped(node, axis, shape) if position == 0 else set()
        if node.op_type in {"Shape", "Size", "ConstantOfShape", "Range"} or (node.op_type in _SIZES and position > 0):
            return set()
        if node.op_type in {"Squeeze", "Unsqueeze"} or node.op_type.startswith(("Reduce", "Arg")):
            return self._renumbered(node, attributes, axis, rank, len(shape)) if position == 0 else set()
        at = axis + len(shape) - rank
        return {at} if at >= 0 and shape[at] == source[axis] else set()

    def _reshaped(self, node: NodeProto, axis: int, shape: Shape) -> set[int]:
        """The inferred size of a reshape takes up what changes; a copied one changes as its source does."""
        sizes = self.values.get(node.input[1])
        if sizes is None or sizes.shape != (len(shape),):
            return set()
        if axis < len(sizes) and sizes[axis] == 0:
            return {axis}
        return {int(at) for at in np.flatnonzero(sizes == -1)}

    def _renumbered(self, node: NodeProto, attributes: NodeView, axis: int, rank: int, made: int) -> set[int]:
        """Where an axis is after axes were inserted or dropped."""
        listed = attributes.attr("axes", attributes.attr("axis"))
        if listed is None and len(node.input) > 1 and node.input[1]:
            listed = self._numbers(node.input[1], ())
        given = [listed] if isinstance(listed, int) else listed
        if not isinstance(given, list):
            return set()
        changed = {number % max(rank, made) for number in given}
        if node.op_type == "Unsqueeze":
            return {[at for at in range(made) if at not in changed][axis]}
        if axis in changed:
            return set()
        return {axis} if made == rank else {axis - sum(number < axis for number in changed)}

    def _attributes(self, node: NodeProto) -> NodeView:
        return NodeView(node, self.shapes, self.values, self.axes, 0)
