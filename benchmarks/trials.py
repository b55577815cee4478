"""The networks of the accuracy benchmark with their images, and the results that it keeps.

Each result is one entry of a JSON file, under a key that says what was measured, so that an interrupted run continues where it
stopped. Entries hold for the code that wrote them: remove the folder to measure everything again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models"))  # the scripts there are used from here

import digits  # noqa: E402 - found only now

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
CALIBRATION = 1024
"""Training images of CIFAR-10 that are given without labels."""
HELD = 512
"""Other images, with labels, that choose among the criteria of another tool."""


@dataclass(frozen=True, slots=True)
class Network:
    """A trained classifier.

    Attributes:
        name: of the file, without suffix.
        path: the exported model, BatchNorm folded.
        kept: the same with BatchNorm nodes, whose names are those of the torch module.
        calibration: images without labels.
        held: other images of the training set with their classes; Torch-Pruning's criteria are chosen by them.
        x: images that accuracy is taken on; nothing else sees them.
        y: their classes.
    """

    name: str
    path: Path
    kept: Path
    calibration: Images
    held: tuple[Images, Labels]
    x: Images
    y: Labels

    def accuracy(self, model: Path | bytes) -> float:
        """Top-1, in percent."""
        return 100 * digits.accuracy(model, self.x, self.y, batch=100)

    def held_accuracy(self, model: bytes) -> float:
        """Top-1 on the held images, in percent."""
        return 100 * digits.accuracy(model, *self.held, batch=100)


def cifar10(data: Path) -> ModuleType | None:
    """The module that loads the CIFAR-10 images of the optional local data; ``None`` where they are absent."""
    script = data / "data" / "cifar10.py"
    if not script.exists():
        return None
    spec = importlib.util.spec_from_file_location("cifar10", script)
    assert spec is not None
    assert spec.loader is not None
    images = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(images)
    return images


def resnet20(data: Path) -> Network | None:
    """The ResNet-20 and the CIFAR-10 images of the optional local data; ``None`` where they are absent."""
    path, images = data / "models" / "resnet20-cifar10.onnx", cifar10(data)
    if images is None or not path.exists():
        return None
    calibration, _ = images.load("train-20k", n=CALIBRATION)
    held = images.load("train-20k", n=HELD, start=CALIBRATION)
    return Network("resnet20", path, path.with_stem(f"{path.stem}-bn"), calibration, held, *images.load("val-5k"))


def handwritten(export: str = "digits") -> Network:
    """One of the three exports of the small classifier of handwritten digits."""
    data, folder = digits.load(), ROOT / "models"
    kept, held = folder / "digits__bn.onnx", (data.train_x, data.train_y)
    return Network(export, folder / f"{export}.onnx", kept, data.calib_x, held, data.test_x, data.test_y)


class OutOfTimeError(Exception):
    """The time is up, and not everything has been measured."""


class Store:
    """Results by key, in a folder, and the models that they are about."""

    def __init__(self, folder: Path, seconds: float = float("inf")) -> None:
        """Open it; nothing new is started after this many ``seconds`` of processor time."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._file, self._end = folder, folder / "results.json", time.process_time() + seconds
        self._entries = self._read()

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file.read_text("utf-8")) if self._file.exists() else {}
        return found

    def get(self, key: str) -> Any:
        """A result, or ``None`` where there is none."""
        return self._entries.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a result. The file is whole at any time, and other processes may write to it."""
        self._entries = self._read() | {key: value}
        draft = self._file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(self._entries, indent=1), "utf-8")
        draft.replace(self._file)
        print(f"{key}: {json.dumps(value)[:160]}", file=sys.stderr, flush=True)

    def once(self, key: str, measure: Callable[[], Any]) -> Any:
        """A result; it is measured now if it is not there.

        Raises:
            OutOfTimeError: it was not, and time is up.
        """
        if key not in self._entries:
            if time.process_time() > self._end:
                raise OutOfTimeError(key)
            start = time.process_time()
            value = measure()
            if isinstance(value, dict):
                value = {**value, "seconds": round(time.process_time() - start, 1)}
            self.put(key, value)
        return self._entries[key]

    def under(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """Every result whose key begins with the prefix, with the rest of the key."""
        yield from ((key.removeprefix(prefix), value) for key, value in self._entries.items() if key.startswith(prefix))

    def model(self, key: str) -> Path:
        """The path of the model of a key."""
        return self.folder / f"{key.replace('/', '_')}.onnx"


def name_of(target: float) -> str:
    """A share of the multiply-accumulates as it is written in tables: ``1/1.35``."""
    return f"1/{1 / target:.3g}"


def default_data() -> Path:
    """The folder of optional local data."""
    return Path(os.environ.get("ONNXPRUNE_DATA") or ROOT.parent / "shared")


def best(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, accuracy) that are more accurate than every cheaper point, by cost."""
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front
