"""How an option is declared, once: as a field of a frozen dataclass.

Its type and default are those of the field, its help is what the docstring of the class says below ``Attributes:``, and an
`Option` in its annotation says the rest. From this come the command line (`onnxprune.cli.derived`), tables of recipe files
(`read`), Python's signature and ``docs/options.md``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, InitVar, dataclass
from types import UnionType
from typing import Annotated, Any, Generic, Self, TypeVar, get_args, get_origin, get_type_hints

from onnxprune.errors import OptionError
from onnxprune.options.registry import LABELS, SAMPLES, TORCH, Entry, Registry

__all__ = ["Field", "Option", "Options", "Parsed", "fields_of", "meant", "read"]

T = TypeVar("T")
_TYPES: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of texts",
}
_NEEDS = {
    frozenset[str](): "Without samples",
    frozenset({SAMPLES}): "By samples",
    frozenset({SAMPLES, TORCH}): "By gradients, which needs samples and PyTorch",
    frozenset({SAMPLES, LABELS, TORCH}): "By gradients, which needs samples with labels and PyTorch",
}
"""How help introduces names by what they need."""


@dataclass(frozen=True, slots=True)
class Option:
    """Stands in the annotation of a field, as ``Annotated[int, Option(range="[1, inf)")]``.

    Attributes:
        flags: how the command line spells it, as ``--a/--b`` for yes and no; empty for the name of the field.
        metavar: what stands for the value in help.
        help: of options that several classes share; else it is in the docstring of the class.
        names: what it may be; a registry stands for its names.
        without: leaves out what needs this, as `SAMPLES`, of the names that registries give.
        free: whether other texts are allowed than the names, because a name is a form, as ``N:M``.
        noun: what messages call it: "there is no NOUN 'x'; there are ..."; empty for "--option 'x': write one of ...".
        range: of a number, as ``[0, 1)``.
        says: what to write, where that does not follow from the range; of names the words before them.
        argument: whether it stands on the command line without a flag.
        reads: raises where a value makes no sense otherwise.
    """

    flags: str = ""
    metavar: str = ""
    help: str = ""
    names: tuple[str | Registry[Any], ...] = ()
    without: str = ""
    free: bool = False
    noun: str = ""
    range: str = ""
    says: str = ""
    argument: bool = False
    reads: Callable[[Any], object] | None = None

    @property
    def known(self) -> tuple[str, ...]:
        """Every name that it may be."""
        return tuple(one for part in self.names for one in ([part] if isinstance(part, str) else self._entries(part)))

    @property
    def least(self) -> float | None:
        """The smallest number that it may be, if there is one."""
        return float(self.range[1:].partition(",")[0]) if self.range.startswith("[") else None

    def _entries(self, registry: Registry[Any]) -> dict[str, Entry[Any]]:
        return {name: entry for name, entry in registry.items() if self.without not in entry.needs}

    def listed(self) -> str:
        """The names that registries give, as sentences: by what they need; where names are forms, with what they are."""
        groups: dict[frozenset[str], list[str]] = {}
        for part in self.names:
            for name, entry in () if isinstance(part, str) else self._entries(part).items():
                groups.setdefault(entry.needs, []).append(entry.brief if self.free else name)
        if len(groups) == 1:
            return f"There are {', '.join(*groups.values())}."
        return " ".join(f"{_NEEDS[needs]}: {', '.join(names)}." for needs, names in groups.items())

    def check(self, name: str, value: Any) -> None:
        """Check a value of the option.

        Raises:
            OptionError: it is none of the names, or out of range.
        """
        named = (flag for flag in self.flags.split("/") if flag.startswith("--"))
        option = next(named, f"--{name.replace('_', '-')}")
        for one in () if self.free or not self.names else value if isinstance(value, tuple) else (value,):
            if one not in self.known:
                known = ", ".join(self.known)
                if self.noun:
                    raise OptionError(f"there is no {self.noun} {one!r}; there are {known}")
                raise OptionError(f"{option} {one!r}: {self.says or 'write one of'} {known}")
        if self.reads is not None:
            self.reads(value)
        if self.range and value is not None and not _inside(value, self.range):
            raise OptionError(f"{option} {value}: {self.says or _wanted(self.range, value)}")


def _inside(value: float, range_: str) -> bool:
    low, high = map(float, range_[1:-1].split(","))
    above = low < value or (low == value and range_.startswith("["))
    return above and (value < high or (value == high and range_.endswith("]")))


def _wanted(range_: str, value: float) -> str:
    """What to write, in words."""
    low, high = (part.strip() for part in range_[1:-1].split(","))
    if high != "inf":
        return f"write a number from {low} to {'' if range_.endswith(']') else 'below '}{high}"
    if isinstance(value, int) or low != "0":
        return f"write {low} or more"
    return "write 0 or a positive number" if range_.startswith("[") else "write a positive number"


class Parsed(Generic[T]):
    """The default of a field that may be given as text, and holds what was read from it.

    >>> target: Parsed[Target] = Parsed(Target.parse, "macs=0.5")  # doctest: +SKIP
    """

    def __init__(self, read: Callable[[str], T], default: str) -> None:
        """The default is text, too; a value of ``None`` is written as it."""
        self._read, self.default = read, default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        if instance is None:
            return self._read(self.default)
        value: T = instance.__dict__[self._name]
        return value

    def __set__(self, instance: Any, value: T | str | float) -> None:
        """A number is read as its text is (``align=16``), except where what is read are numbers."""
        if isinstance(value, int | float) and not isinstance(self._read(self.default), int | float):
            value = str(value)
        instance.__dict__[self._name] = self._read(value) if isinstance(value, str) else value

    def text(self, value: T) -> str:
        """A value as it is read."""
        return self.default if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Field:
    """An option.

    Attributes:
        name: of the field.
        type: ``str``, ``int``, ``float``, ``bool``, ``Path``, or ``tuple``: any number of texts, or of paths for an argument.
        default: if there is none, ``MISSING``; for a value that is read from text the text.
        option: what the annotation says.
        said: what the docstring says.
    """

    name: str
    type: type
    default: Any
    option: Option
    said: str

    @property
    def flags(self) -> str:
        """How the command line spells it: ``--some``, with ``/--no-some`` where it is on unless told otherwise."""
        if self.option.flags:
            return self.option.flags
        flag = self.name.replace("_", "-")
        return f"--{flag}/--no-{flag}" if self.default is True else f"--{flag}"

    @property
    def keys(self) -> dict[str, bool]:
        """How a table spells it, without hyphens, and whether that says the opposite."""
        found = {self.name: False}
        if self.type is bool:
            found[f"no_{self.name}"] = True
        for number, flag in enumerate(self.flags.split("/")):
            found.setdefault(flag.lstrip("-").replace("-", "_"), number > 0)
        return found

    def help(self) -> str:
        """What it is for, in plain text, with the names that are registered."""
        text, listed = self.said or self.option.help, self.option.listed()
        text = f"{text} {listed}" if listed else text
        text = text if text.startswith("``") else text[:1].upper() + text[1:]
        return " ".join(text.replace("``", "").split())


@functools.cache
def fields_of(kind: Any) -> tuple[Field, ...]:
    """The options that a dataclass declares, in order; one that only makes others (`InitVar`) is one, too."""
    hints = get_type_hints(kind, include_extras=True)
    said = {name: text for base in reversed(kind.__mro__) for name, text in _helps(base).items()}
    found = []
    fields = kind.__dataclass_fields__  # dataclasses.fields() leaves InitVar out
    for name, field in sorted(fields.items(), key=lambda one: one[1].kw_only is True):  # what many have comes last
        hint = hints[name].type if isinstance(hints[name], InitVar) else hints[name]
        option = Option()
        if get_origin(hint) is Annotated:
            hint, option = get_args(hint)
        written = inspect.getattr_static(kind, name, None)
        if isinstance(written, Parsed):
            found.append(Field(name, str, written.default, option, said.get(name, "")))
            continue
        hint = get_args(hint)[0] if isinstance(hint, UnionType) else hint
        found.append(Field(name, get_origin(hint) or hint, field.default, option, said.get(name, "")))
    return tuple(found)


def _helps(kind: type) -> dict[str, str]:
    """What the docstring of a class says of its fields."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    return dict(re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE))


