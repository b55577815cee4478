"""Pictures of samples, as a browser reads them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nets import parse
from onnxprune.pages.thumbnails import thumbnails

Image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.onnx"


def opened(url: str) -> Any:
    kind, _, content = url.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def options(folder: Path, images: Any, **other: Any) -> dict[str, Any]:
    np.savez(folder / "calib.npz", image=images)
    return {"model": str(DIGITS), "calib": str(folder / "calib.npz"), "preprocess": "", **other}


def test_pictures_are_the_samples_from_black_to_white(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32)
    found = thumbnails(options(tmp_path, images), [3, 17, 39])
    assert list(found) == [3, 17, 39]
    pixels = np.asarray(opened(found[17])).astype(float)
    expected = images[17, 0]
    expected = 255 * (expected - expected.min()) / (expected.max() - expected.min())
    assert np.abs(pixels - expected).max() <= 0.5 + 1e-3


def test_what_cannot_be_shown_is_left_out(tmp_path: Path) -> None:
    given = options(tmp_path, np.zeros((40, 1, 8, 8), np.float32))
    assert list(thumbnails(given, [1])) == [1]
    assert thumbnails(given, [40]) == {}
    assert thumbnails(given, []) == {}
    assert thumbnails({**given, "calib": "", "eval": None}, [1]) == {}
    assert thumbnails({**given, "calib": str(tmp_path / "absent.npz")}, [1]) == {}
    assert thumbnails({"recipe": "r.toml", "calib": given["calib"]}, [1]) == {}


def test_samples_that_are_no_images_have_none(tmp_path: Path) -> None:
    net = parse("(float[N,5,7] x) => (float[N,5,7] y) { y = Relu(x) }")
    (tmp_path / "m.onnx").write_bytes(net.SerializeToString())
    np.savez(tmp_path / "calib.npz", x=np.ones((4, 5, 7), np.float32))
    assert thumbnails({"model": str(tmp_path / "m.onnx"), "calib": str(tmp_path / "calib.npz")}, [1]) == {}


def test_images_of_a_folder_are_shown_as_the_model_gets_them(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((300, 200), 40 * number, np.uint8)).save(folder / f"{number}.png")
    found = thumbnails({"model": str(DIGITS), "calib": str(folder), "preprocess": "resize=8,crop=8,mode=l"}, [2])
    assert opened(found[2]).size == (8, 8)
