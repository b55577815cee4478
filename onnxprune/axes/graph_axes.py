"""The axes of a graph: every node states one equation between those of its tensors, and unification joins them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

from onnxprune.axes import rules
from onnxprune.axes.equation import ANONYMOUS, Axis, AxisRule, Equation, expand_ellipses, solve
from onnxprune.axes.factors import LEAF, Factor, fix, mix
from onnxprune.axes.node_axes import NodeAxes, compose, pick_listed
from onnxprune.axes.refusals import Why
from onnxprune.axes.rules.flow import phi
from onnxprune.axes.rules.registry import MICROSOFT, Reason, Refused
from onnxprune.axes.unification import unify
from onnxprune.errors import RuleError
from onnxprune.ir.control_flow import Path, Phi
from onnxprune.ir.model import Model
from onnxprune.ir.node import NodeView, captured, domain_of
from onnxprune.ir.types import Shape

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from onnx import NodeProto

    from onnxprune.axes.rules.registry import Rule
    from onnxprune.shapes.probes import Shapes

__all__ = ["BATCHED_PRODUCTS", "GraphAxes", "ranks"]

ATTENTION = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention"})
BATCHED_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Einsum"})
"""Products of tensors with batch axes: where neither factor is a constant, they are the products of attention."""


def ranks(shapes: Sequence[Shape | None]) -> tuple[int | None, ...]:
    """The ranks of some tensors; ``None`` for an absent one."""
    return tuple(None if shape is None else len(shape) for shape in shapes)


class GraphAxes:
    """The equations of a graph, stated one node at a time.

    Attributes:
        axes: the factors of each value that a node has stated so far.
        nodes: those with a rule.
        uses: the first node that reads each constant, and the input where it does.
        named: axes that some rule has a letter for; no others belong to a group.
        quantized: constants that stand for real numbers.
        meeting: factors of the products of attention.
        passed: constants under the names that bodies have for them.
        detached: outputs of nodes that pick positions of an axis of which none can go.
    """

    def __init__(self, model: Model, shapes: Shapes, detached: Collection[str] = ()) -> None:
        self.model, self.shapes, self.detached = model, shapes, detached
        self.axes: dict[str, tuple[Factor, ...]] = {}
        self.nodes: list[NodeAxes] = []
        self.uses: dict[str, tuple[str, int]] = {}
        self.named: set[tuple[str, int]] = set()
        self.quantized: set[str] = set()
        self.meeting: list[Factor] = []
        self.passed: set[str] = set()

    def state(self, path: Path, step: NodeProto | Phi) -> None:
        """Add a node or phi: unify the axes that its rule writes with what is known of its tensors."""
        if isinstance(step, Phi):
            sources = [end.value for end in step.sources]
            if sources:
                self._state(path, self._view(step.proto()), partial(phi, passed=step))
            if sources and all(value in self.model.weights or value in self.passed for value in sources):
                self.passed.add(step.target.value)
            return
        view = self._view(step)
        if inner := captured(step):
            why = Why(Reason.CONTROL_FLOW, view.name, f"is read inside the body of {step.op_type}")
            self._fix_values(inner, why)
            for value in sorted(inner & self.model.weights.keys()):
                self.uses.setdefault(value, (step.op_type, -1))
        self._state(path, view, rules.find(view.domain, view.op))

    def _view(self, node: NodeProto) -> NodeView:
        shapes = self.shapes
        detached = bool(self.detached) and node.output[0] in self.detached
        opset = self.model.opset_of(domain_of(node))
        return NodeView(node, shapes.shapes, shapes.values, shapes.dynamic, opset, detached=detached)

    def _state(self, path: Path, view: NodeView, function: Rule | None) -> None:
        stated = self._stated(view, function)
        if isinstance(stated, Refused):
            text = f"{view.op}: {stated.text}"
            for position, value in enumerate(view.inputs):
                if value in self.model.weights:
                    self.uses.setdefault(value, (view.op, position))
            self._fix_values([*view.inputs, *view.outputs], Why(stated.reason, view.name, text, stated.remedy))
            return
        self._instantiate(path, view, *stated)

    def _stated(self, view: NodeView, function: Rule | None) -> tuple[AxisRule, Equation, dict[str, int]] | Refused:
        if function is None:
            return Refused(f"no rule for {view.domain or 'ai.onnx'}::{view.op}", Reason.NO_RULE)
        known = self.shapes.shapes
        inputs, outputs = ([known.get(value) if value else None for value in side] for side in (view.inputs, view.outputs))
        for value, shape in zip((*view.inputs, *view.outputs), (*inputs, *outputs), strict=True):
            if value and shape is None:
                known_to_all = view.domain in {"", MICROSOFT}
                remedy = "" if known_to_all else f"give the library of operators in {view.domain} by --custom-ops"
                return Refused(f"the shape of {value!r} is not known before the model runs", Reason.UNKNOWN_SHAPE, remedy)
        rule = function(view)
        if isinstance(rule, Refused):
            return rule
        try:
            equation = expand_ellipses(rule.equation, (ranks(inputs), ranks(outputs)))
            return rule, equation, solve(equation, rule.sizes, inputs, outputs)
        except RuleError as error:
            return Refused(str(error), Reason.CONTRADICTION)

    def _instantiate(self, path: Path, view: NodeView, rule: AxisRule, equation: Equation, sizes: dict[str, int]) -> None:
        letters: dict[str, Factor] = {}
        order = Why(Reason.POSITION, view.name, f"{view.op}: the order or size of this axis matters")
        clash = Why(Reason.MISALIGNED, view.name, f"{view.op}: its axes do not align with what they meet here")
        spelled_inputs, spelled_outputs = equation.spelling
        for position, value in enumerate(view.inputs):
            if not value:
                continue
            if value in self.model.weights:
                self.uses.setdefault(value, (view.op, position))
            if position < len(spelled_inputs):
                self._tensor(value, spelled_inputs[position], letters, sizes, order, clash)
            else:
                self._fix_values([value], order)
        for value, axes in zip(view.outputs, spelled_outputs, strict=False):
            if value:
                self._tensor(value, axes, letters, sizes, order, clash)
        if equation.picks:
            places = {at for _, at in equation.picks.values()}
            lists = {at: self.model.weights[view.inputs[at]].array() for at in places if view.inputs[at] in self.model.weights}
            pick_listed(equation, letters, lists, clash)
        for letter in rule.fixed & letters.keys():
            fix(letters[letter], order)
        if rule.mix:
            why = Why(Reason.MIXES, view.name, f"{view.op} mixes the positions of this axis")
            for letter in rule.mix & letters.keys():
                mix(letters[letter], why)
        weighs = not (self.model.weights.keys().isdisjoint(view.inputs) and self.passed.isdisjoint(view.inputs))
        if view.op in ATTENTION or (view.op in BATCHED_PRODUCTS and not weighs):
            self.meeting.extend(letters.values())
        self.quantized.update(view.inputs[position] for position in rule.quantized if view.has(position))
        self.nodes.append(NodeAxes(path[0], view, rule, equation, letters, sizes, path[1:]))

    def _tensor(
        self,
        value: str,
        axes: tuple[str | Axis, ...],
        letters: dict[str, Factor],
        sizes: dict[str, int],
        order: Why,
        clash: Why,
    ) -> None:
        known = self.axes.get(value)
        shape = self.shapes.shapes[value]
        assert shape is not None  # noqa: S101 - _rule refused the node otherwise
        made: list[Factor] = []
        for at, axis in enumerate(axes):
            if axis == ANONYMOUS:
                made.append(Factor(shape[at], fixed=order) if known is None else known[at])
                if known is not None:
                    fix(known[at], order)
                continue
            self.named.add((value, at))
            if isinstance(axis, str):
                factor = letters.get(axis)
                if factor is None:
                    factor = letters[axis] = Factor(sizes[axis]) if known is None else known[at]
            else:
                for name in (name for block in axis for name in block):
                    if name not in letters:
                        letters[name] = Factor(sizes[name])
                factor = compose(axis, letters)
            if known is not None and known[at].root is not factor.root:  # where many inputs meet nearly all are one already
                unify(known[at], factor, clash)
            made.append(factor)
        if known is None:
            self.axes[value] = tuple(made)
            for flag, factor in zip(self.shapes.dynamic.get(value, ()), made, strict=False):
                if flag and factor.root.kind == LEAF:  # of a product, the digit that moves is fixed where it stands alone
                    fix(factor, Why(Reason.DYNAMIC, value, "its size changes from call to call"))

    def _fix_values(self, values: Iterable[str], why: Why) -> None:
        """Fix every axis of some values, now and for nodes that state them later."""
        for value in values:
            shape = self.shapes.shapes.get(value) if value else None
            if shape is None:
                continue
            if value not in self.axes:
                self.axes[value] = tuple(Factor(size, fixed=why) for size in shape)
            for axis, factor in enumerate(self.axes[value]):
                fix(factor, why)
                if why.reason is not Reason.POSITION:
                    self.named.add((value, axis))

    def fix_because(self, factor: Factor, node: NodeAxes, reason: Reason, text: str) -> None:
        """Fix a factor for a reason found by a later analysis."""
        fix(factor, Why(reason, node.view.name, f"{node.view.op}: {text}"))

    def fix_interface(self) -> None:
        """Axes of graph inputs and outputs are a contract."""
        for kind, values in (("input", self.model.inputs), ("output", self.model.graph.output)):
            for value in values:
                self._fix_values([value.name], Why(Reason.INTERFACE, value.name, f"graph {kind}: the interface is a contract"))
        for name in self.model.overridable:
            remedy = "if nobody overrides it, `onnxprune release` makes it a constant"
            text = "an input that has a default, which callers may override: the interface is a contract"
            self._fix_values([name], Why(Reason.INTERFACE, name, text, remedy))

    def protect(self, globs: Sequence[str]) -> None:
        """Fix every axis of the tensors, and of the tensors of the nodes, whose name matches a glob."""
        if not globs:
            return
        for glob in globs:
            self._fix_values(
                [name for name in self.axes if fnmatchcase(name, glob)],
                Why(Reason.PROTECTED, glob, f"protected by {glob!r}"),
            )
        for node in self.nodes:
            for glob in globs:
                if fnmatchcase(node.view.name, glob):
                    why = Why(Reason.PROTECTED, node.view.name, f"protected by {glob!r}")
                    self._fix_values([*node.view.inputs, *node.view.outputs], why)
