"""Names of dimensions that are arithmetic on other names, as exporters write them: ``past + 1``, ``2*s0``, ``floor(h/2)``."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Formula", "formula"]

_Number = int | Fraction
_OPERATORS: Mapping[type[ast.operator], Callable[[_Number, _Number], _Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: lambda a, b: Fraction(a) / b,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[..., _Number]] = {"floor": math.floor, "ceil": math.ceil, "max": max, "min": min}


@dataclass(frozen=True)
class Formula:
    """Arithmetic on sizes.

    Attributes:
        tree: the expression.
        names: the sizes that it is computed from.
    """

    tree: ast.expr
    names: frozenset[str]

    def __call__(self, sizes: Mapping[str, int]) -> int:
        """The size that it comes to; 0 where that is less, or nothing."""
        try:
            return max(int(_value(self.tree, sizes)), 0)
        except ZeroDivisionError:
            return 0


def formula(name: str, known: Collection[str]) -> Formula | None:
    """The arithmetic that a name spells; ``None`` where it is a plain name, or speaks of names that are not ``known``.

    >>> formula("past + 1", {"past", "past + 1"})({"past": 16})
    17
    """
    try:
        tree = ast.parse(name, mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return None
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - _called(tree)
    if isinstance(tree, ast.Name) or not names or not names <= set(known) or not _spells(tree):
        return None
    return Formula(tree, frozenset(names))


def _called(tree: ast.AST) -> set[str]:
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def _spells(tree: ast.AST) -> bool:
    """Tell whether there is nothing but arithmetic in an expression."""
    if isinstance(tree, ast.BinOp):
        return type(tree.op) in _OPERATORS and _spells(tree.left) and _spells(tree.right)
    if isinstance(tree, ast.Call):
        plain = isinstance(tree.func, ast.Name) and tree.func.id.lower() in _FUNCTIONS and not tree.keywords
        return plain and bool(tree.args) and all(map(_spells, tree.args))
    return isinstance(tree, ast.Name) or (isinstance(tree, ast.Constant) and type(tree.value) is int)


def _value(tree: ast.AST, sizes: Mapping[str, int]) -> _Number:
    if isinstance(tree, ast.BinOp):
        return _OPERATORS[type(tree.op)](_value(tree.left, sizes), _value(tree.right, sizes))
    if isinstance(tree, ast.Call):
        function = _FUNCTIONS[tree.func.id.lower()]  # type: ignore[attr-defined] # a name; see `_spells`
        return function(*(_value(argument, sizes) for argument in tree.args))
    return sizes[tree.id] if isinstance(tree, ast.Name) else tree.value  # type: ignore[attr-defined] # a constant, else
