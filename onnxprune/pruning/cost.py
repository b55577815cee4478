"""The cost of a model as a function of the widths of its groups: multiply-accumulates, parameters, bytes.

What kernels take is estimated as well: a dense convolution between *a* and *b* channels under *k* positions of its kernel takes,
for each position of the image, as long as ``ceil16(b) * (k * ceil16(a) + 16)`` multiply-accumulates.

Every branch of an ``If`` counts, and the body of a loop counts once: which is taken, and how often, the inputs decide.

Worked example: a dense convolution between groups of widths *a* and *b* under a 3 x 3 kernel on 8 x 8 positions costs
``576 * a * b`` MACs: one term with the coefficient 576 and two factors. Narrowing the first group by 2 saves ``1152 * b``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.axes.factors import Factor, leaves, length
from onnxprune.ir.files import written_bytes
from onnxprune.ir.parameters import parameters

if TYPE_CHECKING:
    from onnxprune.axes.coupling import Coupling
    from onnxprune.axes.node_axes import NodeAxes
    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape

__all__ = ["COST_METRICS", "KERNELS", "Cost", "CostModel", "Footprint", "layer_costs"]

COST_METRICS = ("macs", "params", "size")
"""The costs that are counted exactly; latency is predicted elsewhere."""
KERNELS = "kernels"
"""What kernels compute, in multiply-accumulates: whole blocks of channels, and the writing of what they output."""
_BLOCK = 16
"""Channels that a fast kernel computes at once: a width of 20 takes as long as one of 32."""
_OUTPUT = 16
"""Multiply-accumulates that take as long as one value takes beyond its own: those of a depthwise convolution, nine for a value,
take three times as long as those of a dense one."""

Term = tuple[float, tuple[Factor, ...]]
"""A coefficient, and the factors whose lengths it is multiplied with."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Attributes:
    macs: multiply-accumulates of one inference; of one sample where the batch is dynamic.
    params: elements of floating-point constants, and of quantised ones.
    size: bytes of the file, external data included.
    """

    macs: int
    params: int
    size: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes where it is stored: the costs that do not depend on what is computed.

    Attributes:
        params: elements of floating-point constants, and of quantised ones.
        size: bytes of the file, external data included.
    """

    params: int
    size: int


