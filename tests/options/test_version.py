"""The version of the package."""

from __future__ import annotations

import importlib.metadata

import pytest

import onnxprune
from onnxprune.options.version import version


def test_the_version_is_that_of_the_installation() -> None:
    assert version() == onnxprune.__version__ == importlib.metadata.version("onnxprune")


def test_a_checkout_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert version() == "unknown"
