"""Files are known by what is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command import external
from onnxprune.errors import OptionError
from onnxprune.ir import files
from onnxprune.sweep.inputs import Input


def test_a_file_is_its_hash_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, x=np.zeros(3))
    one, other = (Input.of_samples(str(tmp_path / name), "--calib") for name in ("a.npz", "b.npz"))
    assert one.digest == other.digest == files.sha256(tmp_path / "a.npz")
    assert one.files == {"a.npz": one.digest}
    assert one.is_here()
    assert Input(**one.to_dict()) == one
    (tmp_path / "a.npz").write_bytes(b"other")
    assert not one.is_here()
    (tmp_path / "a.npz").unlink()
    assert not one.is_here()


def test_a_folder_is_all_that_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "1.npy").write_bytes(b"1")
    first = Input.of_samples(str(folder), "--calib")
    assert first.files.keys() == {str(Path("images", "cats", "1.npy"))}
    assert first.nbytes == 1
    (folder / "2.npy").write_bytes(b"1")
    second = Input.of_samples(str(folder), "--calib")
    assert second.digest != first.digest
    (folder / "2.npy").rename(folder / "3.npy")
    assert Input.of_samples(str(folder), "--calib").digest not in {first.digest, second.digest}


def test_a_model_is_also_its_data(tmp_path: Path) -> None:
    path = external(tmp_path / "net.onnx")
    first = Input.of_model(path)
    assert set(first.files) == {"net.onnx", "net.bin"}
    data = bytearray((tmp_path / "net.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "net.bin").write_bytes(data)
    assert Input.of_model(path).digest != first.digest


def test_a_function_is_its_source_and_noise_is_noise(here: Path) -> None:
    (here / "my_samples_here.py").write_text("def some(): ...\n")
    first = Input.of_samples("my_samples_here:some", "--eval")
    assert first.is_here()
    (here / "my_samples_here.py").write_text("def some(): return 1\n")
    assert Input.of_samples("my_samples_here:some", "--eval").digest != first.digest
    assert Input.of_samples("noise", "--calib") == Input("noise", {}, "noise")
    with pytest.raises(OptionError, match=r"--eval gone\.npz: there is no such file"):
        Input.of_samples("gone.npz", "--eval")
