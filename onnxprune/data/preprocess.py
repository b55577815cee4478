"""Turns an image file into an array as the model saw it in training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import OptionError
from onnxprune.ir.weights import Array

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PRESETS", "Preprocess"]

PILLOW_MODES = {"rgb": "RGB", "bgr": "RGB", "l": "L"}
"""Our names of modes, and the mode that Pillow decodes to."""
LAYOUTS = ("nchw", "nhwc")
RESAMPLINGS = ("nearest", "bilinear", "bicubic", "lanczos")

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "none": {"scale": 1.0},
    "unit": {"scale": 255.0},
    "imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 255.0},
    "cifar10": {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616), "scale": 255.0},
}
"""``none``: bytes, 0 to 255; ``unit``: 0 to 1; the others: 0 to 1, then less the mean and over the deviation of that data."""

_MARGIN = 0.875
"""Of the side that is resized to, what is cropped for ImageNet: 224 of 256."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Decode, resize, crop, then ``(pixel / scale - mean) / std``, as torchvision does it.

    Attributes:
        resize: the shorter side in pixels, the other one in proportion; or height and width; empty: as it is.
        crop: height and width cut from the centre; empty: nothing is cut.
        mean: one number, or one per channel.
        std: the same.
        scale: what pixels, 0 to 255, are divided by.
        mode: ``rgb``, ``bgr``, or ``l`` for one channel of grey.
        layout: ``nchw`` or ``nhwc``.
        resample: how pixels are interpolated: ``nearest``, ``bilinear``, ``bicubic``, ``lanczos``.
    """

    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0
    mode: str = "rgb"
    layout: str = "nchw"
    resample: str = "bilinear"

    @classmethod
    def parse(cls, text: str | None, sizes: Sequence[int | None] | None = None, *, integers: bool = False) -> Preprocess:
        """Read ``imagenet``, ``resize=256,crop=224,mean=0.485/0.456/0.406``, ``cifar10,mode=bgr``.

        What the text leaves open follows from the input of the model.

        Args:
            text: names of `PRESETS` and fields, the last one counts; empty for ``unit``, or ``none`` where the input takes
                integers.
            sizes: of the input's four axes, ``None`` where open; ``None`` if nothing is known of it.
            integers: whether the input takes integers.

        Raises:
            OptionError: there is no such preset or field, or its value makes no sense.
        """
        words = [word.strip() for word in (text or ("none" if integers else "unit")).split(",")]
        option = f"--preprocess {text}"
        values = _shape(option, sizes)
        for word in words:
            name, equals, value = (part.strip() for part in word.partition("="))
            if not equals and name in PRESETS:
                values |= PRESETS[name]
                if name == "imagenet":
                    values |= _margin(values)
            elif equals and name in _FIELDS:
                values[name] = _value(option, name, value)
            else:
                fields = ", ".join(f"{field}=" for field in _FIELDS)
                raise OptionError(f"{option}: there is no {word!r}; there are {', '.join(PRESETS)}, and {fields}")
        channels = 1 if values.get("mode") == "l" else 3
        for name in ("mean", "std"):
            if len(values.get(name, (0,))) not in {1, channels}:
                raise OptionError(f"{option}: {name} has {len(values[name])} numbers, an image has {channels} channels")
        return cls(**values)

    def __str__(self) -> str:
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        told = {name: value for name, (value, default) in values.items() if value != default or name == "scale"}
        return ",".join(f"{name}={_show(name, value)}" for name, value in told.items())

    def __call__(self, path: str | Path) -> Array:
        """The array of an image file, without an axis of samples: bytes where nothing is computed with them, else floats.

        Raises:
            OSError, ValueError: Pillow does not read it, or it is smaller than the crop.
        """
        from PIL import Image

        with Image.open(path) as file:
            image = self._cut(self._resized(file.convert(PILLOW_MODES[self.mode])))
        pixels: Array = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        pixels = pixels[..., ::-1] if self.mode == "bgr" else pixels
        if (self.scale, set(self.mean), set(self.std)) != (1.0, {0.0}, {1.0}):
            mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
            pixels = (pixels.astype(np.float32) / np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if self.layout == "nchw" else pixels)

    def _resized(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        if not self.resize:
            return image
        width, height = image.size
        if len(self.resize) == 2:
            size = (self.resize[1], self.resize[0])
        else:
            short, side = min(width, height), self.resize[0]
            size = (side * width // short, side * height // short)
        return image if size == image.size else image.resize(size, Image.Resampling[self.resample.upper()])

    def _cut(self, image: Image.Image) -> Image.Image:
        if not self.crop:
            return image
        (width, height), (rows, columns) = image.size, self.crop
        if rows > height or columns > width:
            raise ValueError(f"{height}x{width} pixels are less than crop={rows}x{columns}: add resize=")
        top, left = round((height - rows) / 2), round((width - columns) / 2)
        return image.crop((left, top, left + columns, top + rows))


def _shape(option: str, sizes: Sequence[int | None] | None) -> dict[str, Any]:
    """The options that follow from the sizes of an input: layout, mode, resize and crop."""
    if sizes is None:
        return {}
    if len(sizes) != 4:
        raise OptionError(f"{option}: images have four axes, the input of the model {len(sizes)}: use an .npz of arrays")
    layout = "nhwc" if sizes[3] in {1, 3} else "nchw"
    channels, *area = (sizes[3], *sizes[1:3]) if layout == "nhwc" else sizes[1:]
    values: dict[str, Any] = {"layout": layout, "mode": "l" if channels == 1 else "rgb"}
    known = tuple(size for size in area if size)
    if len(known) == 2:
        values["resize"] = known[:1] if known[0] == known[1] else known
        values["crop"] = known
    return values


def _margin(values: Mapping[str, Any]) -> dict[str, Any]:
    crop = values.get("crop") or (224, 224)
    resize = tuple(round(side / _MARGIN) for side in crop)
    return {"crop": crop, "resize": resize[:1] if crop[0] == crop[1] else resize}


def _value(option: str, name: str, text: str) -> Any:
    read, wanted = _FIELDS[name]
    try:
        return read(text)
    except ValueError as error:
        raise OptionError(f"{option}: {name}={text}: write {wanted}") from error


def _side(text: str) -> tuple[int, ...]:
    sides = () if text == "none" else tuple(int(side) for side in text.split("x"))
    if len(sides) > 2 or min(sides, default=1) < 1:
        raise ValueError(text)
    return sides


def _area(text: str) -> tuple[int, ...]:
    sides = _side(text)
    return sides * 2 if len(sides) == 1 else sides


def _number(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def _positive(text: str) -> float:
    if _number(text) <= 0:
        raise ValueError(text)
    return float(text)


def _each(read: Callable[[str], float]) -> Callable[[str], tuple[float, ...]]:
    return lambda text: tuple(read(part) for part in text.split("/"))


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    return lambda text: names[list(names).index(text.lower())]


def _show(name: str, value: Any) -> str:
    if not isinstance(value, tuple):
        return value if isinstance(value, str) else repr(value).removesuffix(".0")
    if name in {"resize", "crop"}:
        shown = value[:1] if name == "crop" and len(set(value)) == 1 else value
        return "x".join(map(str, shown)) or "none"
    return "/".join(repr(number).removesuffix(".0") for number in value)


_FIELDS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "resize": (_side, "the shorter side as 256, or height and width as 256x320, or none"),
    "crop": (_area, "the side as 224, or height and width as 224x288, or none"),
    "mean": (_each(_number), "a number, or one per channel as 0.485/0.456/0.406"),
    "std": (_each(_positive), "a number above 0, or one per channel as 0.229/0.224/0.225"),
    "scale": (_positive, "what pixels are divided by: 255, or 1"),
    "mode": (_one_of(tuple(PILLOW_MODES)), "rgb, bgr or l"),
    "layout": (_one_of(LAYOUTS), "nchw or nhwc"),
    "resample": (_one_of(RESAMPLINGS), ", ".join(RESAMPLINGS)),
}
