"""Options of a command that are the fields of a dataclass: names, defaults, and help from its docstring."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, get_origin, get_type_hints

import typer

__all__ = ["helps", "options_of"]


def helps(kind: type) -> dict[str, str]:
    """What the docstring of a dataclass says of its fields, in plain text."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE)
    plain = {name: said if said.startswith("``") else said[0].upper() + said[1:] for name, said in found}
    return {name: " ".join(said.replace("``", "").split()) for name, said in plain.items()}


def options_of(
    kind: type, name: str, renamed: dict[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The command takes each field of a dataclass as an option, and gets an instance of it as ``name``.

    A field that is a tuple may be repeated; one that is true or false has ``--no-`` before it to say no. ``renamed`` are options
    that are not called like their fields. A field that says with `Annotated` what it is on the command line is that.
    """
    hints, said = get_type_hints(kind, include_extras=True), helps(kind)
    fields = dataclasses.fields(kind)
    tuples = {field.name for field in fields if get_origin(hints[field.name]) is tuple}

    def parameter(field: dataclasses.Field[Any]) -> inspect.Parameter:
        if get_origin(hints[field.name]) is Annotated:
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name])
        repeated, flag = field.name in tuples, hints[field.name] is bool
        option = (renamed or {}).get(field.name, f"--{field.name.replace('_', '-')}")
        option = f"{option}/--no-{option[2:]}" if flag and "/" not in option else option
        info = typer.Option(option, help=said[field.name])
        shown: Any = Annotated[list[str] | None if repeated else hints[field.name], info]
        default = None if repeated else field.default
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=shown)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = get_type_hints(command, include_extras=True)
        kept = [one.replace(annotation=own[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
                for one in signature.parameters.values() if one.name != name]  # fmt: skip
        added = [parameter(field) for field in fields]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {field.name: given.pop(field.name) for field in fields}
            values = {key: tuple(value or ()) if key in tuples else value for key, value in values.items()}
            command(**given, **{name: kind(**values)})

        run.__signature__ = signature.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in [*kept, *added]} | {"return": None}
        del run.__wrapped__  # typer reads through it
        return run

    return decorate
