"""The law on graphs of real architectures, where the optional local data is there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nets import check_law, some
from onnxprune import Recipe, prune
from onnxprune.driver.prune import analyze

SMALL = [
    "hand_convlstm__ts", "hand_einsum_attn", "hand_glu", "hand_instancenorm", "hand_nonlocal", "hand_packed_qkv",
    "hand_packed_qkv__ts", "hand_prelu", "hand_se_conv", "hand_siamese", "hand_space_to_depth", "hand_unet__bn",
]  # fmt: skip
ZOO = Path(__file__).resolve().parents[2].parent / "shared" / "zoo"
ALL = sorted(path.name.removesuffix(".onnx.gz") for path in ZOO.glob("*.onnx.gz"))

Shared = Callable[[str], Path]


def load(shared: Shared, name: str) -> Any:
    """A graph of the zoo, with seeded weights."""
    shared(f"zoo/{name}.onnx.gz")
    spec = importlib.util.spec_from_file_location("zoo_fill", shared("zoo/fill.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(name)


def check(source: Any) -> None:
    """All groups at once keep an uneven part: verified, and no group had to be frozen."""
    result = prune(source, Recipe(target="channels=0.6", align="1", criterion="random"), agreement=False)
    assert result.report.verification is not None
    assert result.report.verification.ok
    assert not result.report.frozen


@pytest.mark.parametrize("name", SMALL)
def test_small(shared: Shared, name: str) -> None:
    check(load(shared, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_whole_zoo(shared: Shared, name: str) -> None:
    check(load(shared, name))


@pytest.mark.parametrize("name", ["resnet20-cifar10", "resnet20-cifar10-bn"])
def test_resnet20(shared: Shared, name: str) -> None:
    path = shared(f"models/{name}.onnx")
    found = analyze(path)
    check_law(found, {group.id: some(group.size) for group in found.coupling.groups})
    report = prune(path, Recipe(target="macs=0.5", align="4")).report
    assert report.verification is not None
    assert report.verification.ok
    assert 0.45 < report.obtained["macs"] <= 0.5
