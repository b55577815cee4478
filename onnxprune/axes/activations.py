"""Activation functions of recurrent layers, as the attributes of a node spell them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["DEFAULTS", "Activation", "activations"]

DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
"""The functions of one direction where the node names none: of gates, of the new state, and with LSTM of the output."""

_NUMBERS = {
    "affine": (0.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "relu": (None, None),
    "scaledtanh": (0.0, 0.0),
    "sigmoid": (None, None),
    "softplus": (None, None),
    "softsign": (None, None),
    "tanh": (None, None),
    "thresholdedrelu": (0.0, None),
}
"""The defaults of alpha and beta in ONNX Runtime; ``None`` where a function has no such number."""

_AT_ZERO: dict[str, Callable[[float, float], float]] = {
    "affine": lambda _, beta: beta,
    "hardsigmoid": lambda _, beta: min(max(beta, 0.0), 1.0),
    "sigmoid": lambda *_: 0.5,
    "softplus": lambda *_: math.log(2),
}
"""The values at zero from alpha and beta; of all other functions it is zero."""


@dataclass(frozen=True, slots=True)
class Activation:
    """A function by its name in small letters, with its numbers; 0 where it has none."""

    name: str
    alpha: float
    beta: float

    @property
    def at_zero(self) -> float:
        """The value at zero."""
        return _AT_ZERO[self.name](self.alpha, self.beta) if self.name in _AT_ZERO else 0.0


class _Attributes(Protocol):
    """A node whose attributes can be read."""

    @property
    def op(self) -> str: ...
    def attr(self, name: str, default: Any = None) -> Any: ...


def activations(node: _Attributes, directions: int) -> list[list[Activation]] | None:
    """The functions of each direction of a recurrent node; ``None`` if it names others than the standard has, or not as many.

    Names are read in any case. Numbers go to the functions that have them, in their order; the rest has its defaults.
    """
    each = len(DEFAULTS[node.op])
    names = [_text(name).lower() for name in node.attr("activations") or DEFAULTS[node.op] * directions]
    if len(names) != each * directions or not _NUMBERS.keys() >= set(names):
        return None
    given = [iter(node.attr(attribute) or ()) for attribute in ("activation_alpha", "activation_beta")]
    found = [Activation(name, *map(_number, _NUMBERS[name], given)) for name in names]
    return [found[at : at + each] for at in range(0, len(found), each)]


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode()


def _number(default: float | None, given: Any) -> float:
    return 0.0 if default is None else float(next(given, default))
