"""Write sparse weights in few bytes, with the nodes that decode them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from onnx import TensorProto, helper

from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import FLOATS, Array, Weight
from onnxprune.options.sparsify import EncodeRecipe
from onnxprune.passes.base import Pass, Progress, silent
from onnxprune.passes.bodies import replace_all
from onnxprune.passes.constants import gather_constants
from onnxprune.sparse.encoding.accounting import Encoded
from onnxprune.sparse.encoding.choose import Bundle, Piece, affordable, bundles, choose_pieces, laid_out
from onnxprune.sparse.encoding.coo import coo, coo_bytes
from onnxprune.sparse.encoding.decoder import OPSET, Chain
from onnxprune.sparse.encoding.flat import Flat, most_frequent
from onnxprune.sparse.encoding.recognize import decode_weights

__all__ = ["Encode", "EncodedModel"]

TYPES = FLOATS | {TensorProto.INT8, TensorProto.UINT8}
"""Types of weights; other constants are sizes and positions, which tools look for in the graph."""
FOLDED = 1 << 30
"""Bytes of the largest value that ONNX Runtime computes at load; a larger one it would compute at every run."""
_IR = 5
"""The first version of the file format with sparse tensors; from the fourth on, constants need not be inputs."""

ReadArray = Callable[[str], Array]


@dataclass(frozen=True, slots=True)
class EncodedModel:
    """Attributes:
    model: with encoded weights.
    weights: how each is stored.
    """

    model: Model
    weights: tuple[Encoded, ...]


@dataclass(frozen=True)
class Encode(Pass):
    """Sparse weights are made by nodes that ONNX Runtime folds away at load, or are sparse tensors; the rest stays as it is.

    Weights of float32 that float16 can hold, each of them, are stored in it, and cast back.

    Constants of bodies move to the main graph, and what is encoded already is decoded first.

    Attributes:
        encoding: ``auto``, the smallest for each weight; or ``bitmask``, ``delta``, ``nm``, ``coo``, ``dense``.
        mode: ``smallest``, or ``fast`` for encodings that are quick to decode.
        negative_zeros: keep negative zeros, which masks make of negative weights; otherwise they become zeros.
    """

    encoding: str = "auto"
    mode: str = "smallest"
    negative_zeros: bool = False

    def run(self, model: Model, tell: Progress = silent) -> EncodedModel:
        """The encoded model, and what is known of its weights.

        Raises:
            ModelError: the operator set of the model is too old.
            OptionError: there is no such encoding or mode.
        """
        EncodeRecipe(self.encoding, self.mode)  # checks them
        model = model.copy()
        gather_constants(model)
        decode_weights(model)
        outputs = {value.name for value in model.graph.output} | model.overridable
        values = lru_cache(1)(lambda name: self._values(model.weights[name]))
        rows: dict[str, Encoded] = {}
        pieces: list[Piece] = []
        for name, weight in model.weights.items():
            if weight.dtype not in TYPES:
                continue
            tell(f"reading {name}")
            rows[name] = Encoded.of(name, values(name), most_frequent(values(name)))
            if name not in outputs and (self.encoding != "auto" or weight.nbytes <= FOLDED):
                pieces += choose_pieces(name, values(name), self.encoding, self.mode)
                if self.encoding == "coo" and coo_bytes(values(name)) < weight.nbytes:
                    rows[name] = replace(rows[name], encoding="coo", stored=coo_bytes(values(name)))
        model.proto.ir_version = max(model.proto.ir_version, _IR)
        if self.encoding == "coo":
            _write_sparse(model, [name for name, row in rows.items() if row.encoding == "coo"], values)
        if self.mode == "fast" and self.encoding in {"auto", "delta"}:
            pieces = affordable(pieces, sum(row.elements for row in rows.values()))
        if pieces:
            if model.opset < OPSET:
                raise ModelError(
                    f"{model.name}: operator set {model.opset} lacks what decodes weights: it takes {OPSET}; "
                    "convert the model with onnx.version_converter, or encode as coo"
                )
            chosen = bundles(pieces, self.mode)
            tell("writing decoders")
            rows |= _accounts(rows, chosen)
            _write(model, chosen, values)
        return EncodedModel(model, tuple(rows.values()))

    def _values(self, weight: Weight) -> Array:
        array = weight.array()
        return array if self.negative_zeros or not weight.is_float else array + array.dtype.type(0)


def _accounts(rows: Mapping[str, Encoded], chosen: Sequence[Bundle]) -> dict[str, Encoded]:
    """The weights that are encoded, with how and in how many bytes."""
    pieces: dict[str, list[Piece]] = defaultdict(list)
    for bundle in chosen:
        for piece in bundle.pieces:
            pieces[piece.weight].append(piece)
    return {
        name: replace(rows[name], encoding="+".join(sorted({str(p.scheme) for p in parts})), stored=sum(p.nbytes for p in parts))
        for name, parts in pieces.items()
    }


def _write_sparse(model: Model, names: Sequence[str], values: ReadArray) -> None:
    """Weights as ``sparse_initializer``."""
    for name in names:
        model.graph.sparse_initializer.append(coo(name, values(name)))
        del model.weights[name]


def _write(model: Model, chosen: Sequence[Bundle], values: ReadArray) -> None:
    """Replace weights by decoders, which come first in the graph."""
    chain = Chain(model)
    made: dict[str, list[tuple[Piece, str]]] = defaultdict(list)
    for bundle in chosen:
        row = _row(bundle, values)
        names = chain.pieces(bundle.scheme.write(chain, row), [piece.size // bundle.scheme.unit for piece in bundle.pieces])
        for piece, name in zip(bundle.pieces, names, strict=True):
            made[piece.weight].append((piece, name))
    for weight, parts in made.items():
        _restore(chain, model.weights[weight], parts)
        del model.weights[weight]
    model.weights |= chain.weights
    replace_all(model.graph.node, [*chain.nodes, *model.graph.node])


def _row(bundle: Bundle, values: ReadArray) -> Flat:
    """The elements of all pieces of a bundle."""
    layout = bundle.pieces[0].layout
    parts = [laid_out(values(piece.weight), piece.layout)[piece.start : piece.stop] for piece in bundle.pieces]
    return Flat.of(np.concatenate(parts).view(layout.dtype), layout.fill)


def _restore(chain: Chain, weight: Weight, parts: Sequence[tuple[Piece, str]]) -> None:
    """A weight of its pieces, in its shape, under its name."""
    ordered = sorted(parts, key=lambda part: part[0].start)
    names = [name for _, name in ordered]
    row = names[0] if len(names) == 1 else chain.node("Concat", *names, axis=0)
    layout = ordered[0][0].layout
    order = layout.order(len(weight.shape))
    restored = chain.reshaped(row, *(weight.shape[axis] for axis in order))
    if order != sorted(order):
        restored = chain.node("Transpose", restored, perm=[order.index(axis) for axis in range(len(order))])
    if helper.np_dtype_to_tensor_dtype(layout.dtype) != weight.dtype:
        chain.cast(restored, weight.dtype)
    chain.finish(weight.name)
