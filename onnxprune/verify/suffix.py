"""Measures models that differ from the original from some node on; values before that node are computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.ir.subgraph import extract
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
        session = Session(original, self._outputs, threads=0)
        self._reference = [session.run(feed) for feed in held]

    def measure(self, changed: Model, start: int) -> float:
        """The divergence of a model that equals the original before node ``start``; ``start`` never falls from call to call."""
        self._stages.advance(start)
        nodes = changed.graph.node[start:]
        made = {name for node in nodes for name in node.output}.intersection(self._outputs)
        names = [name for name in self._outputs if name in made]
        tail = extract(changed, nodes, names, self._stages.info)
        session = Session(tail, threads=0)
        reads = [value.name for value in tail.graph.input]
        found = []
        for batch, reference in enumerate(self._reference):
            got = dict(zip(names, session.run({name: self._stages.value(name, batch) for name in reads}), strict=True))
            outputs = [got.get(name, before) for name, before in zip(self._outputs, reference, strict=True)]
            found.append(divergence(outputs, reference))
        return float(np.mean(found))
