"""The version of this package."""

from __future__ import annotations

__all__ = ["version"]


def version() -> str:
    """The version that is installed; ``unknown`` in a checkout that is not."""
    from importlib.metadata import PackageNotFoundError, version  # 60 ms, which an import need not take

    try:
        return version("onnxprune")
    except PackageNotFoundError:
        return "unknown"
