"""Run Torch-Pruning on the networks of the accuracy benchmark: as torch modules, with the weights of the ONNX files.

Channels are removed in small steps until the target of multiply-accumulates is reached, as its documentation shows; the last
layer stays. BatchNorm is re-estimated on the calibration images, as the mean over batches of the statistics of the pruned
network. The modules are then exported, so that accuracy, multiply-accumulates and latency are measured on an ONNX file, as for
all others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import onnxprune
from architectures import DigitsNet
from build import export
from onnxprune.ir.model import Model
from onnxprune.pruning.cost import CostModel
from onnxprune.runtime.session import Session
from trials import Network

CRITERIA = ("l2", "bn_scale", "lamp", "fpgm", "taylor")
SCOPES = ("uniform", "global", "isomorphic")
_STEPS, _REMOVED, _MOST = 250, 0.9, 0.95
"""Steps in which that share of the channels goes, and the largest share of one layer."""
_BATCH = 128


class _Block(nn.Module):
    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(cin, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.c2, self.b2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.sc = nn.Sequential()
        if cin != width:
            self.sc = nn.Sequential(nn.Conv2d(cin, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.b1(self.c1(x)))
        return torch.relu(self.b2(self.c2(y)) + self.sc(x))


class ResNet20(nn.Module):
    """He et al., 2015, arXiv:1512.03385, section 4.2, with projections where widths change."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.b = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        pairs = pairwise(widths)
        self.L = nn.Sequential(*(_Block(cin, width, 1 if cin == width else 2) for cin, width in pairs))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.L(torch.relu(self.b(self.c(x))))
        return self.fc(x.mean((2, 3)))


_MODULES: dict[str, Callable[[], nn.Module]] = {"resnet20": ResNet20, "digits": DigitsNet}


def module(network: Network) -> nn.Module:
    """The network in torch; computes what its ONNX file does."""
    net = _MODULES[network.name]().eval()
    graph = onnx.load(network.kept).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    held |= {node.output[0]: held[node.input[0]] for node in graph.node if node.op_type == "Identity" and node.input[0] in held}
    nodes = [node for node in graph.node if node.op_type in {"Conv", "BatchNormalization", "Gemm"}]
    for layer, node in zip(_layers(net, network), nodes, strict=True):  # names are of no use: exporters merge equal constants
        for tensor, name in zip(layer.state_dict().values(), node.input[1:], strict=False):
            tensor.copy_(torch.from_numpy(np.array(held[name])))
    images = network.x[:64]
    (theirs,) = Session(Model.of(network.path), ["logits"], threads=1).run({graph.input[0].name: images})
    with torch.no_grad():
        ours = net(torch.from_numpy(images)).numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max(), f"{network.name}: torch and ONNX Runtime differ"
    return net


def _layers(net: nn.Module, network: Network) -> list[nn.Module]:
    """The layers with weights in the order in which they run."""
    found: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda layer, *_: found.append(layer))
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
    ]
    with torch.no_grad():
        net(torch.from_numpy(network.x[:1]))
    for hook in hooks:
        hook.remove()
    return found


def prune(
    network: Network, net: nn.Module, criterion: str, scope: str, targets: Sequence[float], round_to: int = 1
) -> Iterator[tuple[float, nn.Module]]:
    """The network with those shares of its multiply-accumulates, largest first."""
    import torch_pruning as tp

    net = copy.deepcopy(net)
    images = torch.from_numpy(network.calibration)
    importance = _importance(tp, criterion)
    # The last layer, and layers whose outputs the code of a module splits at fixed places: pruned, the module would not run.
    ignored: list[nn.Module] = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    ignored += [layer for name, layer in net.named_modules() if name.startswith("crossed.") and isinstance(layer, nn.Conv2d)]
    pruner = tp.pruner.MetaPruner(
        net,
        images[:1],
        importance=importance,
        global_pruning=scope != "uniform",
        isomorphic=scope == "isomorphic",
        iterative_steps=_STEPS,
        pruning_ratio=_REMOVED,
        max_pruning_ratio=_MOST,
        ignored_layers=ignored,
        round_to=round_to if round_to > 1 else None,
    )
    whole, _ = tp.utils.count_ops_and_params(net, images[:1])
    remaining = sorted(targets, reverse=True)
    if criterion == "taylor":
        _gradients(net, images)
    for _ in range(_STEPS):
        pruner.step()
        macs, _ = tp.utils.count_ops_and_params(net, images[:1])
        while remaining and macs <= remaining[0] * whole:
            yield remaining.pop(0), copy.deepcopy(net)
        if not remaining:
            return


def _importance(tp: Any, criterion: str) -> Any:
    kinds = {
        "l2": tp.importance.GroupMagnitudeImportance,
        "bn_scale": tp.importance.BNScaleImportance,
        "lamp": tp.importance.LAMPImportance,
        "fpgm": tp.importance.FPGMImportance,
        "taylor": tp.importance.GroupTaylorImportance,
    }
    return kinds[criterion]()


def _gradients(net: nn.Module, images: Tensor) -> None:
    """Gradients of the loss against the network's own predictions: there are no labels. They are cut with the weights."""
    net.zero_grad()
    for batch in images.split(_BATCH):
        scores = net(batch)
        nn.functional.cross_entropy(scores, scores.detach().argmax(1)).backward()


def reestimated(network: Network, net: nn.Module) -> nn.Module:
    """A copy whose BatchNorm statistics are those of the calibration images."""
    net = copy.deepcopy(net)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    net.train()
    with torch.no_grad():
        for batch in torch.from_numpy(network.calibration).split(_BATCH):
            net(batch)
    return net.eval()


def exported(network: Network, net: nn.Module) -> bytes:
    """As an ONNX file, BatchNorm folded."""
    _, channels, height, width = network.x.shape
    data: bytes = export(net, (channels, height, width), "torchscript", keep_bn=False).SerializeToString()
    return data


def macs_of(model: bytes) -> int:
    """Multiply-accumulates of one sample."""
    found = onnxprune.analyze(model)
    return CostModel(found.model, found.coupling, found.shapes.batch).cost({}).macs
