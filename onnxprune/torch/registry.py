"""The registry of the executor: functions that compute operators, found by domain, name and operator set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

__all__ = ["ANY", "Function", "Node", "Operator", "find_operator", "ints", "op", "registered_operators"]

ANY = range(2**16)
"""Every input: no node has more."""

Function = Callable[..., Any]
"""Called with a `Node` and its inputs, ``None`` where absent; returns a value, or a tuple of them."""


class Body(Protocol):
    """A graph that is an attribute of a node; `onnxprune.torch.program.Program` is one."""

    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def outputs(self) -> Sequence[str]: ...
    @property
    def output_types(self) -> Sequence[Any]: ...
    @property
    def steps(self) -> Sequence[Any]: ...
    @property
    def constants(self) -> Mapping[str, str]: ...

    def results(self, inputs: Any, context: Any, outer: Any) -> list[Any]:
        """The outputs for some inputs, inside of a run of the graph around it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as its function sees it.

    Attributes:
        op: the operator; ``domain`` and ``opset`` its operator set and the version of it.
        name: as messages show it.
        attrs: attributes: numbers, text, lists of them, tensors.
        bodies: graphs among the attributes.
        outputs: how many outputs the node has, absent ones at the end left out.
    """

    op: str
    domain: str
    opset: int
    name: str
    attrs: Mapping[str, Any]
    bodies: Mapping[str, Body]
    outputs: int

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        return self.attrs.get(name, default)

    def __str__(self) -> str:
        return f"{self.name!r} ({self.domain or 'ai.onnx'}::{self.op})"


@dataclass(frozen=True, slots=True)
class Operator:
    """A function that computes an operator, and how its inputs are used.

    Attributes:
        function: computes the outputs.
        since: the first version of the operator set that the function is for; ``until`` the last.
        weights: inputs that are trained where they are floating-point constants.
        operands: inputs that are trained where they are floating-point constants of more than one element.
        statistics: inputs that train mode updates.
        host: inputs that are read by the host (sizes, axes, indices of slices), and so stay where they are.
        trains: the function has a parameter ``training``: true in train mode.
    """

    function: Function
    since: int
    until: int
    weights: Iterable[int]
    operands: Iterable[int]
    statistics: Iterable[int]
    host: Iterable[int]
    trains: bool


_OPERATORS: dict[tuple[str, str], list[Operator]] = {}
_NEWEST = 2**16
"""Above every version of an operator set."""


def op(
    *names: str,
    domain: str = "",
    since: int = 1,
    until: int = _NEWEST,
    weights: Iterable[int] = (),
    operands: Iterable[int] = (),
    statistics: Iterable[int] = (),
    host: Iterable[int] = (),
    trains: bool = False,
) -> Callable[[Function], Function]:
    """Register a function for operators of a domain, from one version of its operator set to another; see `Operator`.

    Raises:
        ValueError: one of them has a function already for one of the versions.
    """

    def register(function: Function) -> Function:
        for name in names:
            known = _OPERATORS.setdefault((domain, name), [])
            if any(one.since <= until and since <= one.until for one in known):
                msg = f"{domain or 'ai.onnx'}::{name} has a function already in versions {since} to {until}"
                raise ValueError(msg)
            known.append(Operator(function, since, until, weights, operands, statistics, host, trains))
        return function

    return register


def find_operator(domain: str, name: str, opset: int) -> Operator | None:
    """The function of an operator in a version of its operator set; ``None`` if there is none."""
    return next((one for one in _OPERATORS.get((domain, name), ()) if one.since <= opset <= one.until), None)


def registered_operators() -> list[tuple[str, str]]:
    """Every (domain, operator) with a function, sorted."""
    return sorted(_OPERATORS)


def ints(values: Tensor | Iterable[int]) -> list[int]:
    """Integers of a tensor or of an attribute, for the host to read. [n]"""
    found: list[int] = values.reshape(-1).tolist() if isinstance(values, Tensor) else list(values)
    return found
