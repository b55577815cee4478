"""The registry of axis rules: one function per operator, found by domain and name.

Other packages bring rules by entry points of the group ``onnxprune.rules``, see `onnxprune.options.registry`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.axes.equation import AxisRule, Clauses, parse, parse_axis
from onnxprune.ir.node import NodeView
from onnxprune.options.registry import discover

__all__ = ["COMPUTED", "MICROSOFT", "NEVER", "Reason", "Refused", "Rule", "axes", "find", "registered", "rule"]


class Reason(enum.Enum):
    """The kinds of reasons why positions of an axis may not be removed."""

    INTERFACE = "interface"
    POSITION = "position"
    DYNAMIC = "dynamic size"
    NO_RULE = "no rule"
    UNSUPPORTED = "unsupported form"
    UNKNOWN_SHAPE = "unknown shape"
    CONTROL_FLOW = "control flow"
    MISALIGNED = "misaligned"
    CONTRADICTION = "contradiction"
    MIXES = "mixes"
    NOT_ZERO = "not zero"
    PROTECTED = "protected"
    NON_FLOAT = "non-float weights"
    VERIFICATION = "verification"

    @property
    def remedy(self) -> str:
        """Advice to the user; empty where nothing helps."""
        return _REMEDIES.get(self, "")


_REMEDIES = {
    Reason.DYNAMIC: "export the model with this size fixed",
    Reason.NO_RULE: "fold the operator, or convert it to standard ones, before pruning",
    Reason.UNKNOWN_SHAPE: "fix the sizes of the graph inputs, or save the model after shape inference",
    Reason.CONTROL_FLOW: "export the model with this loop unrolled or this branch taken",
    Reason.CONTRADICTION: "run onnx.checker with full_check; if it passes, report the model",
    Reason.MIXES: "--allow-inexact prunes it, without a proof of equality",
    Reason.PROTECTED: "--protect or --only keeps it",
    Reason.NON_FLOAT: "prune the model before it is converted to integers",
    Reason.VERIFICATION: "report the model: a rule is wrong, or the model multiplies rounding errors",
}
COMPUTED = "export the model with fixed sizes, so that these become constants"
"""The remedy where a rule needs values that the graph computes."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer of a rule to a form of its operator that it cannot describe: every axis of the node is fixed.

    Attributes:
        text: why, in words that follow the name of the operator.
        reason: the kind of reason.
        remedy: advice to the user about this form; empty for that of the reason.
    """

    text: str
    reason: Reason = Reason.UNSUPPORTED
    remedy: str = ""


Rule = Callable[[NodeView], AxisRule | Refused]

MICROSOFT = "com.microsoft"
"""ONNX Runtime's own domain."""
NEVER: Clauses = ((),)
"""Outputs are not zero where inputs are: ``Sigmoid``, ``Exp``."""

GROUP = "onnxprune.rules"
"""The entry points by which other packages bring rules."""
_RULES: dict[tuple[str, str], Rule] = {}


def rule(*ops: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a function as the rule of one or more operators.

    Raises:
        ValueError: an operator has a rule already.
    """

    def register(function: Rule) -> Rule:
        for op in ops:
            if (domain, op) in _RULES:
                msg = f"{domain or 'ai.onnx'}::{op} has a rule already: {_RULES[domain, op].__module__}"
                raise ValueError(msg)
            _RULES[domain, op] = function
        return function

    return register


def find(domain: str, op: str) -> Rule | None:
    """The rule of an operator, if there is one.

    Raises:
        InputError: an installed package that brings rules cannot be imported.
    """
    discover(GROUP)
    return _RULES.get((domain, op))


def registered() -> list[tuple[str, str]]:
    """Every (domain, operator) with a rule, sorted."""
    discover(GROUP)
    return sorted(_RULES)


def axes(
    equation: str,
    *,
    mix: str = "",
    fixed: str = "",
    attrs: dict[str, Any] | None = None,
    sizes_at: dict[int, Iterable[str | None]] | None = None,
    zero: Clauses | None = None,
    poles: tuple[int, ...] = (),
    sums: str = "",
    quantized: Mapping[int, tuple[int, int]] | None = None,
    packed: Mapping[int, int] | None = None,
    macs: str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> AxisRule:
    """An axis rule from its equation; sizes, attributes and entries of shape inputs are written in the same letters.

    ``macs`` spells the node's multiply-accumulates as a sum of products of letters; what no letter carries (kernel positions)
    is a letter of its own, with a size.
    """
    return AxisRule(
        parse(equation),
        sizes or {},
        mix=frozenset(mix.split()),
        fixed=frozenset(fixed.split()),
        attrs={name: _spell(value) for name, value in (attrs or {}).items()},
        sizes_at={at: tuple(None if e is None else parse_axis(e) for e in entries) for at, entries in (sizes_at or {}).items()},
        zero=zero,
        poles=poles,
        sums=frozenset(sums.split()),
        quantized=quantized or {},
        packed=packed or {},
        macs=() if macs is None else tuple(tuple(product.split()) for product in macs.split("+")),
    )


def _spell(value: object) -> object:
    """Text becomes an axis; a list becomes a list of those; any other value is a literal."""
    if isinstance(value, str):
        return parse_axis(value)
    return [_spell(item) for item in value] if isinstance(value, list) else value
