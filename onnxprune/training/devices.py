"""The device that training runs on; several by Hugging Face accelerate, if it launched this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from onnxprune.errors import OptionError

__all__ = ["Devices", "find_devices"]

_AUTOCAST_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Devices:
    """The device of a training in one process; `Accelerated` has the same methods for several.

    Attributes:
        device: that tensors are on.
        rank: the number of this process, of ``world``; process 0 writes files.
    """

    rank, world = 0, 1

    def __init__(self, device: str, precision: str) -> None:
        self.device = _device(device)
        self._half = _AUTOCAST_TYPES.get(precision)
        if self._half is torch.float16 and self.device.type != "cuda":
            raise OptionError("--precision float16 needs a CUDA device: use bfloat16")
        self._scaler = torch.amp.GradScaler(enabled=self._half is torch.float16)

    def tensors(self, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
        """Arrays as tensors on the device, by name; in the order that they have in memory.

        Images keep their channels first: convolutions whose images have them last crash on some CPUs.
        """
        return {name: torch.as_tensor(array, device=self.device) for name, array in arrays.items()}

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The module and its optimizer, to be used in place of the ones that are given."""
        return module, optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """A context in which layers compute in the precision that was asked for."""
        return torch.autocast(self.device.type, self._half, enabled=self._half is not None)

    def step(self, loss: Tensor, parameters: list[Tensor], optimizer: torch.optim.Optimizer, clip: float) -> None:
        """Change the weights by the gradients of a loss."""
        self._scaler.scale(loss).backward()
        if clip:
            self._scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        self._scaler.step(optimizer)
        self._scaler.update()

    def mean(self, value: float) -> float:
        """The mean over all processes."""
        return value

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint must hold besides weights and optimizer: the scale of losses in float16."""
        return self._scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the state that `state` returned."""
        if state:
            self._scaler.load_state_dict(state)

    def share(self, value: Any) -> Any:
        """The value of the first process, in all of them; the others wait for it."""
        return value


class Accelerated(Devices):
    """One device per process, gradients averaged."""

    def __init__(self, precision: str, device: str) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        kinds = {"bfloat16": "bf16", "float16": "fp16"}
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # outputs that a loss does not read
        cpu = device == "cpu" or not torch.cuda.is_available()
        self._inner = Accelerator(mixed_precision=kinds.get(precision, "no"), cpu=cpu, kwargs_handlers=[unused])
        self.device = self._inner.device
        self.rank, self.world = self._inner.process_index, self._inner.num_processes

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        return cast("tuple[nn.Module, torch.optim.Optimizer]", self._inner.prepare(module, optimizer))

    def autocast(self) -> AbstractContextManager[Any]:
        return cast("AbstractContextManager[Any]", self._inner.autocast())

    def step(self, loss: Tensor, parameters: list[Tensor], optimizer: torch.optim.Optimizer, clip: float) -> None:
        self._inner.backward(loss)
        if clip:
            self._inner.clip_grad_norm_(parameters, clip)
        optimizer.step()

    def state(self) -> dict[str, Any]:
        return {} if self._inner.scaler is None else cast("dict[str, Any]", self._inner.scaler.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        if state and self._inner.scaler is not None:
            self._inner.scaler.load_state_dict(state)

    def mean(self, value: float) -> float:
        return float(self._inner.reduce(torch.tensor(value, device=self.device), "mean"))

    def share(self, value: Any) -> Any:
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]


def find_devices(device: str = "auto", precision: str = "float32") -> Devices:
    """The device that was asked for; of several processes, the one of this process.

    Raises:
        OptionError: there is no such device, or several processes were launched without accelerate.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        try:
            import accelerate  # noqa: F401
        except ImportError as error:
            raise OptionError("more than one process needs accelerate: run pip install 'onnxprune[accelerate]'") from error
        return Accelerated(precision, device)
    return Devices(device, precision)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"--device {name}: this machine has none: write cpu, cuda or auto") from error
    return found
