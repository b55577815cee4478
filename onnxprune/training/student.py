"""A model while it is trained: a module, perhaps with batch normalisations that the model does not have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from onnxprune.ir.model import Model
from onnxprune.ir.precision import as_float32, float_types
from onnxprune.torch.module import GraphModule, to_module
from onnxprune.torch.write_back import write_back
from onnxprune.training import masks
from onnxprune.training.batchnorm import RestoredNorm, fold_norms, initialize_norms, restore_norms, update_batchnorm
from onnxprune.training.data import TrainingData
from onnxprune.training.devices import Devices

__all__ = ["Student", "trainable_form"]

_SMALLEST_BATCH = 8
"""With fewer samples the variance of a batch has an error of half its value or more (``sqrt(2 / (n - 1))``)."""
_EXAMPLES = 1024
"""Samples from which statistics are taken: their error is then 3 % of a deviation (``1 / sqrt(n)``)."""


def trainable_form(model: Model) -> Model:
    """The model with float32 in place of half precision, where a step may be too small to change a weight."""
    return as_float32(model) if float_types(model) & {"float16", "bfloat16"} else model


@dataclass(frozen=True)
class Student:
    """A model while it is trained.

    Attributes:
        model: as it was given; it is not changed.
        module: that is trained.
        norms: normalisations that the module has for the training alone.
        data: samples, from which statistics are taken.
        devices: where the module is.
    """

    model: Model
    module: GraphModule
    norms: tuple[RestoredNorm, ...]
    data: TrainingData
    devices: Devices

    @classmethod
    def of(cls, model: Model, data: TrainingData, devices: Devices, *, restore: str, sparse: bool) -> Self:
        """A student of a model, which computes what the model does.

        Args:
            model: to train.
            data: samples for it.
            devices: where it is trained.
            restore: the option ``restore_norms``.
            sparse: weights become zero in the training; with ``restore="auto"`` normalisations come back.

        Raises:
            ModelError: the model cannot be computed in PyTorch.
        """
        form, norms = trainable_form(model), tuple[RestoredNorm, ...]()
        module = to_module(form)
        wanted = restore == "yes" or (restore == "auto" and (sparse or bool(masks.masks_of_zeros(module))))
        if wanted and data.size >= _SMALLEST_BATCH:
            form, norms = restore_norms(form)
            module = to_module(form)
        module.to(devices.device)
        student = cls(model, module, norms, data, devices)
        student.initialize_norms()
        return student

    @property
    def added(self) -> frozenset[str]:
        """The constants of the module that the model does not have."""
        return frozenset(name for norm in self.norms for name in norm.constants)

    def examples(self) -> Iterator[dict[str, Any]]:
        """Some batches of the data, as tensors on the device, by the names of inputs."""
        for batch in itertools.islice(self.data.epoch(0), math.ceil(_EXAMPLES / self.data.size)):
            yield self.devices.tensors(batch.feeds)

    def initialize_norms(self) -> None:
        """Let the added normalisations change nothing at the weights that the module has now."""
        if self.norms:
            initialize_norms(self.module, self.norms, self.examples())

    def update_statistics(self) -> None:
        """Give all batch normalisations the statistics that belong to the weights as they are now.

        Running statistics also contain those of earlier weights, and where few weights are left each step changes them much.
        """
        update_batchnorm(self.module, self.examples())

    def trained(self) -> Model:
        """The model with the weights of the module. Masks and added normalisations become part of the weights."""
        masks.remove_masks(self.module)
        fold_norms(self.module, self.norms)
        return write_back(self.module, self.model, exclude=self.added)
