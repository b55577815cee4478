"""The architectures of the models, in plain torch: a small network that is trained, and well-known networks for their shapes.

The shape-only networks follow torchvision's layout, widths and parameter names (torchvision itself is not needed),
so their graphs are the ones that people export. Their weights are random but seeded, and their BatchNorm statistics
are non-trivial, so that a mistake in folding or slicing them shows in the outputs. All of them take one image batch
[n, channels, height, width] and are returned in evaluation mode.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

_SEED = 0

Shape = tuple[int, int, int]
"""Channels, height, width of one image."""


def _conv_bn(
    cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, and an activation unless `act` is None; "same" padding."""
    layers = [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([] if act is None else [act()]))


# --- The small network that is trained -------------------------------------------------------------------------------


class _Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is the identity unless given (He et al., 2015, arXiv:1512.03385)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class _SqueezeExcite(nn.Module):
    """Gate every channel by a function of all channels' means (Hu et al., 2017, arXiv:1709.01507)."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(pooled))))


class _InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, gate, project, add (MobileNetV3: Howard et al., 2019, arXiv:1905.02244)."""

    def __init__(self, width: int, expanded: int, squeezed: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv_bn(width, expanded, act=nn.Hardswish),
            _conv_bn(expanded, expanded, 3, groups=expanded, act=nn.Hardswish),
            _SqueezeExcite(expanded, squeezed),
            _conv_bn(expanded, width, act=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _CrossedSplit(nn.Module):
    """Two branches that are concatenated, split at another place than they were joined, and joined again.

    The branches give 48 and 32 channels and the split takes 32 and 48, so that its second part mixes channels of
    both branches: a tool that slices channels must follow them through Concat and Split one by one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.point = _conv_bn(width, 48)
        self.wide = nn.Sequential(_conv_bn(width, width, 3, groups=width), _conv_bn(width, 32))
        self.first = _conv_bn(32, 16, 3)
        self.second = _conv_bn(48, 32)

    def forward(self, x: Tensor) -> Tensor:
        """[n, width, h, w] to [n, 48, h, w]."""
        joined = torch.cat([self.point(x), self.wide(x)], dim=1)
        first, second = torch.split(joined, [32, 48], dim=1)
        return torch.cat([self.first(first), self.second(second)], dim=1)


class DigitsNet(nn.Module):
    """A classifier of 8x8 digits with every kind of channel coupling once, and wider than the task needs.

    [n, 1, 8, 8] to logits [n, 10]; about 67 thousand parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_bn(1, 32, 3)
        self.identity = _Residual(nn.Sequential(_conv_bn(32, 32, 3), _conv_bn(32, 32, 3, act=None)))
        self.projection = _Residual(
            nn.Sequential(_conv_bn(32, 32), _conv_bn(32, 32, 3, stride=2), _conv_bn(32, 64, act=None)),
            _conv_bn(32, 64, stride=2, act=None),
        )
        self.inverted = _InvertedResidual(64, 96, 16)
        self.crossed = _CrossedSplit(64)
        self.last = _conv_bn(48, 96)
        self.classifier = nn.Linear(96, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.projection(self.identity(self.stem(image)))
        x = self.last(self.crossed(self.inverted(x)))
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


# --- ResNet (He et al., 2015, arXiv:1512.03385) ----------------------------------------------------------------------


class _BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, cin: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    """The "v1.5" bottleneck: the stride is in the 3x3 convolution and not, as in the paper, in the first 1x1."""

    expansion = 4

    def __init__(self, cin: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class _ResNet(nn.Module):
    def __init__(self, block: type[_BasicBlock | _Bottleneck], depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        cin = 64
        for stage, depth in enumerate(depths):
            width, blocks = 64 << stage, []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                cout = width * block.expansion
                needs_projection = stride != 1 or cin != cout
                blocks.append(block(cin, width, stride, _conv_bn(cin, cout, 1, stride, act=None) if needs_projection else None))
                cin = cout
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(cin, 1000)

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        for layer in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(self, layer)(x)
        return self.fc(self.avgpool(x).flatten(1))


# --- MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381) ------------------------------------------------------------


class _LinearBottleneck(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = cin * expand
        layers: list[nn.Module] = [] if expand == 1 else [_conv_bn(cin, hidden, act=nn.ReLU6)]
        layers.append(_conv_bn(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6))
        self.conv = nn.Sequential(*layers, *_conv_bn(hidden, cout, act=None))
        self.use_res_connect = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class _MobileNetV2(nn.Module):
    # Expansion, output width, repeats, stride of the first: table 2 of the paper.
    _STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn(3, 32, 3, 2, act=nn.ReLU6)]
        cin = 32
        for expand, cout, repeats, stride in self._STAGES:
            for index in range(repeats):
                layers.append(_LinearBottleneck(cin, cout, stride if index == 0 else 1, expand))
                cin = cout
        self.features = nn.Sequential(*layers, _conv_bn(cin, 1280, act=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(image), 1).flatten(1))


# --- DenseNet (Huang et al., 2016, arXiv:1608.06993) -----------------------------------------------------------------


class _DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1, BatchNorm, ReLU, 3x3; the output is concatenated to the input."""

    def __init__(self, cin: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(cin)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(cin, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        # Every layer concatenates all earlier outputs anew, as torchvision does: n-ary Concats, not a chain.
        y = self.conv1(self.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu(self.norm2(y)))


class _DenseBlock(nn.ModuleDict):
    def __init__(self, depth: int, cin: int, growth: int) -> None:
        super().__init__({f"denselayer{i + 1}": _DenseLayer(cin + i * growth, growth) for i in range(depth)})

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class _DenseNet(nn.Module):
    def __init__(self, depths: tuple[int, ...], growth: int = 32, stem: int = 64) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, stem, 7, 2, 3, bias=False),
            norm0=nn.BatchNorm2d(stem),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, 2, 1),
        )
        width = stem
        for index, depth in enumerate(depths, start=1):
            layers[f"denseblock{index}"] = _DenseBlock(depth, width, growth)
            width += depth * growth
            if index < len(depths):
                layers[f"transition{index}"] = nn.Sequential(
                    OrderedDict(
                        norm=nn.BatchNorm2d(width),
                        relu=nn.ReLU(),
                        conv=nn.Conv2d(width, width // 2, 1, bias=False),
                        pool=nn.AvgPool2d(2, 2),
                    )
                )
                width //= 2
        layers["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(width, 1000)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.features(image))
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


# --- U-Net (Ronneberger et al., 2015, arXiv:1505.04597) --------------------------------------------------------------


class _UNet(nn.Module):
    """Five levels of two 3x3 convolutions; padded and with BatchNorm, unlike the paper's.

    [n, 3, h, w] to class scores per pixel [n, classes, h, w]; h and w are multiples of 16.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256, 512), classes: int = 2) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        levels = zip(inputs, widths, strict=True)
        self.down = nn.ModuleList(nn.Sequential(_conv_bn(i, w, 3), _conv_bn(w, w, 3)) for i, w in levels)
        self.pool = nn.MaxPool2d(2)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (deeper, shallower), from the bottom up
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, 2) for deep, shallow in pairs)
        self.merge = nn.ModuleList(nn.Sequential(_conv_bn(2 * w, w, 3), _conv_bn(w, w, 3)) for _, w in pairs)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, skips = image, []
        for level in self.down[:-1]:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


# --- Seeded instances ------------------------------------------------------------------------------------------------


def _seeded(construct: Callable[[], nn.Module], input_shape: Shape) -> Callable[[], nn.Module]:
    """A constructor of `construct`'s network with fixed random weights and plausible BatchNorm statistics.

    With random statistics, the activations of deep networks explode, and outputs hardly depend on the input, so that
    a comparison of outputs would prove little. Instead, statistics are measured on random images, as training does,
    and then changed a little, so that no normalization is exact.
    """

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(_SEED)
            net = construct()
            norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
            for module in net.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            for norm in norms:
                nn.init.uniform_(norm.weight, 0.7, 1.3)
                nn.init.normal_(norm.bias, std=0.1)
                norm.momentum = 1.0  # the running statistics become those of the one batch below
            net.train()(random_images(4, input_shape))
            for norm in norms:
                norm.momentum = 0.1
                assert norm.running_mean is not None
                assert norm.running_var is not None
                norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(norm.num_features)
                norm.running_var *= torch.empty(norm.num_features).uniform_(0.5, 1.5)
        return net.eval()

    return build


def random_images(count: int, shape: Shape) -> Tensor:
    """Images [count, *shape] of smooth blobs and some noise, about zero mean and unit variance; from torch's seed.

    White noise alone would nearly vanish in the mean over a channel, and all images would look the same.
    """
    channels, *size = shape
    blobs = nn.functional.interpolate(torch.randn(count, channels, 7, 7), size, mode="bilinear")
    return 1.2 * blobs + 0.5 * torch.randn(count, *shape)


class Architecture(NamedTuple):
    """A shape-only network: its constructor, and the shape of one input image."""

    construct: Callable[[], nn.Module]
    input_shape: Shape


def _architecture(construct: Callable[[], nn.Module], size: int) -> Architecture:
    shape = (3, size, size)
    return Architecture(_seeded(construct, shape), shape)


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": _architecture(lambda: _ResNet(_BasicBlock, (2, 2, 2, 2)), 224),
    "resnet50": _architecture(lambda: _ResNet(_Bottleneck, (3, 4, 6, 3)), 224),
    "mobilenet_v2": _architecture(_MobileNetV2, 224),
    "densenet121": _architecture(lambda: _DenseNet((6, 12, 24, 16)), 224),
    "unet": _architecture(_UNet, 256),
}
