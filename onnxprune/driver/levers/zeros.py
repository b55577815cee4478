"""Zeros in the layers that sparse kernels make faster: how many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from onnxprune.driver.levers.base import GradedLever, Ground, Made, Mixture, Step
from onnxprune.driver.sparsifier import Sparsifier
from onnxprune.errors import ModelError, OptionError, TargetError
from onnxprune.kernels.loading import library
from onnxprune.latency.timer import OrtTimer
from onnxprune.options.sparsify import SparseRecipe
from onnxprune.options.targets import number
from onnxprune.passes import UseKernels
from onnxprune.passes.use_kernels import PAYS
from onnxprune.runtime.custom_operators import custom_operators
from onnxprune.sparse.encoding.decoder import OPSET

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Zeros"]

_PATTERN = "4x1"
"""Blocks of 4 outputs for one input: for their accuracy the fastest."""
_SLOW = "no sparse kernel is faster"
_REGISTER = (
    "layers with zeros have sparse kernels: they are as fast as this where onnxprune.kernels.register is called, and elsewhere "
    "compute the same in the time of dense ones"
)
_OPEN = 2
"""Models whose layers are known at a time: what each costs takes long to measure."""


class Zeros(GradedLever):
    """Layers get zeros, and the weights that stay make up for them; sparse kernels compute these layers.

    Layers that a kernel does not make faster, as they are timed here, stay dense, unless size is the goal.
    """

    name: ClassVar[str] = "zeros"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._sparsifiers: dict[Mixture, Sparsifier] = {}
        self._use_kernels = UseKernels(OrtTimer())

    def choices(self) -> Sequence[str]:
        """One, where kernels are asked for and make a layer faster.

        Raises:
            OptionError: the library of kernels is not there and cannot be built.
        """
        if not self.ground.recipe.kernels:
            return ()
        self.ground.stack.enter_context(custom_operators(library()))
        try:
            self._sparsifier(Made(Mixture(), self.ground.original))
        except (ModelError, OptionError, TargetError) as error:
            self.notes.append(str(error))
            return ()
        return (self.at(0.5, Mixture()),)

    def at(self, share: float, beside: Mixture) -> str:
        """Where latency is the goal: a kernel that reads the share `PAYS` of a weight takes about as long as all of it does."""
        density = share if self.ground.recipe.by_size else share * PAYS
        return f"{_PATTERN} sparsity={number(round(1 - density, 4))}"

    def carry_out(self, made: Made, choice: str) -> Made:
        worker = self._sparsifier(made)
        counts = worker.shares(float(choice.rpartition("=")[2]))
        found = worker.with_counts(counts if self.ground.recipe.by_size else worker.paying(counts))
        check = worker.proof(found)
        dense = [layer.reader for layer, kept in found.layers if kept == layer.size]
        left = tuple({"node": reader.name, "op": reader.node.view.op, "why": _SLOW} for reader in dense)
        return made.then(Step(self.name, choice, {"refit": found.stored}, check, left, (_REGISTER,), found.kernels))

    def _sparsifier(self, made: Made) -> Sparsifier:
        """What makes a model sparse that levers before this one made; the latest ones are kept.

        Raises:
            OptionError: no layer may be sparse.
            TargetError: a kernel makes no layer faster.
        """
        found = self._sparsifiers.pop(made.mixture, None)
        if found is None:
            ground = self.ground
            recipe = SparseRecipe(
                pattern=_PATTERN,
                kernels=True,
                protect=ground.recipe.protect,
                seed=ground.recipe.seed,
                encoding="auto" if made.model.opset >= OPSET else "dense",
            )
            found = Sparsifier(made.model, recipe, ground.samples, ground.stages, self._use_kernels)
            found = found if ground.recipe.by_size else found.among_faster()
        self._sparsifiers[made.mixture] = found
        while len(self._sparsifiers) > _OPEN:
            self._sparsifiers.pop(next(iter(self._sparsifiers)))
        return found
