from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.calibrate import fit, load
from onnxprune.errors import OptionError
from test_coupling import parse

INPUTS = parse("(float[N, 3] x, int64[N] t) => (float[N, 3] y) { y = Relu(x) }").graph.input


def test_arrays_become_what_the_inputs_take(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", x=np.ones((5, 3)), t=np.zeros(5, np.int32), label=np.zeros(5))
    fitted = fit(load(tmp_path / "samples.npz"), INPUTS)
    assert {name: (array.dtype, array.shape) for name, array in fitted.items()} == {
        "x": (np.dtype(np.float32), (5, 3)),
        "t": (np.dtype(np.int64), (5,)),
    }


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ones((5, 4)), r"shape \[5, 4\], the input takes \[samples, 3\]"),
        (np.ones((0, 3)), "0 samples"),
        (np.ones((5, 3), complex), "of type complex128, the input takes float32"),
    ],
)
def test_what_does_not_fit_is_refused(x: np.ndarray[tuple[int, ...], np.dtype[np.generic]], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        fit({"x": x, "t": np.zeros(5, np.int64)}, INPUTS)


def test_an_input_without_an_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", x=np.ones((5, 3)))
    with pytest.raises(OptionError, match=r"--calib .*samples\.npz: has no array for input 't'; it has x"):
        fit(load(tmp_path / "samples.npz"), INPUTS)


def test_a_file_that_holds_no_arrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such file"):
        load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(OptionError, match=r"not an \.npz"):
        load(tmp_path / "text.npz")
