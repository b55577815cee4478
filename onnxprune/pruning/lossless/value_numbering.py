"""Find slices that are equal, or one known number, on every input: value numbering along the axes of a graph.

One forward walk gives every position of every axis that a prunable group runs along a *digest* of the slice of the tensor
there, and bounds of its entries. Slices with equal digests are equal on every input (the value numbering of compilers, a channel
at a time); a slice whose bounds meet is one number. Products with constant matrices are summarised in `affine`, pointwise
operators are computed by the runtime (`intervals`), and what every other operator does follows from its axis rule: positions
of a letter that is neither summed over nor mixed are treated alike.

`onnxprune.axes.zeros` asks another question of the same rules for zeros; its docstring tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.axes.equation import ANONYMOUS
from onnxprune.axes.factors import leaves
from onnxprune.axes.zeros import drops_out, passes_zero
from onnxprune.errors import ModelError
from onnxprune.ir.discontinuities import dtypes
from onnxprune.pruning.lossless.affine import Affine, affine, merged
from onnxprune.pruning.lossless.hashing import Digests, joined, mixed, named, products
from onnxprune.pruning.lossless.intervals import CONVEX, Operand, Ranges, hull, product_bounds
from onnxprune.pruning.lossless.slices import Slices, by_digits, concatenated, content, of_constant

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.equation import Axis, Block
    from onnxprune.axes.factors import Factor
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Flags, Floats

__all__ = ["OPAQUE", "ValueNumbering"]


OPAQUE = frozenset({("", "GRU"), ("", "LSTM"), ("", "RNN"), ("com.microsoft", "Attention")})
"""Operators in which positions of a letter that passes through read each other: states that feed back, one width for two uses."""
_CONTENT = 4096
"""Elements up to which two constants are compared by content, not by name."""


class ValueNumbering:
    """The walk over a graph.

    Attributes:
        affine: nodes that multiply by a constant matrix, by their place in the graph.
    """

    def __init__(self, model: Model, coupling: Coupling) -> None:
        self._name, self._weights, self._graph, self._axes = model.name, model.weights, model.graph, coupling.axes
        self._dtypes = dtypes(model)
        self._ranges = Ranges(model)
        self._known: dict[tuple[str, int], Slices] = {}
        self._digests: dict[str, Digests] = {}
        self._free = {group.factor for group in coupling.groups if group.exact}
        self._tracked: dict[Factor, bool] = {}
        found = (affine(node, model.weights) for node in coupling.nodes)
        self.affine: dict[int, Affine] = {form.node.index: form for form in found if form is not None}
        for node in coupling.nodes:
            self._visit(node)

    # Slices of a value.

    def known(self) -> Mapping[tuple[str, int], Slices]:
        """The slices along the axes that prunable groups run along, by value and axis."""
        return {place: slices for place, slices in self._known.items() if place[0] not in self._weights}

    def along(self, value: str, axis: int) -> Slices:
        """The slices of a value along one of its axes."""
        if (value, axis) not in self._known:
            weight = self._weights.get(value)
            if weight is not None:
                self._known[value, axis] = of_constant(weight.array(), axis)
            else:
                places = np.arange(self._axes[value][axis].size, dtype=np.uint64)
                self._known[value, axis] = Slices.unknown(joined(self.digest(value), named(axis), places))
        return self._known[value, axis]

    def digest(self, value: str) -> Digests:
        """The digest of a whole value. [1]"""
        if value not in self._digests:
            weight = self._weights.get(value)
            small = weight is not None and weight.size <= _CONTENT and weight.array().dtype.kind in "fiub"
            self._digests[value] = content(weight.array()) if weight is not None and small else named("value", value)
        return self._digests[value]

    def view(self, node: NodeAxes, position: int, block: Block) -> Slices | None:
        """An input of a node by the digits of some letters: entry ``(i, j)`` is about what it has at ``i`` and ``j``.

        ``None`` if the input is absent or carries none of the letters.
        """
        if not node.view.has(position) or position >= len(node.equation.inputs):
            return None
        value, found = node.view.inputs[position], None
        for axis, spelled in enumerate(node.equation.inputs[position]):
            if {letter for part in spelled for letter in part}.isdisjoint(block):
                continue
            here = self._along_digits(node, value, axis, spelled, block)
            if found is None:
                found = here
                continue
            digest = joined(self.digest(value), found.digest, here.digest)  # where two slices cross
            found = Slices.of(digest, np.maximum(found.low, here.low), np.minimum(found.high, here.high))
        return found

    def _along_digits(self, node: NodeAxes, value: str, axis: int, spelled: Axis, block: Block) -> Slices:
        whole = self.along(value, axis)
        if spelled == (block,):
            return whole
        found, start = None, 0
        for part in spelled:
            stop = start + math.prod(node.sizes.get(letter, 1) for letter in part)
            if not set(part).isdisjoint(block):
                here = by_digits(whole.part(start, stop), part, block, node.sizes)
                if found is not None:  # both belong to the slice
                    digest = joined(found.digest, here.digest)
                    here = Slices.of(digest, np.minimum(found.low, here.low), np.maximum(found.high, here.high))
                found = here
            start = stop
        assert found is not None  # noqa: S101 - the caller looked
        return found

    # Zeros, as the rules state them.

    def zero(self, node: NodeAxes, block: Block) -> Flags:
        """Whether every output is zero, at each digit of some letters. [digits]"""
        zero, carrying = self._zeros(node, block)
        flags = np.ones(math.prod(node.sizes[letter] for letter in block), bool)
        if node.rule.zero is None and not carrying:
            return ~flags  # made of no input: nothing is known
        present = {position for position in range(len(zero)) if node.view.has(position)}
        return np.asarray(flags & passes_zero(node.rule, zero, present, carrying))

    def drops_out(self, node: NodeAxes, letter: str) -> Flags:
        """Whether the terms of a sum over a letter are zero, at each position of it. [positions]"""
        zero, carrying = self._zeros(node, (letter,))
        return np.asarray(np.ones(node.sizes[letter], bool) & drops_out(node.rule, zero, carrying))

    def _zeros(self, node: NodeAxes, block: Block) -> tuple[dict[int, Flags], set[int]]:
        """Whether each input is zero at each digit of some letters, and the inputs that carry any of them."""
        nowhere = np.zeros(math.prod(node.sizes[letter] for letter in block), bool)
        views = [self.view(node, position, block) for position in range(len(node.view.inputs))]
        zero = {
            position: nowhere if view is None or not self._is_real(name) else view.zero
            for position, (name, view) in enumerate(zip(node.view.inputs, views, strict=True))
        }
        return zero, {position for position, view in enumerate(views) if view is not None}

    def _is_real(self, name: str) -> bool:
        """Whether a value holds real numbers; a quantised zero is its zero point."""
        dtype = self._dtypes.get(name)
        return dtype is not None and dtype.kind in "fV"

    # The walk.

    def _visit(self, node: NodeAxes) -> None:
        proto = self._graph.node[node.index]
        attributes = sorted(attribute.SerializeToString() for attribute in proto.attribute)
        signature = named(node.view.domain, node.view.op, node.view.opset, attributes)
        whole = joined(signature, *(self.digest(name) if name else named("") for name in node.view.inputs))
        for number, (name, spelled) in enumerate(zip(node.view.outputs, node.equation.outputs, strict=False)):
            if not name:
                continue
            self._digests[name] = joined(whole, named(number))
            for axis, blocks in enumerate(spelled):
                if self._is_tracked(self._axes[name][axis]):
                    parts = [self._block(node, block, signature, number, axis, at) for at, block in enumerate(blocks)]
                    self._known[name, axis] = parts[0] if len(parts) == 1 else concatenated(parts)

    def _is_tracked(self, factor: Factor) -> bool:
        root = factor.root
        if root not in self._tracked:
            self._tracked[root] = not self._free.isdisjoint(leaves(root))
        return self._tracked[root]

    def _block(self, node: NodeAxes, block: Block, signature: Digests, number: int, axis: int, at: int) -> Slices:
        """The slices of an output along one block of one of its axes."""
        rule = node.rule
        size = math.prod(node.sizes.get(letter, 1) for letter in block)
        if block == (ANONYMOUS,):
            size = self._axes[node.view.outputs[number]][axis].size
        own = joined(self._digests[node.view.outputs[number]], named(axis, at), np.arange(size, dtype=np.uint64))
        if ANONYMOUS in block:
            return Slices.unknown(own)
        if not node.equation.picks.keys().isdisjoint(block):
            return self._picked(node, block[0], own)
        form = self.affine.get(node.index)
        if form is not None and form.outer == block:
            return self._affine(form, signature)
        if self._is_apart(node, block):
            found = Slices.unknown(own)
        else:
            views = [self.view(node, position, block) for position in range(len(node.view.inputs))]
            found = self._alike(node, block, views, joined(signature, named(number, axis, at)), number, axis)
        zero = self.zero(node, block) if rule.zero is None or rule.zero else np.zeros(size, bool)
        return Slices.of(found.digest, np.where(zero, 0, found.low), np.where(zero, 0, found.high)) if zero.any() else found

    def _picked(self, node: NodeAxes, letter: str, own: Digests) -> Slices:
        """The slices of an axis that holds listed ones of another."""
        source, at = node.equation.picks[letter]
        view, listed = self.view(node, 0, (source,)), self._weights.get(node.view.inputs[at])
        if view is None or listed is None:
            return Slices.unknown(own)
        positions = listed.array() % node.sizes[source]
        return Slices.of(view.digest[positions], view.low[positions], view.high[positions])

    @staticmethod
    def _is_apart(node: NodeAxes, block: Block) -> bool:
        """Whether the operator treats positions of these letters differently, or lets them read each other."""
        apart = node.rule.mix | node.rule.fixed | node.rule.sums
        return (node.view.domain, node.view.op) in OPAQUE or not apart.isdisjoint(block)

    def _alike(
        self, node: NodeAxes, block: Block, views: Sequence[Slices | None], signature: Digests, number: int, axis: int
    ) -> Slices:
        """An operator that does the same at every position: equal slices of its inputs make equal slices of its output."""
        size = math.prod(node.sizes[letter] for letter in block)
        carrying = [view for view in views if view is not None]
        if len(carrying) == 1 and _selects(node, axis):
            return carrying[0]
        names = node.view.inputs
        columns = [
            view.digest if view is not None else self.digest(name) if name else named("")
            for view, name in zip(views, names, strict=True)
        ]
        digest = np.broadcast_to(joined(signature, *columns), (size,))
        low, high = self._bounds(node, block, views, signature, number)
        return Slices.of(digest, *(np.broadcast_to(end, (size,)) for end in (low, high)))

    def _bounds(
        self, node: NodeAxes, block: Block, views: Sequence[Slices | None], signature: Digests, number: int
    ) -> tuple[Floats, Floats]:
        unknown = np.full(1, -np.inf), np.full(1, np.inf)
        if node.view.op in CONVEX and not node.view.domain:
            return hull(node, views, number) or unknown
        if number or len(block) != 1:
            return unknown
        found = self._ranges(node, int(signature[0]), self._operands(node, block[0], views), node.sizes[block[0]])
        return found or unknown

    def _operands(self, node: NodeAxes, letter: str, views: Sequence[Slices | None]) -> list[Operand | None]:
        found: list[Operand | None] = []
        for position, (name, view) in enumerate(zip(node.view.inputs, views, strict=True)):
            if not name:
                found.append(None)
                continue
            axes = [axis for at, axis in node.equation.carriers.get(letter, ()) if at == position]
            low, high = (view.low, view.high) if view is not None else self._whole(name)
            dtype = self._dtypes.get(name, np.dtype(object))
            found.append(Operand(low, high, axes[0] if view is not None else None, len(node.view.shape(position)), dtype))
        return found

    def _whole(self, name: str) -> tuple[Floats, Floats]:
        """The bounds of a whole value."""
        weight = self._weights.get(name)
        if weight is None or not weight.size or weight.size > _CONTENT or weight.array().dtype.kind not in "fiub":
            return np.full(1, -np.inf), np.full(1, np.inf)
        array = weight.array().astype(np.float64)
        return array.min(keepdims=True).reshape(1), array.max(keepdims=True).reshape(1)

    def _affine(self, form: Affine, signature: Digests) -> Slices:
        """Rows of a constant matrix: equal where they weigh equal inputs equally and add the same."""
        node = form.node
        matrix = form.view(self._weights[form.matrix].array())
        if not np.isfinite(matrix.sum(dtype=np.float64)):
            raise ModelError(f"initializer {form.matrix!r} of {self._name} has NaN or infinite weights: export the model again")
        groups, outs, ins, kernel = matrix.shape
        data = self.view(node, form.data, form.inner)
        assert data is not None  # noqa: S101 - it carries the letter that is summed over
        ignored = data.zero
        low, high = (np.where(ignored, 0, end).reshape(groups, ins) for end in (data.low, data.high))
        if form.padded:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        bias = self.view(node, form.bias, form.outer) if form.bias >= 0 else None
        absent = form.bias < 0 or not node.view.has(form.bias)
        seeds = np.where(ignored, np.uint64(0), data.digest).reshape(groups, ins, 1)
        factors = np.where(seeds == 0, seeds, mixed(seeds + np.arange(kernel, dtype=np.uint64))).reshape(groups, -1)
        matrix = merged(matrix, data.digest.reshape(groups, ins))
        sums = np.concatenate([products(matrix[group].reshape(outs, -1), factors[group]) for group in range(groups)])
        own = bias.digest if bias is not None else named("") if absent else self.digest(node.view.inputs[form.bias])
        least, most = product_bounds(matrix, low, high, form.scales[0])
        if not absent:
            ends = (bias.low, bias.high) if bias is not None else self._whole(node.view.inputs[form.bias])
            ends = (ends[0] * form.scales[1], ends[1] * form.scales[1]) if form.scales[1] else (np.zeros(1), np.zeros(1))
            least, most = least + np.minimum(*ends), most + np.maximum(*ends)
        form_of = named(form.data, node.view.shape(form.weight)[2:])
        return Slices.of(joined(signature, form_of, sums, own), least, most)


def _selects(node: NodeAxes, axis: int) -> bool:
    """Say whether slices of the output along an axis are slices of an input, unchanged."""
    if node.view.op == "Concat":
        return True  # where one input alone has the letter, which is the axis of concatenation
    return node.view.op == "Identity" or (node.view.op == "Split" and node.view.axis(0) == axis)
