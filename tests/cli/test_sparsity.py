"""`sparsify` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from command import DIGITS, Cli, complaints, net, refused, shell
from kernel_nets import NET, sparse
from onnxprune.kernels import build
from onnxprune.latency.interleave import Quartiles


def test_sparsify_writes_zeros_and_says_where(call: Cli, tmp_path: Path) -> None:
    out = tmp_path / "sparse.onnx"
    done = call("sparsify", DIGITS, "-o", out, "--sparsity", "0.8", "--json")
    report = done.json()
    assert report["output"] == str(out)
    assert report["sparsity"] == pytest.approx(0.8, abs=1e-3)
    zeros = sum(int((numpy_helper.to_array(t) == 0).sum()) for t in onnx.load(out).graph.initializer if len(t.dims) > 1)
    assert zeros == report["zeros"]


def test_sparsify_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = shell("sparsify", DIGITS, "-o", tmp_path / "m24.onnx", "--pattern", "2:4")
    assert done.status == 0, done.err
    assert "2:4, by magnitude" in done.out
    assert "--ends includes them" in done.out
    assert "after gzip" in done.out


def test_sparsify_with_samples(call: Cli, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32))
    done = call("sparsify", model, "-o", tmp_path / "s.onnx", "--ends", "--sparsity", "0.6", "--calib", tmp_path / "x.npz")
    assert done.status == 0, done.err
    assert "unstructured, by admm, shared out by sensitivity" in done.out
    assert "refit 2 layers" in done.out


@pytest.mark.skipif(not build.compiler(), reason="no C compiler")
def test_zeros_for_a_latency(call: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen says what was obtained; what cannot be is one line, and nothing is written."""
    least = [0.3]

    def spreads(*_: object, **__: object) -> list[Quartiles]:
        return [Quartiles(least[0], 0.28, 0.33)]

    monkeypatch.setattr("onnxprune.driver.sparse_latency.measure_spreads", spreads)
    monkeypatch.setattr("onnxprune.driver.sparsifier.OrtTimer", lambda: lambda _: [4.0, 1.0])
    onnx.save(sparse(NET, density=1.0), tmp_path / "net.onnx")
    asked = ("sparsify", tmp_path / "net.onnx", "-o", tmp_path / "fast.onnx", "--kernels", "--pattern", "4x1", "--ends")
    done = call(*asked, "--target", "latency=0.31")
    assert done.status == 0, done.err
    assert "obtained latency=0.300, half of the rounds from 0.280 to 0.330, measured on one thread" in done.out
    assert "requested latency=0.31, obtained a sparsity of" in done.out
    (tmp_path / "fast.onnx").unlink()
    least[0] = 0.4
    done = call(*asked, "--target", "latency=0.31")
    refused(done, 1, "target latency=0.31 cannot be reached: the fastest of 6 models has latency=0.400, measured")
    assert not (tmp_path / "fast.onnx").exists()


def test_values_whose_squares_overflow_are_no_fault_and_no_warning(tmp_path: Path) -> None:
    """In a process of its own: there, no test turns warnings into errors."""
    onnx.save(net(np.full((32, 3, 3, 3), 1e25, np.float32)), tmp_path / "m.onnx")
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((8, 3, 8, 8), np.float32))
    done = shell("sparsify", "m.onnx", "-o", "o.onnx", "--sparsity", "0.5", "--calib", "s.npz", "--ends", cwd=tmp_path)
    assert (done.status, complaints(done)) == (0, "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity", "1.5"], ["target 'sparsity=1.5'", "below 1"]),
        (["--sparsity", "0.5", "--target", "gzip=0.5"], ["give one of them"]),
        (["--pattern", "4:2"], ["pattern '4:2'", "2:4"]),
        (["--method", "obs"], ["method 'obs' needs samples", "--calib"]),
        (["--sparsity", "0.5"], ["--ends"]),
    ],
)
def test_sparsify_refuses(call: Cli, model: Path, tmp_path: Path, options: list[str], words: list[str]) -> None:
    out = tmp_path / "out.onnx"
    refused(call("sparsify", model, "-o", out, *options), 2, *words)
    assert not out.exists()
