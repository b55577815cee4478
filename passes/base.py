"""The contract of a pass.

A pass is a frozen dataclass whose fields are its options. Its one method, ``run``, takes exactly what it needs and returns what
it makes: a changed graph (a transform), or a value that says something about a graph (an analysis). It changes nothing that it
is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from onnxprune.errors import OnnxPruneError, PassError

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.linear.reconstruction import Repaired

__all__ = ["Fitted", "Pass", "Progress", "silent"]

Progress = Callable[[str], None]
"""Is told what is being done."""


def silent(_: str) -> None:
    """Progress that nobody follows."""


class Pass:
    """One step of the compiler; each subclass has a method ``run``.

    An error in it that onnxprune does not raise on purpose becomes a `PassError` that names the pass and its options.
    """

    def __init_subclass__(cls) -> None:
        run: Callable[..., Any] = vars(cls)["run"]

        @wraps(run)
        def named(self: Pass, *given: Any, **options: Any) -> Any:
            try:
                return run(self, *given, **options)
            except OnnxPruneError:
                raise
            except Exception as error:
                raise PassError(f"{self} failed: {type(error).__name__}: {error}") from error

        setattr(cls, "run", named)  # noqa: B010 - subclasses declare it, each with a signature of its own


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model whose layers were fitted to what the original computes on calibration samples.

    Attributes:
        model: the model.
        repairs: the layers that were fitted, with their errors before and after; empty where nothing was.
    """

    model: Model
    repairs: tuple[Repaired, ...] = ()
