"""Measures models that differ from the original from some node on; values before that node are computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.ir.subgraph import extract
from onnxprune.runtime.parallel import at_once, map_ordered
from onnxprune.runtime.session import Session
from onnxprune.verify.divergence import divergence

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Array
    from onnxprune.runtime.stages import StagedRun

__all__ = ["SuffixDivergence"]


class SuffixDivergence:
    """Measures models against one original, whose nodes are run stage by stage as the models begin to differ later."""

    def __init__(self, original: Model, held: Iterable[Mapping[str, Array]], stages: StagedRun) -> None:
        """Run the original on the samples once; ``stages`` is the original, on the same samples."""
        self._stages = stages
        self._outputs = [output.name for output in original.graph.output]
        self._reference = list(map_ordered(Session(original, self._outputs).run, held, at_once()))

    def measure(self, changed: Model, start: int) -> float:
        """The divergence of a model that equals the original before node ``start``; ``start`` never falls from call to call."""
        self._stages.advance(start)
        nodes = changed.graph.node[start:]
        made = {name for node in nodes for name in node.output}.intersection(self._outputs)
        names = [name for name in self._outputs if name in made]
        tail = extract(changed, nodes, names, self._stages.info)
        session = Session(tail)
        reads = [value.name for value in tail.graph.input]
        found = []

        def run(batch: int) -> list[Any]:
            return session.run({name: self._stages.value(name, batch) for name in reads})

        runs = map_ordered(run, range(len(self._reference)), at_once())
        for results, reference in zip(runs, self._reference, strict=True):
            got = dict(zip(names, results, strict=True))
            outputs = [got.get(name, before) for name, before in zip(self._outputs, reference, strict=True)]
            found.append(divergence(outputs, reference))
        return float(np.mean(found))
