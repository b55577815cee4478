"""Nodes with sizes, for which the tests of onnxprune check the rules of this package."""

from collections.abc import Callable, Iterator
from typing import Any


def samples(S: Callable[..., Any]) -> Iterator[Any]:
    """A node of two inputs, x of sizes [2, 6, 3, 4] and slopes of size [6]; values are drawn."""
    yield S("my.domain::Foo", "2 6 3 4", "6")
