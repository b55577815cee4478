"""Types that every room speaks of; this module imports nothing."""

from __future__ import annotations

__all__ = ["Shape"]

Shape = tuple[int, ...]
"""Sizes of the axes of a value, outermost first."""
