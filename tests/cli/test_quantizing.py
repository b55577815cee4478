"""The last screen of `quantize` where int8 destroys a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from command import within
from int8_nets import net, samples


@pytest.fixture
def destroyed(tmp_path: Path) -> Path:
    """A folder with a network, and with samples of which one is so large that all others become 0 in int8."""
    onnx.save(net(), tmp_path / "net.onnx")
    given = samples(40)["x"]
    given[0] = 1e6
    np.savez(tmp_path / "calib.npz", x=given)
    np.savez(tmp_path / "eval.npz", x=samples(40, 2)["x"])
    return tmp_path


def test_a_model_that_is_destroyed_is_told_with_the_ways_out(destroyed: Path) -> None:
    words = ("quantize", "net.onnx", "-o", "q.onnx", "--calib", "calib.npz", "--eval", "eval.npz", "--compare")
    done = within(*words, cwd=destroyed)
    assert done.status == 0
    told = " ".join(done.out.split())
    assert "accuracy collapsed: " in told
    ways = "--exclude GLOB, try --method percentile or --rounding nearest, or give more samples (--calib)"
    assert f"Leave what loses most in floating point with {ways}" in told


def test_ways_that_were_gone_already_are_not_named(destroyed: Path) -> None:
    given = (
        "--calib",
        "calib.npz",
        "--eval",
        "eval.npz",
        "--method",
        "percentile",
        "--percentile",
        "100",
        "--rounding",
        "nearest",
    )
    done = within("quantize", "net.onnx", "-o", "q.onnx", *given, cwd=destroyed)
    assert "with --exclude GLOB, try --rounding refit, or give more samples" in " ".join(done.out.split())
