"""Tables of what there is by name: criteria, patterns, encodings, ...; where packages add to them.

A `Registry` says which modules hold its built-in entries, and which group of Python entry points names the modules of other
installed packages. Both are imported when the table is first read. A package that brings a criterion needs no more than this in
its ``pyproject.toml``, and a module that registers the criterion::

    [project.entry-points."onnxprune.criteria"]
    mine = "my_package.my_criteria"
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast

from onnxprune.errors import InputError

__all__ = ["LABELS", "SAMPLES", "TORCH", "Entry", "Registry", "discover", "load"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

SAMPLES, LABELS, TORCH = "samples", "labels", "PyTorch"
"""What an entry may need."""

_discovered: set[str] = set()
"""Groups of entry points that are imported, or are being imported."""


def discover(group: str) -> None:
    """Import the modules that installed packages name in a group of entry points, once; they register what they bring.

    Raises:
        InputError: one cannot be imported, or what it registers is there already; names the package.
    """
    if group in _discovered:
        return
    _discovered.add(group)  # at once: a module that is imported here may read the table
    for point in entry_points(group=group):
        try:
            point.load()
        except Exception as error:
            _discovered.discard(group)
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "a package"
            raise InputError(
                f"{package}: its entry point {group}: {point.name} = {point.value} cannot be imported: "
                f"{type(error).__name__}: {error}; repair the package or uninstall it"
            ) from error


def load(reference: str) -> Any:
    """The object that ``package.module:name`` stands for."""
    module, _, names = reference.partition(":")
    return functools.reduce(getattr, names.split("."), importlib.import_module(module))


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """What a registry knows by one name.

    Attributes:
        name: what users write.
        stored: the entry itself; or where it is, as ``package.module:name``, if its module is heavy.
        help: what it is, in one line.
        needs: of `SAMPLES`, `LABELS` and `TORCH` what it does not work without.
    """

    name: str
    stored: T | str
    help: str
    needs: frozenset[str]

    @property
    def brief(self) -> str:
        """Its name and what it is, to stand within a sentence."""
        return f"{self.name} ({self.help[:1].lower()}{self.help[1:].removesuffix('.')})"

    @property
    def value(self) -> T:
        """The entry itself."""
        found: T = load(self.stored) if isinstance(self.stored, str) else self.stored
        return found


class Registry(Mapping[str, Entry[T]]):
    """Entries by name: first those that need samples, which do better, then the others; each in the order of registration."""

    def __init__(self, noun: str, *, homes: Iterable[str], group: str = "") -> None:
        """Nothing is imported yet.

        Args:
            noun: what an entry is called in messages.
            homes: the modules that register the built-in entries.
            group: of the entry points by which other packages add to them; empty for none.
        """
        self.noun = noun
        self._homes, self._group = tuple(homes), group
        self._entries: dict[str, Entry[T]] = {}
        self._complete = False

    def add(self, name: str, value: T | str, help: str, needs: Iterable[str] = ()) -> None:  # noqa: A002 - what it is
        """Register an entry; a text says where it is, see `Entry`.

        Raises:
            ValueError: there is one of that name.
        """
        if name in self._entries:
            msg = f"there is a {self.noun} {name!r} already"
            raise ValueError(msg)
        self._entries[name] = Entry(name, value, help, frozenset(needs))

    def register(self, name: str = "", needs: Iterable[str] = ()) -> Callable[[F], F]:
        """Register a function, by its own name if none is given; its help is the first sentence of its docstring.

        Raises:
            ValueError: there is one of that name.
        """

        def decorate(function: F) -> F:
            summary = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
            self.add(name or function.__name__, cast("T", function), summary, needs)
            return function

        return decorate

    def needing(self, need: str) -> tuple[str, ...]:
        """The names of the entries that need something."""
        return tuple(name for name, entry in self.items() if need in entry.needs)

    def __getitem__(self, name: str) -> Entry[T]:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        entries = self._all()
        return iter(sorted(entries, key=lambda name: SAMPLES not in entries[name].needs))

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, Entry[T]]:
        """Every entry, once its modules are imported."""
        if not self._complete:
            self._complete = True  # at once: a module that is imported here may read the table
            try:
                for home in self._homes:
                    importlib.import_module(home)
                if self._group:
                    discover(self._group)
            except BaseException:
                self._complete = False
                raise
        return self._entries
