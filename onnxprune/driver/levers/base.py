"""The form of a lever: which choices it offers on a model, and how one is carried out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.driver.layer_types import LayerTypes
    from onnxprune.driver.progress import Stages
    from onnxprune.ir.model import Model
    from onnxprune.latency.node_times import NodeTime
    from onnxprune.options.optimize import OptimizeRecipe
    from onnxprune.sparse.kernel_nodes import KernelLayer
    from onnxprune.verify.verdicts import Check

__all__ = ["Ground", "Lever", "Made", "Mixture", "Step"]


@dataclass(frozen=True, slots=True)
class Mixture:
    """A choice of each lever that is pulled: pairs of its name and the choice, sorted. None at all is the original."""

    choices: tuple[tuple[str, str], ...] = ()

    def having(self, lever: str, choice: str) -> Mixture:
        """The same with another choice of one lever."""
        return Mixture(tuple(sorted({**dict(self.choices), lever: choice}.items())))

    def without(self, lever: str) -> Mixture:
        """The same without one lever."""
        return Mixture(tuple(pair for pair in self.choices if pair[0] != lever))

    def __str__(self) -> str:
        return " + ".join(choice for _, choice in self.choices) or "original"


@dataclass(frozen=True, slots=True)
class Step:
    """What one lever did.

    Attributes:
        lever: its name.
        choice: the choice that was carried out.
        models: what came of it, by what was done; the last is the result: ``cut``, ``repaired``.
        check: the proof of what is exact in it; ``None`` where nothing is.
        kept: nodes that it left alone, each with its name ``node``, its ``op`` and ``why``.
        notes: what else the user should know.
        kernels: the layers that got sparse kernels.
    """

    lever: str
    choice: str
    models: Mapping[str, Model]
    check: Check | None = None
    kept: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    kernels: tuple[KernelLayer, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A model that a mixture came to.

    Attributes:
        mixture: the choices.
        model: the model.
        steps: what each lever did, in order.
    """

    mixture: Mixture
    model: Model
    steps: tuple[Step, ...] = ()

    def then(self, step: Step) -> Made:
        """The result of one more step."""
        *_, model = step.models.values()
        return Made(self.mixture.having(step.lever, step.choice), model, (*self.steps, step))


@dataclass(frozen=True)
class Ground:
    """What levers stand on.

    Attributes:
        original: the model that is made cheaper.
        recipe: what is asked for.
        samples: that levers learn from; others judge.
        stages: announces and times what is done.
        times: the time of each node that ONNX Runtime runs for a model.
        stack: closes what levers open.
        types: what layers compute in, of choices that decide it; levers before these plan by it.
    """

    original: Model
    recipe: OptimizeRecipe
    samples: Samples
    stages: Stages
    times: Callable[[Model], Sequence[NodeTime]]
    stack: ExitStack = field(default_factory=ExitStack)
    types: dict[str, LayerTypes] = field(default_factory=dict)


class Lever(ABC):
    """A way to make a model cheaper. It remembers what does not depend on the choice.

    Attributes:
        name: what reports call it.
        exact: whether the result equals what it was made of.
        notes: why it offers nothing, or less than it could.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = False

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.notes: list[str] = []

    @abstractmethod
    def choices(self) -> Sequence[str]:
        """The choices that the original has, the boldest first."""

    def expected(self, choice: str) -> float:
        """The latency of a choice as a fraction of the original's, as layer times predict it before anything is built; else 1."""
        return 1.0

    def noise(self, choice: str) -> float:
        """What a choice adds to the original's values in all, to which its loss is about proportional; 0 if it is not known."""
        return 0.0

    @abstractmethod
    def carry_out(self, made: Made, choice: str) -> Made:
        """The model with a choice carried out.

        Raises:
            ModelError: the model cannot take it.
            TargetError: the choice cannot be reached.
            VerificationError: the proof fails, or the result does not run.
        """

    def draft(self, made: Made, choice: str) -> Made | None:
        """A model of the latency and size that a choice comes to, made in much less time; what it computes is not looked at.

        ``None`` where that would take as long as `carry_out`. What it is made of may be a draft, of which nothing may be kept.

        Raises:
            ModelError: as by `carry_out`.
            TargetError: likewise.
        """
        return None


class GradedLever(Lever):
    """A lever with a choice for every share of the goal's metric; of its `choices` any will do that shows it has some.

    Attributes:
        start: the share that a search begins with.
        coarse: whether its choices are few: where the mildest loses too much, the lever has nothing to offer.
    """

    start: ClassVar[float] = 0.5
    coarse: ClassVar[bool] = False

    @abstractmethod
    def at(self, share: float, beside: Mixture) -> str:
        """The choice that leaves about this share of the goal's metric, beside choices of other levers."""
