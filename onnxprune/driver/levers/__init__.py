"""The ways to make a model cheaper that `optimize` mixes: each is a lever, in a file of its own.

`base` is the form of a lever. `layers` and `rounding` say of each layer what int8 saves and what it loses. `LEVERS` is the order
in which the choices of a mixture are carried out.

Change here: add a lever, which is a file and its name in `LEVERS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.driver.levers.channels import Channels
from onnxprune.driver.levers.depth import Depth
from onnxprune.driver.levers.lossless import Lossless
from onnxprune.driver.levers.precision import Precision
from onnxprune.driver.levers.subnormals import Subnormals
from onnxprune.driver.levers.zeros import Zeros

if TYPE_CHECKING:
    from onnxprune.driver.levers.base import Lever

__all__ = ["LEVERS"]

LEVERS: tuple[type[Lever], ...] = (Lossless, Subnormals, Depth, Channels, Zeros, Precision)
"""Exact ones first; what is cut gets no zeros; layers are repaired before they are rounded, so that ranges are those of the
repaired model."""
