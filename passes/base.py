"""What a pass is, and pipelines of passes as text.

A pass changes a graph or establishes a fact about it. Its fields are its options: the command line, the TOML recipe and the
text form ``normalize,score{criterion=l2}`` are read into them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar, get_type_hints

import numpy as np

from onnxprune.axes.coupling import Coupling
from onnxprune.axes.plan import Plan
from onnxprune.data.calibration import Calibration
from onnxprune.errors import OnnxPruneError, OptionError, PassError
from onnxprune.ir.model import Model
from onnxprune.linear.moments import Statistics
from onnxprune.linear.reconstruction import Repaired
from onnxprune.linear.rotation import Basis
from onnxprune.pruning.cost import CostModel
from onnxprune.pruning.knapsack import Curve, Prices
from onnxprune.pruning.lossless.search import Removal
from onnxprune.shapes.probes import Shapes
from onnxprune.sparse.encoding.accounting import Encoded
from onnxprune.sparse.layers import Layer

__all__ = ["Facts", "Pass", "Pipeline", "need"]

T = TypeVar("T")
LASTING = frozenset({"frozen", "removal", "original", "calibration", "tell"})
"""Facts that no change of the graph makes untrue."""


@dataclass(slots=True)
class Facts:
    """What is known about the present graph; a pass that changes the graph takes back what it does not keep true.

    Attributes:
        shapes: sizes of every value.
        coupling: what may be pruned.
        scores: importance of each position of each group, by group id.
        importance: of each weight by gradients, by name.
        plan: the positions that remain.
        costs: what the graph costs under any plan.
        prices: its latency under any plan.
        frozen: groups that must stay, by id, with the reason; true of every later graph too.
        removal: what goes without loss; of every later graph too.
        statistics: what the original does on calibration samples.
        bases: of groups that only linear maps touch, by group id.
        curves: what each group costs, by group id.
        original: the graph before any position went, in float32: what calibration runs.
        calibration: samples to run on; of every later graph too.
        repairs: what repair did to each reader.
        sparse: layers, with how many weights of each stay.
        encoded: the weights, as they are stored.
        tell: called with what is being done.
    """

    shapes: Shapes | None = None
    coupling: Coupling | None = None
    scores: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]] | None = None
    importance: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]] | None = None
    plan: Plan | None = None
    costs: CostModel | None = None
    prices: Prices | None = None
    statistics: Statistics | None = None
    bases: Mapping[str, Basis] | None = None
    curves: Mapping[str, Curve] | None = None
    original: Model | None = None
    calibration: Calibration | None = None
    repairs: Sequence[Repaired] | None = None
    sparse: Sequence[tuple[Layer, int]] | None = None
    encoded: Sequence[Encoded] | None = None
    frozen: dict[str, str] = field(default_factory=dict)
    removal: Removal | None = None
    tell: Callable[[str], None] = field(default=lambda _: None)


@dataclass(frozen=True)
class Pass:
    """One step of the compiler.

    Subclasses are frozen dataclasses; ``keeps`` names fields of `Facts`.
    """

    name: ClassVar[str]
    keeps: ClassVar[frozenset[str]] = frozenset()
    """Facts that stay true although the graph changed."""

    def run(self, model: Model, facts: Facts) -> Model:
        """The changed graph, or ``model`` itself if nothing changed; new facts are set on ``facts``."""
        raise NotImplementedError

    def __call__(self, model: Model, facts: Facts) -> Model:
        """Run the pass; facts that a changed graph may have made untrue are taken back."""
        before = {f.name: getattr(facts, f.name) for f in fields(Facts)}
        result = self.run(model, facts)
        if result is not model:
            for name, value in before.items():
                if name not in self.keeps | LASTING and getattr(facts, name) is value:
                    setattr(facts, name, None)
        return result

    def __str__(self) -> str:
        options = [
            f"{f.name}={_show(getattr(self, f.name))}" for f in fields(self) if getattr(self, f.name) != f.default and f.init
        ]
        return self.name + (f"{{{','.join(options)}}}" if options else "")


def need(fact: T | None, what: str) -> T:
    """A fact that a pass builds on.

    Raises:
        PassError: no earlier pass established it.
    """
    if fact is None:
        raise PassError(f"no earlier pass established the {what}")
    return fact


def _show(value: object) -> str:
    return (
        "|".join(map(str, value)) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    )


class Pipeline:
    """Passes in order."""

    _STEP = re.compile(r"\s*([a-z_]+)\s*(?:\{([^}]*)\})?\s*(?:,|$)")

    def __init__(self, steps: Sequence[Pass]) -> None:
        self.steps = tuple(steps)

    @classmethod
    def parse(cls, text: str, known: Mapping[str, type[Pass]]) -> Pipeline:
        """Read ``normalize,score{criterion=l2}``.

        Raises:
            OptionError: no such pass or option, or a value of the wrong type; the message lists what there is.
        """
        steps, at = [], 0
        while at < len(text):
            match = cls._STEP.match(text, at)
            if not match:
                raise OptionError(f"cannot read the pipeline at {text[at:]!r}: write pass{{option=value,...}},pass,...")
            name, options = match[1], match[2]
            if name not in known:
                raise OptionError(f"there is no pass {name!r}; there are {', '.join(sorted(known))}")
            steps.append(_build(known[name], options or ""))
            at = match.end()
        return cls(steps)

    def run(self, model: Model, facts: Facts | None = None) -> tuple[Model, Facts]:
        """Run every pass.

        Raises:
            PassError: a pass failed for a reason of its own; the message names the passes that ran before it.
        """
        facts = Facts() if facts is None else facts
        done: list[str] = []
        for step in self.steps:
            try:
                model = step(model, facts)
            except OnnxPruneError:
                raise
            except Exception as error:
                before = ", ".join(done) or "nothing"
                raise PassError(f"{step} failed after {before}: {type(error).__name__}: {error}") from error
            done.append(str(step))
        return model, facts

    def __str__(self) -> str:
        return ",".join(map(str, self.steps))


def _build(kind: type[Pass], options: str) -> Pass:
    hints = get_type_hints(kind)
    names = {f.name for f in fields(kind)}
    values: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, _, text = option.partition("=")
        key = key.strip()
        if key not in names:
            raise OptionError(f"the pass {kind.name!r} has no option {key!r}; it has {', '.join(sorted(names)) or 'none'}")
        try:
            values[key] = _read(hints[key], text.strip())
        except ValueError as error:
            raise OptionError(f"{kind.name}{{{key}={text}}}: {error}") from error
    return kind(**values)


def _read(hint: Any, text: str) -> Any:
    if hint is bool:
        if text not in {"true", "false"}:
            raise ValueError("write true or false")
        return text == "true"
    if hint in {int, float, str}:
        return hint(text)
    return tuple(filter(None, text.split("|")))
