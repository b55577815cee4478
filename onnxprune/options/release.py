"""Options of `release`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxprune.options.fields import Option
from onnxprune.options.gates import Gates
from onnxprune.options.shared import RequireProof, Shape

__all__ = ["ReleaseRecipe"]


@dataclass(frozen=True, kw_only=True)
class ReleaseRecipe(Gates):
    """Which inputs become constants; see `onnxprune.driver.release.release`.

    Attributes:
        inputs: release inputs of this name alone, not all that have a default; may be repeated.
    """

    inputs: Annotated[tuple[str, ...], Option(flags="--input", metavar="GLOB")] = ()
    require_proof: RequireProof = False
    shape: Shape = ()
