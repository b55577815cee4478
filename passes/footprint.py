"""Count what a model takes where it is stored."""

from __future__ import annotations

from onnxprune.ir.files import source_bytes, written_bytes
from onnxprune.ir.model import Model
from onnxprune.ir.parameters import parameters
from onnxprune.passes.constants import gather_constants
from onnxprune.pruning.cost import Footprint
from onnxprune.sparse.encoding.recognize import decode_weights

__all__ = ["footprint", "footprint_of_file"]


def footprint(model: Model) -> Footprint:
    """What a model takes as `onnxprune.ir.files.save` writes it.

    Every constant counts once, also those of bodies; sparse weights that nodes decode count as what these make.
    """
    return Footprint(_parameters(model), written_bytes(model))


def footprint_of_file(model: Model) -> Footprint:
    """What a model takes on disk, as it came."""
    return Footprint(_parameters(model), source_bytes(model))


def _parameters(model: Model) -> int:
    gathered = model.copy()
    gather_constants(gathered)
    decode_weights(gathered)
    return sum(gathered.weights[name].size * count for name, count in parameters(gathered).items())
