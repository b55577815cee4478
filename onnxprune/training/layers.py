"""The layers of a module whose weights may become sparse, and new weights for a module."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from onnxprune.errors import OptionError
from onnxprune.torch.module import GraphModule
from onnxprune.torch.program import ProgramStep
from onnxprune.torch.registry import Body
from onnxprune.torch.roles import Role
from onnxprune.training.masks import parameter_of

__all__ = ["PrunableLayer", "prunable_layers", "reinitialize"]

_KERNELS = {"Conv": 1, "FusedConv": 1, "ConvTranspose": 1}
_MATRICES = {"Gemm", "MatMul", "FusedMatMul"}


@dataclass(frozen=True, slots=True)
class PrunableLayer:
    """A convolution or a matrix product, and its constant weight.

    Attributes:
        name: of the weight in the graph.
        op: the operator.
        groups: of a convolution.
        flipped: a matrix is [outputs, channels], not [channels, outputs].
    """

    name: str
    op: str
    groups: int = 1
    flipped: bool = False

    @property
    def kernel(self) -> bool:
        """True for convolutions: the weight slides over positions."""
        return self.op in _KERNELS

    def spread(self, weight: Tensor) -> Tensor:
        """A view of a weight as patterns read it: [groups, channels that are summed over, taps of the kernel, outputs].

        The weight [4, 3, 5, 5] of a convolution with two groups becomes [2, 3, 25, 2].
        """
        if self.op == "ConvTranspose":
            return weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1).permute(0, 1, 3, 2)
        if self.kernel:
            return weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1).permute(0, 2, 3, 1)
        matrix = weight.reshape(-1, *weight.shape[-2:])
        return (matrix.mT if self.flipped else matrix)[:, :, None, :]

    def gather(self, spread: Tensor, like: Tensor) -> Tensor:
        """The inverse of `spread`: a tensor of the shape of ``like``."""
        places = self.spread(torch.arange(like.numel(), device=spread.device).reshape(like.shape))
        found = torch.empty(like.numel(), dtype=spread.dtype, device=spread.device)
        found[places.reshape(-1)] = spread.reshape(-1)
        return found.reshape(like.shape)

    def fan_in(self, weight: Tensor) -> int:
        """The number of weights that are summed over for one output."""
        _, channels, taps, _ = self.spread(weight).shape
        return channels * taps


def _steps(program: Body) -> Iterator[tuple[ProgramStep, Mapping[str, str]]]:
    for step in program.steps:
        yield step, program.constants
        for body in step.node.bodies.values():
            yield from _steps(body)


def prunable_layers(module: GraphModule, protect: Sequence[str] = ()) -> dict[str, PrunableLayer]:
    """Layers by the names of their weights, in the order of the graph; a weight that several layers read counts as of the first.

    Raises:
        OptionError: there is none, or all are protected.
    """
    found: dict[str, PrunableLayer] = {}
    for step, constants in _steps(module.program):
        node = step.node
        if node.op not in _KERNELS and node.op not in _MATRICES:
            continue
        for at in (1,) if node.op in _KERNELS else (0, 1):
            key = constants.get(step.inputs[at], "")
            constant = module.constants.get(key)
            if constant is None or constant.role is not Role.WEIGHT or len(constant.shape) < 2 or key in found:
                continue
            turned = bool(node.attr("transB" if at else "transA", 0))
            found[key] = PrunableLayer(key, node.op, int(node.attr("group", 1)), turned if at else not turned)
    kept = {name: layer for name, layer in found.items() if not any(fnmatchcase(name, glob) for glob in protect)}
    if not kept:
        why = f"all {len(found)} layers are protected" if found else "there is no convolution or matrix product with a weight"
        raise OptionError(f"{module.title}: nothing can be sparse: {why}")
    return kept


@torch.no_grad()
def reinitialize(module: GraphModule, seed: int) -> None:
    """Draw new weights: in layers from the normal distribution with variance 2 / fan-in (He et al. 2015), in tables and other
    matrices with the deviation that they have; biases are zero, and scales of normalisations one. Anything else stays.
    """
    known = prunable_layers(module)
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor, deviation: float) -> Tensor:
        return (torch.randn(like.shape, generator=generator) * deviation).to(like)

    fresh: dict[str, Tensor] = {}
    for step, constants in _steps(module.program):
        for at, value in enumerate(step.inputs):
            constant = module.constants.get(constants.get(value, ""))
            if constant is None or constant.role is Role.CONSTANT or constant.key in fresh:
                continue
            old = parameter_of(module, constant.key)
            op = step.node.op
            if constant.key in known:
                fresh[constant.key] = normal(old, math.sqrt(2 / known[constant.key].fan_in(old)))
            elif "Normalization" in op and at in {1, 4}:
                fresh[constant.key] = torch.ones_like(old)
            elif "Normalization" in op or op in {*_KERNELS, *_MATRICES, "Add", "Sub", "BiasGelu", "FastGelu"}:
                fresh[constant.key] = torch.zeros_like(old)
            elif old.dim() > 1:
                fresh[constant.key] = normal(old, float(old.std()))
    for name, tensor in fresh.items():
        parameter_of(module, name).copy_(tensor)
