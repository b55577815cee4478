"""An ONNX graph as a module of PyTorch: it computes, it trains, and its weights go back into the file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnxprune.errors import InputError
from onnxprune.ir.model import Model, ModelSource
from onnxprune.torch import ops
from onnxprune.torch.program import CallContext, Constant, compiled
from onnxprune.torch.roles import Role
from onnxprune.torch.tensors import from_array, to_tensor

__all__ = ["GraphModule", "initializer_name", "to_module"]

_HOST = 64
"""Integer vectors of at most so many elements stay in the memory of the host: they are sizes and axes, which it computes with."""


class GraphModule(nn.Module):
    """A graph that computes what ONNX Runtime computes, and can be differentiated and trained.

    Parameters and buffers carry the names of the constants in the graph: dots lead through nested modules, so that
    ``layer1.0.conv1.weight`` is the same in `named_parameters` as in the file. Where PyTorch cannot have a name as it is (a
    part is empty, an attribute of modules, or a tensor and a module at once), its parts are escaped with ``%``;
    `initializer_name` reads every name back. `onnxprune.torch.roles` says which constants are trained.

    In train mode ``Dropout`` drops, and ``BatchNormalization`` takes the statistics of the batch and updates its own, unless
    other layers read the same constants. Weights may have parametrizations: they are read once per call.

    Attributes:
        program: the graph, as what runs.
        inputs: names of the graph's inputs; ``outputs`` those of its outputs.
        constants: every constant of the graph with its role, by name; names of constants of bodies are made unique.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.program, self.constants, weights = compiled(model)
        self.title, self.inputs, self.outputs = model.name, self.program.inputs, self.program.outputs
        self._holders: dict[str, tuple[nn.Module, str]] = {}
        self._host: dict[str, Tensor] = {}
        for constant in self.constants.values():
            self._hold(constant, to_tensor(weights[constant.key]))

    def _hold(self, constant: Constant, tensor: Tensor) -> None:
        if constant.role is Role.CONSTANT and not tensor.is_floating_point() and tensor.dim() < 2 and tensor.numel() <= _HOST:
            self._host[constant.key] = tensor
            return
        module, attribute = _register_path(self, constant.key)
        if constant.role is Role.WEIGHT:
            module.register_parameter(attribute, nn.Parameter(tensor))
        else:
            module.register_buffer(attribute, tensor, persistent=constant.role is Role.STATISTIC)
        self._holders[constant.key] = module, attribute

    def value_of(self, name: str) -> Tensor:
        """The tensor of a constant, by its name in the graph; with its parametrizations applied."""
        if name in self._host:
            return self._host[name]
        module, attribute = self._holders[name]
        tensor: Tensor = getattr(module, attribute)
        return tensor

    def holder_of(self, name: str) -> tuple[nn.Module, str]:
        """The module that holds a weight, and the attribute it is: where parametrizations are registered.

        Raises:
            KeyError: the graph has no such constant, or it is an integer of the host.
        """
        return self._holders[name]

    def weights(self) -> dict[str, Tensor]:
        """The tensors that are trained, by their names in the graph."""
        return {key: self.value_of(key) for key, constant in self.constants.items() if constant.role is Role.WEIGHT}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        tensor = next(self.parameters(), next(self.buffers(), None))
        return torch.device("cpu") if tensor is None else tensor.device

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the graph, a tuple if there are several.

        Inputs are tensors or arrays, in the graph's order or by name.

        Raises:
            InputError: an input is missing, or given twice, or unknown.
        """
        names = self.inputs
        given = dict(zip(names, args, strict=False)) | kwargs
        if len(args) > len(names) or len(given) != len(args) + len(kwargs):
            raise InputError(f"{self.title}: got {len(args) + len(kwargs)} inputs for {', '.join(names)}: give each once")
        results = tuple(self.compute(given).values())
        return results[0] if len(results) == 1 else results

    def compute(
        self, inputs: Mapping[str, Any], wanted: Sequence[str] | None = None, weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, Any]:
        """The outputs, or any values of the graph that are wanted, by name.

        Args:
            inputs: tensors or arrays by name.
            wanted: values of the main graph, constants too; the outputs unless told.
            weights: tensors to use in place of constants of the module, by their names in the graph.

        Raises:
            InputError: an input is missing or unknown.
        """
        self._check(inputs)
        device = self.device
        feeds = {name: _fed(value, device) for name, value in inputs.items()}
        given = weights or {}

        def fetch(name: str) -> Tensor:
            return given[name] if name in given else self.value_of(name)

        return self.program.run(feeds, CallContext(fetch, self.training), wanted=wanted)

    def _check(self, inputs: Mapping[str, Any]) -> None:
        missing = [name for name in self.inputs if name not in inputs]
        unknown = [name for name in inputs if name not in self.inputs]
        if missing or unknown:
            wrong = f"input {missing[0]!r} is missing" if missing else f"there is no input {unknown[0]!r}"
            raise InputError(f"{self.title}: {wrong}: its inputs are {', '.join(self.inputs)}")

    def extra_repr(self) -> str:
        trained = sum(math.prod(tensor.shape) for tensor in self.parameters())
        return f"{self.title}: {', '.join(self.inputs)} -> {', '.join(self.outputs)}; {trained:,} trained"


class _Holder(nn.Module):
    """Holds the tensors whose names have a dot: ``a.weight`` is ``weight`` in the holder ``a``."""

    def extra_repr(self) -> str:
        held = [*self._parameters.items(), *self._buffers.items()]
        return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in held if tensor is not None)


def _fed(value: Any, device: torch.device) -> Any:
    if isinstance(value, list | tuple):
        return [_fed(item, device) for item in value]
    if isinstance(value, np.ndarray):
        value = from_array(value)
    return value if value is None else torch.as_tensor(value, device=device)


def _escaped(part: str) -> str:
    return f"%{ord(part[0]):02X}{part[1:]}" if part else "%"


def _register_path(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module and the attribute for a name; makes the modules on the way."""
    *path, last = name.replace("%", "%25").split(".")
    module = root
    for part in path:
        while not part or (hasattr(module, part) and not isinstance(module._modules.get(part), _Holder)):
            part = _escaped(part)
        if part not in module._modules:
            module.add_module(part, _Holder())
        module = module._modules[part] or module
    while not last or hasattr(module, last):
        last = _escaped(last)
    return module, last


def initializer_name(name: str) -> str:
    """The name in the graph of a parameter or buffer, from its name in the module, with parametrizations or without."""
    name = re.sub(r"(^|\.)parametrizations\.(.+)\.original\d*$", r"\1\2", name)
    return re.sub("%([0-9A-F]{2})?", lambda found: chr(int(found[1], 16)) if found[1] else "", name)


def to_module(model: ModelSource) -> GraphModule:
    """The graph of a model as a module whose parameters carry the names of the graph's constants, in evaluation mode.

    Args:
        model: a path, a ``ModelProto``, its bytes, or what `Model.of` takes otherwise; it is not changed. The module has
            copies of its weights.

    Raises:
        ModelError: the model cannot be read, or an operator cannot be computed in PyTorch.
    """
    assert ops.FAMILIES  # noqa: S101 - importing them registered every operator
    module = GraphModule(Model.of(model))
    return module.eval()