class Options:
    """Base of dataclasses whose fields are options."""

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for field in fields_of(kind):
            if field.type is tuple and not isinstance(value := getattr(self, field.name, ()), tuple):
                object.__setattr__(self, field.name, (value,) if isinstance(value, str) else tuple(value))
            field.option.check(field.name, getattr(self, field.name))

    @classmethod
    def of(cls, given: Self | str | None) -> Self:
        """Options as functions take them: a text is the target, nothing stands for the defaults."""
        if isinstance(given, str):
            return cls.from_dict({"target": given})
        return cls() if given is None else given

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        """Read a table, as a recipe file has it.

        Raises:
            OptionError: no such option, or a value of the wrong type or without sense.
        """
        found: Self = read((cls,), table)[cls]
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain data, that `from_dict` reads."""
        made = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # subclasses are
        texts = {name: inspect.getattr_static(type(self), name, None) for name in made}
        return {name: kind.text(made[name]) if isinstance(kind, Parsed) else _plain(made[name]) for name, kind in texts.items()}


def _plain(value: Any) -> Any:
    """A value as data: of a function its name, as ``package.module:function``."""
    return f"{value.__module__}:{value.__qualname__}" if inspect.isroutine(value) else value


def read(
    kinds: Sequence[type],
    table: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    place: Callable[[str, Any], Any] = lambda _, value: value,
) -> dict[type, Any]:
    """Read a table into the dataclasses whose fields it has, with hyphens or without.

    Args:
        kinds: whose fields may be there.
        table: of a TOML file.
        defaults: of fields, where they are not those of the dataclass.
        place: called with the name of a field and its value; what it returns is taken, as for paths beside a file.

    Raises:
        OptionError: no such option, a value of the wrong type or that makes no sense, or one that is missing.
    """
    fields = {field.name: field for kind in kinds for field in fields_of(kind)}
    keys = {key: (field, opposite) for field in fields.values() for key, opposite in field.keys.items()}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in keys:
            others = [key for key, (field, _) in keys.items() if key not in fields and not key.startswith("no_")]
            raise OptionError(f"there is no option {key!r}{meant(key, [*fields, *others])}")
        field, opposite = keys[name]
        if field.name in values:
            raise OptionError(f"{key} says again what {field.name} says: leave one out")
        given = not value if opposite and isinstance(value, bool) else value
        values[field.name] = place(field.name, _typed(key, given, field.type))
    values = {**(defaults or {}), **values}
    made = {}
    for kind in kinds:
        own = {field.name: field for field in fields_of(kind)}
        for field in own.values():
            if field.name not in values and field.default is MISSING:
                raise OptionError(f"{field.option.says or f'has no {field.name}'}: write {field.name} = ...")
        made[kind] = kind(**{name: values[name] for name in own if name in values})
    return made


def _typed(key: str, value: Any, kind: type) -> Any:
    """A value of TOML as the type of a field."""
    if kind is tuple:
        values = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else None
        if values is None or not all(isinstance(item, str) for item in values):
            raise OptionError(f"{key} = {value!r} is not {_TYPES[kind]}")
        return values
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is str and number:  # align = 16
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise OptionError(f"{key} = {value!r} is not {_TYPES[kind]}")
    return value


def meant(word: str, known: Iterable[str]) -> str:
    """A hint at what a misspelt word may have been, or at all there is."""
    names = list(known)
    near = difflib.get_close_matches(word.replace("-", "_"), names, 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
