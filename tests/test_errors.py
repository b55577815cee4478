"""The exception tree: what the docstring draws is what there is."""

from __future__ import annotations

import re

import pytest

import onnxprune
from onnxprune import errors

CLASSES = {name: getattr(errors, name) for name in errors.__all__}
STATUS = {"InputError": 2, "RequirementError": 1, "ReportError": 74, "ContractError": 70}


def drawn() -> dict[str, tuple[str, str]]:
    """Name to (parent, builtin) as the docstring draws them."""
    found: dict[str, tuple[str, str]] = {}
    stack: list[tuple[int, str]] = []
    for match in re.finditer(r"^( +[│├└─ ]*)([A-Z]\w+)(?: \((\w+)\))?(?:  |$)", errors.__doc__ or "", re.MULTILINE):
        depth, name, builtin = len(match[1]), match[2], match[3] or ""
        while stack and stack[-1][0] >= depth:
            stack.pop()
        found[name] = (stack[-1][1] if stack else "Exception", builtin)
        stack.append((depth, name))
    return found


def test_the_drawing_is_the_tree() -> None:
    real = {}
    for name, kind in CLASSES.items():
        parent, *builtin = (base.__name__ for base in kind.__bases__)
        real[name] = (parent, builtin[0] if builtin else "")
    assert drawn() == real


def test_every_class_is_exported_and_public() -> None:
    assert {name for name, value in vars(errors).items() if isinstance(value, type)} == set(CLASSES)
    assert all(getattr(onnxprune, name) is kind for name, kind in CLASSES.items())


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_exit_status_follows_the_branch(name: str) -> None:
    kind = CLASSES[name]
    branch = next((parent for parent in STATUS if issubclass(kind, CLASSES[parent])), None)
    assert kind.exit_status == (STATUS[branch] if branch else 1)
    assert kind("one line").exit_status == kind.exit_status