class CostModel:
    """Costs of a graph under a plan; each is a sum of products of factor lengths, so a change is priced where it acts."""

    def __init__(
        self,
        model: Model,
        coupling: Coupling,
        batch: int,
        file: Footprint | None = None,
        uncut: Footprint | None = None,
        made: Collection[str] = (),
    ) -> None:
        """Price a graph.

        Args:
            model: the graph.
            coupling: its groups.
            batch: the batch size of its shapes.
            file: what the file takes that the graph was made from, of which targets are fractions; that of the graph if none.
            uncut: what is written of the graph where nothing is cut; all of it if none. The graph may hold what the file does
                not, such as constants that are made by nodes when it is written.
            made: names of these constants, which take no bytes.
        """
        free = {group.factor for group in coupling.groups}
        below: dict[Factor, frozenset[Factor]] = {}
        metrics = (*COST_METRICS, KERNELS)
        self._terms: dict[str, list[Term]] = {metric: [] for metric in metrics}
        self._constant = dict.fromkeys(metrics, 0.0)
        self._touched: dict[str, dict[Factor, list[Term]]] = {metric: {} for metric in metrics}
        for node in coupling.nodes:
            for letters in node.rule.macs:
                known = [node.letters.get(letter) or node.sizes[letter] for letter in letters]
                product = _product(known, free, below)
                self._add("macs", 1 / batch, product, below)
                self._add(KERNELS, 1 / batch, product, below)
            for name in node.view.outputs if node.rule.macs else ():
                self._add(KERNELS, _OUTPUT / batch, _product(coupling.axes.get(name, ()), free, below), below)
        counted, apart = parameters(model), dict.fromkeys(metrics, 0.0)
        copies: dict[str, set[tuple[Shape, tuple[Factor, ...]]]] = {}
        for weight in model.weights.values():
            product = _product(coupling.axes.get(weight.name, weight.shape), free, below)
            one, others = (weight.shape, product[1]), set() if weight.is_matrix else copies.setdefault(weight.origin, set())
            if one in others:
                continue  # a copy of a vector that is cut like the vector is written once
            each = {"size": weight.nbytes / max(weight.size, 1), "params": float(counted.get(weight.name, 0))}
            for metric in each.keys() - ({"size"} if weight.name in made else set()):
                self._add(metric, each[metric], product, below)
                apart[metric] += each[metric] * weight.size if others else 0.0
            others.add(one)
        uncut = uncut or Footprint(round(self.total("params", {})), written_bytes(model))
        self.file = file or uncut
        """What targets are a fraction of."""
        for metric in ("params", "size"):
            # What is cut otherwise than its copy is written apart from it. Where neither is, it is not: that little is left out.
            self._constant[metric] += getattr(uncut, metric) + apart[metric] - self.total(metric, {})

    def _add(
        self, metric: str, coefficient: float, product: tuple[int, tuple[Factor, ...]], below: dict[Factor, frozenset[Factor]]
    ) -> None:
        """Add one product, as `_product` tells it."""
        fixed, moving = product
        if not moving:
            self._constant[metric] += coefficient * fixed
            return
        term = (coefficient * fixed, moving)
        self._terms[metric].append(term)
        for leaf in {leaf for root in moving for leaf in below[root]}:
            self._touched[metric].setdefault(leaf, []).append(term)

    def total(self, metric: str, counts: Mapping[Factor, int]) -> float:
        """A cost when each factor keeps that many positions (others: all)."""
        return self._constant[metric] + _price(self._terms[metric], counts, _block(metric))

    def change(self, metric: str, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        """The growth of a cost when one factor goes from its present count to ``count``."""
        terms, block = self._touched[metric].get(factor, ()), _block(metric)
        before, present = _price(terms, counts, block), counts.get(factor, factor.size)
        counts[factor] = count
        after = _price(terms, counts, block)
        counts[factor] = present
        return after - before

    def sharing(self, metric: str, factor: Factor) -> set[Factor]:
        """The factors that what a change of this one costs depends on."""
        terms = self._touched[metric].get(factor, ())
        return {leaf for _, factors in terms for below in factors for leaf in leaves(below)} - {factor}

    def of(self, metric: str) -> Priced:
        """One of the costs."""
        return Priced(self, metric)

    def whole(self, metric: str) -> float:
        """What a target is a fraction of: the cost of the file."""
        return float(getattr(self.file, metric)) if metric in {"params", "size"} else self.total(metric, {})

    def original(self) -> Cost:
        """All costs of the file."""
        return Cost(*(round(self.whole(metric)) for metric in COST_METRICS))

    def cost(self, counts: Mapping[Factor, int]) -> Cost:
        """All costs."""
        return Cost(*(round(self.total(metric, counts)) for metric in COST_METRICS))


@dataclass(frozen=True, slots=True)
class Priced:
    """One of the costs of a graph under a plan."""

    model: CostModel
    metric: str

    @property
    def whole(self) -> float:
        return self.model.whole(self.metric)

    def total(self, counts: Mapping[Factor, int]) -> float:
        return self.model.total(self.metric, counts)

    def change(self, counts: dict[Factor, int], factor: Factor, count: int) -> float:
        return self.model.change(self.metric, counts, factor, count)

    def sharing(self, factor: Factor) -> set[Factor]:
        return self.model.sharing(self.metric, factor)


def _product(
    factors: Iterable[Factor | int], free: set[Factor], below: dict[Factor, frozenset[Factor]]
) -> tuple[int, tuple[Factor, ...]]:
    """What of a product is fixed, and the factors of which something may go; ``below`` remembers the free leaves of each."""
    fixed, moving = 1, list[Factor]()
    for factor in factors:
        if isinstance(factor, int):
            fixed *= factor
            continue
        root = factor.root
        if root not in below:
            below[root] = frozenset(free.intersection(leaves(root)))
        if below[root]:
            moving.append(root)
        else:
            fixed *= factor.size
    return fixed, tuple(moving)


def _block(metric: str) -> int:
    """What lengths are rounded up to a multiple of before they are multiplied."""
    return _BLOCK if metric == KERNELS else 1


def _price(terms: Iterable[Term], counts: Mapping[Factor, int], block: int) -> float:
    total = 0.0
    for coefficient, factors in terms:
        for factor in factors:
            count = counts.get(factor, factor.size) if not factor.kind else length(factor, counts)
            coefficient *= count if block == 1 else -(-count // block) * block
        total += coefficient
    return total


def layer_costs(model: Model, node: NodeAxes, batch: int, counted: Mapping[str, int]) -> tuple[int, int]:
    """Multiply-accumulates (of one sample) and parameters of one node; ``counted`` is as `parameters` returns it."""
    macs = sum(math.prod(node.sizes[letter] for letter in letters) for letters in node.rule.macs)
    names = [name for name in dict.fromkeys(node.view.inputs) if name in counted]
    return macs // batch, sum(model.weights[name].size * counted[name] for name in names)
