"""A short distillation: a model that was made cheaper learns to output what the original does."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from onnxprune.data.samples import held_out, open_samples
from onnxprune.driver.distilling import Distilled
from onnxprune.driver.exponents import drifted
from onnxprune.errors import OptionError
from onnxprune.ir.node import QDQ
from onnxprune.options.train import Training
from onnxprune.torch.module import to_module
from onnxprune.training.fake_quantization import round_weights, with_float_weights
from onnxprune.training.inputs import TrainingInputs
from onnxprune.training.phase import Phase
from onnxprune.training.session import TrainingSession
from onnxprune.training.student import trainable_form

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples, SamplesLike
    from onnxprune.ir.model import Model
    from onnxprune.passes.base import Progress

__all__ = ["Distillation"]

_EVERY = 8
"""Of so many samples one is held out to choose by."""
_EPOCHS, _STEPS = 4, 500
"""Passes over the samples, and batches of each at most."""
_BATCH = 64
_CHOOSING = 16
"""Batches that choose, at most."""
_ROUNDED_RATE = 3e-4
"""The learning rate of weights that are rounded in the graph, a third of that of others. In four epochs it took 38 % of what the
outputs of the digits network in int8 were off; 0.0001 took 11 %."""


class Distillation:
    """Trains models on the same samples; `onnxprune.driver.distilling` says when the result is taken."""

    def __init__(self, data: SamplesLike, preprocess: str = "", seed: int = 0) -> None:
        """Nothing is read yet.

        Args:
            data: samples, in any form of `open_samples`.
            preprocess: how images become arrays.
            seed: of the order of samples.
        """
        self._data, self._preprocess, self._seed = data, preprocess, seed

    def check(self, model: Model) -> None:
        """Say what is wrong before a search begins.

        Raises:
            ModelError: the model cannot be computed in PyTorch.
            OptionError: samples cannot be read, are too few, or do not fit.
        """
        self._parts(model)
        to_module(trainable_form(model))

    def __call__(self, student: Model, teacher: Model, tell: Progress) -> Distilled:
        """The student with the weights of its best epoch; weights of int8 layers are trained through their rounding.

        Raises:
            ModelError: the model cannot be computed in PyTorch.
            RequirementError: training diverged.
        """
        learnt, held = self._parts(student)
        rounded = any(node.op_type in QDQ for node in student.graph.node)
        options = Training(
            epochs=_EPOCHS,
            steps=_STEPS,
            batch=_BATCH,
            lr=_ROUNDED_RATE if rounded else 0.0,
            restore_norms="no" if rounded else "auto",  # they would stand between weights and their rounding
            metric="mse",  # agreement may be whole from the first epoch on, and chooses none then
            seed=self._seed,
        )
        session = TrainingSession(
            with_float_weights(student) if rounded else student, TrainingInputs(learnt, teacher, held), options, tell=tell
        )
        trained = session.train([Phase("distillation", options.epochs, start=True)]).compiled
        model = round_weights(trained, student) if rounded else trained
        feeds = [batch.feeds for batch in islice(held.batches(_BATCH), _CHOOSING)]
        before, after = (drifted(one, teacher, feeds) for one in (student, model))
        return Distilled(model, f"distilled{' through rounding' if rounded else ''} for {options.epochs} epochs", before, after)

    def _parts(self, model: Model) -> tuple[Samples, Samples]:
        """The samples that train, and those that choose."""
        given = open_samples(self._data, model.inputs, option="--data", preprocess=self._preprocess or None)
        if given.count is not None and given.count < 2 * _EVERY:
            raise OptionError(f"{given.source}: has {given.count} samples; distillation needs {2 * _EVERY} or more")
        return held_out(given, model.inputs, _EVERY)
