"""The cost of a model as a function of the widths of its groups: multiply-accumulates, parameters, bytes.

Every branch of an ``If`` counts, and the body of a loop counts once: which is taken, and how often, the inputs decide.

Worked example: a dense convolution between groups of widths *a* and *b* under a 3 x 3 kernel on 8 x 8 positions costs
``576 * a * b`` MACs: one term with the coefficient 576 and two factors. Narrowing the first group by 2 saves ``1152 * b``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.axes.factors import Factor, leaves, length

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model

__all__ = ["COST_METRICS", "Cost", "CostModel", "layer_costs"]

COST_METRICS = ("macs", "params", "size")
"""The costs that are counted exactly; latency is predicted elsewhere."""

Term = tuple[float, tuple[Factor, ...]]
"""A coefficient, and the factors whose lengths it is multiplied with."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Attributes:
    macs: multiply-accumulates of one inference; of one sample where the batch is dynamic.
    params: elements of floating-point constants, and of quantised ones.
    size: bytes of the constants and the graph.
    """

    macs: int
    params: int
    size: int


class CostModel:
    """Costs of a graph under a plan; each is a sum of products of factor lengths, so a change is priced where it acts."""

    def __init__(self, model: Model, coupling: Coupling, batch: int) -> None:
        free = {group.factor for group in coupling.groups}
        below: dict[Factor, frozenset[Factor]] = {}
        self._terms: dict[str, list[Term]] = {metric: [] for metric in COST_METRICS}
        self._constant = dict.fromkeys(COST_METRICS, 0.0)
        self._touched: dict[str, dict[Factor, list[Term]]] = {metric: {} for metric in COST_METRICS}
        for node in coupling.nodes:
            for letters in node.rule.macs:
                known = (node.letters.get(letter) or node.sizes[letter] for letter in letters)
                self._add("macs", 1 / batch, known, free, below)
        quantized = {name: count for node in coupling.nodes for name, count in _quantized(node).items()}
        for weight in model.weights.values():
            factors = coupling.axes.get(weight.name, weight.shape)
            self._add("size", weight.nbytes / max(weight.size, 1), factors, free, below)
            if weight.is_float or weight.name in quantized:
                self._add("params", quantized.get(weight.name, 1), factors, free, below)
        self._constant["size"] += model.proto.ByteSize()

    def _add(
        self,
        metric: str,
        coefficient: float,
        factors: Iterable[Factor | int],
        free: set[Factor],
        below: dict[Factor, frozenset[Factor]],
    ) -> None:
        """Add one product; ``below`` remembers the free leaves of each factor."""
        moving = []
        for factor in factors:
            if isinstance(factor, int):
                coefficient *= factor
                continue
            root = factor.root
            if root not in below:
                below[root] = frozenset(free.intersection(leaves(root)))
            if below[root]:
                moving.append(root)
            else:
                coefficient *= factor.size
        if not moving:
            self._constant[metric] += coefficient
            return
        term = (coefficient, tuple(moving))
        self._terms[metric].append(term)
        for leaf in {leaf for root in moving for leaf in below[root]}:
            self._touched[metric].setdefault(leaf, []).append(term)

    def total(self, metric: str, counts: Mapping[Factor, int]) -> float:
        """A cost when each factor keeps that many positions (others: all)."""
        return self._constant[metric] + _price(self._terms[metric], counts)

    def change(self, metric: str, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        """The growth of a cost when one factor goes from its present count to ``count``."""
        terms = self._touched[metric].get(factor, ())
        before, present = _price(terms, counts), counts.get(factor, factor.size)
        counts[factor] = count
        after = _price(terms, counts)
        counts[factor] = present
        return after - before

    def sharing(self, metric: str, factor: Factor) -> set[Factor]:
        """The factors that what a change of this one costs depends on."""
        terms = self._touched[metric].get(factor, ())
        return {leaf for _, factors in terms for below in factors for leaf in leaves(below)} - {factor}

    def of(self, metric: str) -> Priced:
        """One of the costs."""
        return Priced(self, metric)

    def cost(self, counts: Mapping[Factor, int]) -> Cost:
        """All costs."""
        return Cost(*(round(self.total(metric, counts)) for metric in COST_METRICS))


@dataclass(frozen=True, slots=True)
class Priced:
    """One of the costs of a graph under a plan."""

    model: CostModel
    metric: str

    def total(self, counts: Mapping[Factor, int]) -> float:
        return self.model.total(self.metric, counts)

    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        return self.model.change(self.metric, counts, factor, count)

    def sharing(self, factor: Factor) -> set[Factor]:
        return self.model.sharing(self.metric, factor)


def _quantized(node: NodeAxes) -> dict[str, int]:
    """The names of what a node reads as quantised constants, and how many parameters each of their elements holds."""
    rule, view = node.rule, node.view
    return {view.inputs[position]: rule.packed.get(position, 1) for position in rule.quantized if view.has(position)}


def _price(terms: Iterable[Term], counts: Mapping[Factor, int]) -> float:
    total = 0.0
    for coefficient, factors in terms:
        for factor in factors:
            coefficient *= counts.get(factor, factor.size) if not factor.kind else length(factor, counts)
        total += coefficient
    return total


def layer_costs(model: Model, node: NodeAxes, batch: int) -> tuple[int, int]:
    """Multiply-accumulates (of one sample) and floating-point parameters of one node."""
    macs = sum(math.prod(node.sizes[letter] for letter in letters) for letters in node.rule.macs)
    weights = (model.weights[name] for name in dict.fromkeys(node.view.inputs) if name in model.weights)
    quantized = _quantized(node)
    params = (weight.size * quantized.get(weight.name, 1) for weight in weights if weight.is_float or weight.name in quantized)
    return macs // batch, sum(params)
