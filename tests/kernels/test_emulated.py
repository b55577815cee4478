"""The law of sparse kernels on a processor that is not here: NEON, under an emulator."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import kernel_cases as cases
from onnxprune.kernels import build

EMULATOR = shutil.which("qemu-aarch64") or ""
DRAWS = 60
SOURCES = ("conv.c", "cpu.c", "matmul.c", "multiply.c", "pack.c")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EMULATOR, reason="qemu-aarch64 is not installed: it is in the Debian package qemu-user"),
    pytest.mark.skipif(not find_spec("ziglang"), reason="zig compiles for other processors: pip install ziglang"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels, and what reads cases, in one file for AArch64."""
    folder = tmp_path_factory.mktemp("emulated")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", *build._FLAGS, f"-I{build.SOURCES}"]
    objects = []
    for name, flags in build._ARM.items():
        objects.append(str(folder / f"{name}.o"))
        subprocess.run([*compiler, f"-DISA={name}", *flags, "-c", build.SOURCES / "micro.c", "-o", objects[-1]], check=True)
    sources = [str(build.SOURCES / name) for name in SOURCES]
    made = folder / "emulated"
    subprocess.run([*compiler, *sources, *objects, str(Path(__file__).with_name("emulated.c")), "-o", str(made)], check=True)
    return made


def message(case: cases.Case) -> bytes:
    """A case as the program reads it."""
    x, w = case.feeds["x"], case.weights["w"]
    if case.standard == "Conv":
        axes = w.ndim - 2

        def both(name: str, count: int = 1) -> list[int]:
            given = list(case.attributes[name])
            rest = [0] if count == 2 else [1]
            return given if axes == 2 else [n for at in range(count) for n in (*rest, given[at])]

        sizes = [1] * (2 - axes) + list(x.shape[2:])
        kernel = [1] * (2 - axes) + list(w.shape[2:])
        groups = case.attributes["group"]
        numbers = [1, x.shape[0], x.shape[1], *sizes, w.shape[0], groups, *kernel, *both("strides"), *both("dilations")]
        numbers += both("pads", 2)
    else:
        w = w if case.attributes.get("transB") else w.T
        numbers = [0, x.size // x.shape[-1], x.shape[-1], 1, 1, w.shape[0], 1, *[1] * 6, *[0] * 4]
    bounds = [case.weights.get("low", 0 if case.operator.endswith("Relu") else -np.inf), case.weights.get("high", np.inf)]
    tensors = [
        np.array(bounds),
        x,
        w,
        *([case.weights["b"]] if "b" in case.order else []),
        *case.feeds.get("z", np.zeros((0, 1))),
    ]
    return np.array([*numbers, "b" in case.order, "z" in case.feeds], np.int64).tobytes() + b"".join(
        np.ascontiguousarray(tensor, np.float32).tobytes() for tensor in tensors
    )


def run(program: Path, instructions: str, drawn: list[cases.Case]) -> bytes:
    command = [EMULATOR, "-E", f"ONNXPRUNE_KERNELS_ISA={instructions}", str(program)]
    done = subprocess.run(command, input=b"".join(map(message, drawn)), capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode().strip()) == (0, instructions)
    return done.stdout


@pytest.mark.parametrize("instructions", ["neon", "portable"])
def test_kernels_compute_what_dense_ones_do(program: Path, instructions: str) -> None:
    drawn = [draw(np.random.default_rng(seed)) for draw in (cases.convolution, cases.product) for seed in range(DRAWS)]
    found, at = np.frombuffer(run(program, instructions, drawn), np.float32), 0
    for case in drawn:
        expected = case.expected()
        part = found[at : at + expected.size].reshape(expected.shape)
        at += expected.size
        assert cases.error(part, expected) < cases.TOLERANCE, case
    assert at == found.size


@pytest.mark.parametrize("instructions", ["neon", "portable"])
def test_every_number_of_float16_is_stored_as_it_is(program: Path, instructions: str) -> None:
    drawn = [cases.of_every_half(height, tokens) for height in cases.HEIGHTS for tokens in (1, 70)]
    found = np.frombuffer(run(program, instructions, [case for case, _ in drawn]), np.float32)
    np.testing.assert_array_equal(found, np.concatenate([expected.reshape(-1) for _, expected in drawn]))
