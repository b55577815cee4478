"""`benchmark` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import Cli, refused


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--batch", "x"), ("--batch 'x'", "1,8")),
        (("--batch", "0"), ("--batch '0'",)),
        (("--providers", "foo"), ("'foo'", "cpu, cuda")),
    ],
)
def test_a_bad_benchmark_is_refused(call: Cli, model: Path, args: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(call("benchmark", model, *args), 2, *words)


def test_a_provider_that_is_not_here_is_refused(call: Cli, model: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is here")
    refused(call("benchmark", model, "--providers", "cuda"), 2, "'cuda' is not available here", "pip")
