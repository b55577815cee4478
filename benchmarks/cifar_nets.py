"""Train the CIFAR-10 networks of the benchmarks on the optional local data, and write them as ONNX.

    python benchmarks/cifar_nets.py [--network resnet8x4|mobilenet_v2] [--epochs 14] [-o build/resnet8x4.onnx]

The first is the ResNet-8 with four times the channels that studies of distillation use as a student (widths 32, 64, 128 and 256),
here for ten classes; the second a MobileNetV2 for images of 32 pixels. BatchNorm is folded, and kept in a second file. The 20,000
training images are moved and mirrored; those that judge are not looked at before the end. It takes half an hour or more on two
cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models"))

import build  # noqa: E402 - found only now
from architectures import ARCHITECTURES  # noqa: E402 - the same
from trials import cifar10, default_data  # noqa: E402 - the same

_WIDTHS = (64, 128, 256)
_BATCH, _RATE, _DECAY, _SMOOTHING = 128, 0.2, 5e-4, 0.1
_MARGIN = 4
"""Pixels that an image is moved by, at most."""


def _conv_bn(cin: int, cout: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout))


class _Block(nn.Module):
    """The basic block (He et al., 2015, arXiv:1512.03385), with a projection where sizes change."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv_bn(cin, cout, 3, stride), nn.ReLU(), _conv_bn(cout, cout, 3))
        self.shortcut = _conv_bn(cin, cout, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _resnet8x4() -> nn.Module:
    """[n, 3, 32, 32] to logits [n, 10]; 1.2 million parameters, 179 million multiply-accumulates."""
    widths = (32, *_WIDTHS)
    blocks = [_Block(cin, cout, 1 if at == 0 else 2) for at, (cin, cout) in enumerate(zip(widths, _WIDTHS, strict=False))]
    return nn.Sequential(
        _conv_bn(3, widths[0], 3), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)
    )


def _mobilenet_v2() -> nn.Module:
    """[n, 3, 32, 32] to logits [n, 10]; as in the paper (arXiv:1801.04381), but the first convolution keeps all pixels."""
    model = ARCHITECTURES["mobilenet_v2"].construct()
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.stride = (1, 1)
    model.register_module("classifier", nn.Linear(1280, 10))
    return model


NETWORKS = {"resnet8x4": _resnet8x4, "mobilenet_v2": _mobilenet_v2}


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """The network in evaluation mode, trained with one cycle of rates (Smith, 2017, arXiv:1708.07120)."""
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the annotation omits it
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": _DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=_RATE, momentum=0.9, nesterov=True)
    steps = len(images) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, epochs=epochs, steps_per_epoch=steps, pct_start=0.25)
    loss = nn.CrossEntropyLoss(label_smoothing=_SMOOTHING)
    for epoch in range(epochs):
        start, total = time.monotonic(), 0.0
        for rows in torch.randperm(len(images))[: steps * _BATCH].split(_BATCH):
            batch = _moved(images[rows]).contiguous(memory_format=torch.channels_last)
            value = loss(model(batch), labels[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.item()
        print(f"epoch {epoch + 1} of {epochs}: loss {total / steps:.3f}, {time.monotonic() - start:.0f} s", file=sys.stderr)
    return model.eval()


def _moved(images: Tensor) -> Tensor:
    """Images [n, 3, h, w], each moved by up to `_MARGIN` pixels along both axes and mirrored or not."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (_MARGIN,) * 4)
    rows = torch.randint(0, 2 * _MARGIN + 1, (count, 1)) + torch.arange(height)
    columns = torch.randint(0, 2 * _MARGIN + 1, (count, 1)) + torch.arange(width)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    moved = padded.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1, in percent."""
    batches = zip(images.split(500), labels.split(500), strict=True)
    return 100 * sum(int((model(x).argmax(1) == y).sum()) for x, y in batches) / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="resnet8x4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("-o", "--output", type=Path, help="build/, and the name of the network, unless it is given")
    args = parser.parse_args()
    output = args.output or ROOT / "build" / f"{args.network}.onnx"
    data = cifar10(default_data())
    if data is None:
        raise SystemExit("the optional local data with CIFAR-10 images are not here")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    x, y = (torch.from_numpy(part) for part in data.load("train-20k"))
    model = train(NETWORKS[args.network](), x, y, args.epochs)
    print(f"{accuracy(model, *(torch.from_numpy(part) for part in data.load('val-5k'))):.2f} % of images that were not seen")
    output.parent.mkdir(parents=True, exist_ok=True)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # the annotation omits it
    for kept, path in ((False, output), (True, output.with_stem(f"{output.stem}-bn"))):
        build.save(build.export(model, (3, 32, 32), "dynamo", kept), path)


if __name__ == "__main__":
    main()
