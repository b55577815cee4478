"""Commands whose options are the fields of dataclasses, see `onnxprune.options.fields`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from onnxprune.cli.interrupts import accounted
from onnxprune.cli.output import check_page, told_options
from onnxprune.errors import ContractError, OnnxPruneError
from onnxprune.ir.unchanged import watched
from onnxprune.options.fields import Field, Option, fields_of
from onnxprune.options.gates import Gates
from onnxprune.options.shared import NOISE
from onnxprune.runtime.memory import bound_memory
from onnxprune.runtime.threads import bound

__all__ = ["COMMANDS", "Parameter", "Some", "command"]

F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True)
class Some:
    """Stands in the annotation of a command's parameter: the command takes only some of the fields.

    Attributes:
        names: of these fields, separated by blanks; those with an exclamation mark must be given.
    """

    names: str

    def field(self, field: Field) -> Field | None:
        """The field as the command has it, if it has it."""
        names = self.names.split()
        return field if field.name in names else replace(field, default=MISSING) if f"{field.name}!" in names else None


@dataclass(frozen=True)
class Parameter:
    """An option of a command.

    Attributes:
        owner: the parameter of the function that gets it.
        field: the option.
        kind: the class that declares it.
    """

    owner: str
    field: Field
    kind: type

    @property
    def last(self) -> tuple[bool, int]:
        """Sorts what must be given before the rest, and what many commands have behind it, gates first."""
        return self.field.default is not MISSING, self.field.name in _GATES or 2 * (self.field.name in _COMMON)


_GATES = {field.name for field in fields_of(Gates)}
_MODELS = {"model", "models", "pruned", "file"}
"""Arguments that name models."""
_WRITTEN = ("output", "report", "plan_out", "plot")
"""Options that name files that are written."""
_COMMON = {"report", "mlflow", "every", "threads", "max_memory", "custom_ops", "force", "as_json"}

COMMANDS: dict[str, tuple[Callable[..., None], list[Parameter]]] = {}
"""Every command by name, with its options in order."""


def command(app: typer.Typer, name: str = "") -> Callable[[F], F]:
    """Register a function as a command; each of its parameters is a dataclass, whose fields are the options.

    Its name is the function's, or ``name``: for one in a group with that of the group, as ``sweep status``.

    A field that is a tuple may be repeated; one that is true unless told otherwise has ``--no-`` before it to say so. A field
    that several of the dataclasses have is one option.
    """

    def decorate(function: F) -> F:
        parameters = sorted(_parameters(function), key=lambda one: one.last)
        shown = list({one.field.name: one for one in reversed(parameters)}.values())[::-1]
        COMMANDS[name or function.__name__] = function, shown
        kinds = {name: get_args(hint)[0] if get_origin(hint) is Annotated else hint for name, hint in _hints(function).items()}

        @functools.wraps(function)
        def run(**given: Any) -> None:
            if function.__name__ != "benchmark":  # its threads are what is measured
                bound(given.get("threads"))
                bound_memory(given.get("max_memory"))
            values: dict[str, dict[str, Any]] = {name: {} for name in kinds}
            for one in parameters:
                value = _found(one.field, given[one.field.name])
                values[one.owner][one.field.name] = tuple(value or ()) if one.field.type is tuple else value
            made = {name: kind(**values[name]) for name, kind in kinds.items()}
            _check_apart(given)
            if given.get("report"):
                check_page(given["report"], force=given["force"])
            if given.get("mlflow"):
                _check_tracking(given["mlflow"])
            with accounted(given), _libraries(given.get("custom_ops") or ()), _faults(given), watched(), told_options(given):
                function(**made)

        read = [_shown(one.field) for one in shown]
        run.__signature__ = inspect.Signature(read)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in read} | {"return": None}
        del run.__wrapped__  # typer reads through it
        app.command(name.rpartition(" ")[2] or None, cls=_Command)(run)
        return function

    return decorate


def _check_apart(given: Mapping[str, Any]) -> None:
    """Nothing happens if no file that is written is another file of the command: ``--force`` is not meant for these."""
    written = {name: given[name] for name in _WRITTEN if given.get(name)}
    if not written:
        return
    from onnxprune.ir.files import check_apart

    for name, path in written.items():
        others = (value for other, value in given.items() if other != name)
        flat = (one for value in others for one in (value if isinstance(value, list) else [value]))
        check_apart(path, [one for one in flat if one and isinstance(one, str | Path)])


def _check_tracking(uri: str) -> None:
    from onnxprune.driver.tracking import check_tracking

    check_tracking(uri)


def _found(field: Field, value: Any) -> Any:
    """What was given for an option; a folder that stands for the model in it is that model."""
    if field.name not in _MODELS or not value:
        return value
    from onnxprune.ir.folders import model_in

    return [model_in(path) for path in value] if field.type is tuple else model_in(value)


def _libraries(files: Sequence[str]) -> AbstractContextManager[None]:
    """Custom operators, for whatever runs the model; without them nothing is imported."""
    if not files:
        return nullcontext()
    from onnxprune.runtime.custom_operators import custom_operators

    return custom_operators(*files)


@contextmanager
def _faults(given: Mapping[str, Any]) -> Iterator[None]:
    """A context that turns errors that nobody foresaw into ones that say whose fault they are."""
    try:
        yield
    except (OnnxPruneError, OSError) as error:
        if not isinstance(error, ContractError):
            raise
        raise _explained(error, given) from error
    except Exception as error:
        raise _explained(error, given) from error


def _explained(error: Exception, given: Mapping[str, Any]) -> OnnxPruneError:
    from onnxprune.driver.fault import explained

    named = [given.get("model"), given.get("pruned"), *(given.get("models") or ())]
    samples = {f"--{name}": given[name] for name in ("calib", "data", "eval") if given.get(name) not in {None, "", NOISE}}
    return explained(error, [path for path in named if path], samples, given.get("preprocess") or "")


def _hints(function: Callable[..., None]) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(function, include_extras=True).items() if name != "return"}


def _parameters(function: Callable[..., None]) -> Iterator[Parameter]:
    for name, hint in _hints(function).items():
        kind, some = get_args(hint) if get_origin(hint) is Annotated else (hint, None)
        for field in fields_of(kind):
            if (taken := some.field(field) if some else field) is not None:
                yield Parameter(name, taken, kind)


def _shown(field: Field) -> inspect.Parameter:
    """An option as typer reads it; its help follows when it is read, see `_Command`."""
    option, many = field.option, field.type is tuple
    least = None if option.least is None else int(option.least) if field.type is int else option.least
    if option.argument:
        kind: Any = list[Path] if many else field.type
        info: Any = typer.Argument(metavar=option.metavar, help="")
    else:
        kind = list[str] | None if many else field.type | None if field.default is None else field.type
        flags = [field.flags] if field.type is bool else field.flags.split("/")
        info = typer.Option(*flags, metavar=option.metavar or None, min=least, help="", autocompletion=_completion(option))
    default = inspect.Parameter.empty if field.default is MISSING else None if many else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _completion(option: Option) -> Callable[[str], list[str]] | None:
    """What a shell asks for the names that complete what was typed; ``None`` where an option has no names."""

    def names(incomplete: str) -> list[str]:
        return [name for name in option.known if name.startswith(incomplete)]

    return names if option.names else None


class _Command(TyperCommand):
    """Finds the help of its options when it is asked for: it names what is registered, and that needs numpy."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        words, group = [str(self.name).replace("-", "_")], ctx.parent
        while group is not None and group.parent is not None:
            words.insert(0, str(group.info_name))
            group = group.parent
        helps = {one.field.name: one.field.help() for one in COMMANDS[" ".join(words)][1]}
        for parameter in self.params:
            if parameter.name in helps:
                vars(parameter)["help"] = helps[parameter.name]
        super().format_help(ctx, formatter)
