"""The choice of an encoding for each weight: the fewest bytes, the nodes of its decoder included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from onnxprune.ir.weights import Array
from onnxprune.options.registries import ENCODINGS
from onnxprune.sparse.encoding.bitmask import Bitmask
from onnxprune.sparse.encoding.delta import Delta
from onnxprune.sparse.encoding.flat import Flat, bits_of, most_frequent, narrowest
from onnxprune.sparse.encoding.gaps import Gaps
from onnxprune.sparse.encoding.n_of_m import patterns

if TYPE_CHECKING:
    from onnxprune.sparse.encoding.decoder import Chain

__all__ = [
    "Bundle",
    "Family",
    "Layout",
    "Piece",
    "Scheme",
    "affordable",
    "bundles",
    "choose_pieces",
    "laid_out",
]

SHARE = 80
"""About the bytes that a weight adds to a decoder that it shares: a node, its shape, a place among the pieces."""
APART = {"smallest": 1 << 19, "fast": 1 << 14}
"""Bytes from which a piece has a decoder of its own: where decoding is to be fast soon, since cutting a row copies it."""
PIECE = 1 << 22
"""Elements decoded in one go: they bound what a decoder holds in memory, and are far below the 1 GiB that is folded."""
SLOWER = 1.01
"""Bytes of a bitmask over those of the smallest encoding up to which the bitmask is taken: about half zeros, it loads faster."""
BUDGET = 0.2, 1 << 18
"""Elements that the fast mode decodes: a fraction of all, since scattering one takes about five times as long as loading one;
and as many as take some milliseconds in any model."""
_FLOAT = np.dtype(np.float32)


class Scheme(Protocol):
    """An encoding of a row."""

    @property
    def nodes(self) -> int:
        """About the bytes of the decoder's nodes and shared constants."""

    @property
    def unit(self) -> int:
        """Elements in each row of what the decoder makes, [n, unit]; a plain row, [n], where it is 1."""

    def nbytes(self, flat: Flat) -> int:
        """Bytes that are stored for a row, without nodes."""

    def write(self, chain: Chain, flat: Flat) -> str:
        """Append the decoder to a chain; the name of the row it makes."""


@dataclass(frozen=True, slots=True)
class Family:
    """An encoding as users name it.

    Attributes:
        schemes: by the mode, those that look at no pattern: a row is cut in pieces, and each gets the smallest.
        search: by an array and the bits of its fill, those that the whole array satisfies along an axis, which is moved to the
            end; ``None`` leaves the order.
        auto: the modes in which ``auto`` tries it.
    """

    schemes: Callable[[str], Iterable[Scheme]] = lambda _: ()
    search: Callable[[Array, int], Iterable[tuple[int | None, Scheme]]] = lambda *_: ()
    auto: tuple[str, ...] = ()


_QUICK = (Delta(8), Delta(16))
_PACKED = tuple(Gaps(width) for width in range(2, 9))
for _name, _family, _help in (
    (
        "bitmask",
        Family(lambda _: (Bitmask(),), auto=("smallest",)),
        "One bit for each element, and those that are stored.",
    ),
    (
        "delta",
        Family(lambda mode: _QUICK if mode == "fast" else (*_PACKED, *_QUICK), auto=("smallest", "fast")),
        "The distances between elements that are stored, and these.",
    ),
    ("nm", Family(search=patterns, auto=("smallest",)), "Which N of each M elements are stored, and these."),
    ("coo", Family(), "A sparse tensor of the standard, which `onnxprune.passes.encode` writes."),
):
    ENCODINGS.add(_name, _family, _help)


@dataclass(frozen=True, slots=True)
class Layout:
    """The order in which a weight becomes a row.

    Attributes:
        axis: moved to the end first; ``None`` leaves the order.
        fill: bits of the element that is not stored.
        dtype: of the elements of the row; float16 also for weights of float32 that it can hold.
    """

    axis: int | None = None
    fill: int = 0
    dtype: np.dtype[Any] = _FLOAT

    def order(self, rank: int) -> list[int]:
        """The axes in the order of the row."""
        rest = list(range(rank))
        return rest if self.axis is None else [*rest[: self.axis], *rest[self.axis + 1 :], self.axis]


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a weight's row and how it is encoded.

    Attributes:
        weight: its name.
        layout: of the weight.
        start: first element.
        stop: after the last.
        scheme: the encoding.
        costs: bytes that each encoding would take.
        dense: bytes of the elements in the file as it was.
        stored: elements that differ from the fill.
    """

    weight: str
    layout: Layout
    start: int
    stop: int
    scheme: Scheme
    costs: Mapping[Scheme, int] = field(compare=False)
    dense: int
    stored: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def nbytes(self) -> int:
        return self.costs[self.scheme]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Pieces that one decoder makes: of one type, one fill and one encoding."""

    scheme: Scheme
    pieces: tuple[Piece, ...]


def laid_out(array: Array, layout: Layout) -> Array:
    """The elements of a weight in the order and type of its row, as unsigned integers. [size]"""
    return bits_of(array.transpose(layout.order(array.ndim)).astype(layout.dtype, copy=False))


def choose_pieces(name: str, array: Array, encoding: str, mode: str) -> list[Piece]:
    """The smallest encoding of a weight, piece by piece; nothing if it takes fewer bytes as it is.

    Args:
        name: of the weight.
        array: its values.
        encoding: ``auto``, or the one to take.
        mode: ``smallest``, or ``fast`` for encodings that are quick to decode, where there is a choice.
    """
    if not array.size:
        return []
    layout = Layout(fill=most_frequent(array), dtype=narrowest(array).dtype)
    options, families = [], _families(encoding, mode)
    plain = tuple(scheme for family in families for scheme in family.schemes(mode))
    if plain:
        options.append(list(_pieces(name, array, layout, plain)))
    for axis, scheme in (found for family in families for found in family.search(array, layout.fill)):
        options.append(list(_pieces(name, array, replace(layout, axis=axis), (scheme,))))
    best = min(options, key=_total, default=[])
    return best if best and _total(best) + SHARE < array.nbytes else []


def _total(pieces: Sequence[Piece]) -> int:
    return sum(piece.nbytes for piece in pieces)


def _families(encoding: str, mode: str) -> list[Family]:
    """The encodings to choose from; none for ``dense``."""
    if encoding == "auto":
        return [entry.value for entry in ENCODINGS.values() if mode in entry.value.auto]
    return [ENCODINGS[encoding].value] if encoding in ENCODINGS else []


def _pieces(name: str, array: Array, layout: Layout, schemes: Sequence[Scheme]) -> Iterator[Piece]:
    row = laid_out(array, layout)
    for start in range(0, row.size, PIECE):
        flat = Flat.of(row[start : start + PIECE].view(layout.dtype), layout.fill)
        costs = {scheme: scheme.nbytes(flat) for scheme in schemes}
        best = min(costs, key=costs.__getitem__)
        if costs.get(Bitmask(), 1 << 62) <= SLOWER * costs[best]:
            best = Bitmask()
        yield Piece(name, layout, start, start + flat.size, best, costs, flat.size * array.itemsize, flat.stored)


def affordable(pieces: Sequence[Piece], elements: int) -> list[Piece]:
    """The pieces of the weights that save most for each element decoded, as far as the budget of the fast mode goes.

    Args:
        pieces: of all weights.
        elements: of all weights, encoded or not.
    """
    weights: dict[str, list[Piece]] = {}
    for piece in pieces:
        weights.setdefault(piece.weight, []).append(piece)
    worth = {name: sum(p.dense - p.nbytes for p in parts) / (1 + sum(p.stored for p in parts)) for name, parts in weights.items()}
    kept, spent, budget = set(), 0, max(BUDGET[0] * elements, BUDGET[1])
    for name in sorted(weights, key=worth.__getitem__, reverse=True):
        stored = sum(piece.stored for piece in weights[name])
        if spent + stored <= budget:
            kept.add(name)
            spent += stored
    return [piece for piece in pieces if piece.weight in kept]


def bundles(pieces: Sequence[Piece], mode: str) -> list[Bundle]:
    """Share decoders among small pieces, so that few are needed; a weight that does not pay for its decoder is in none.

    Args:
        pieces: of all weights.
        mode: as in `choose_pieces`.
    """
    found = [Bundle(piece.scheme, (piece,)) for piece in pieces if piece.nbytes >= APART[mode] or piece.start]
    alone = {bundle.pieces[0].weight for bundle in found}
    kinds: dict[tuple[np.dtype[Any], int], list[Piece]] = {}
    for piece in pieces:
        if piece.weight in alone:
            if piece.nbytes < APART[mode] and not piece.start:
                found.append(Bundle(piece.scheme, (piece,)))
        else:
            kinds.setdefault((piece.layout.dtype, piece.layout.fill), []).append(piece)
    for members in kinds.values():
        for scheme, sharing in _shared(members).items():
            found += [Bundle(scheme, tuple(part)) for part in _parts(sharing)]
    return found


def _shared(pieces: Sequence[Piece]) -> dict[Scheme, list[Piece]]:
    """The pieces by encoding, when each encoding in use costs a decoder.

    Facility location, greedily: of all encodings those are given up, one after the other, without which it costs least.
    """
    used = list(dict.fromkeys(scheme for piece in pieces for scheme in piece.costs))
    never = max(piece.dense for piece in pieces) * len(pieces)
    costs = np.array([[piece.costs.get(scheme, never) + SHARE for scheme in used] for piece in pieces])
    costs = np.column_stack([costs, [piece.dense for piece in pieces]])  # the last column: as it is
    nodes = np.array([*(scheme.nodes for scheme in used), 0])
    open_ = list(range(len(nodes)))

    def cost(chosen: Sequence[int]) -> int:
        return int(costs[:, chosen].min(axis=1).sum() + nodes[chosen].sum())

    while len(open_) > 1:
        rest = min(([at for at in open_ if at != gone] for gone in open_[:-1]), key=cost)
        if cost(rest) > cost(open_):
            break
        open_ = rest
    found: dict[Scheme, list[Piece]] = {}
    for piece, at in zip(pieces, np.array(open_)[costs[:, open_].argmin(axis=1)], strict=True):
        if at < len(used):
            found.setdefault(used[at], []).append(replace(piece, scheme=used[at]))
    return found


def _parts(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces in parts that one decoder holds in memory."""
    part: list[Piece] = []
    size = 0
    for piece in pieces:
        if part and size + piece.size > PIECE:
            yield part
            part, size = [], 0
        part.append(piece)
        size += piece.size
    if part:
        yield part
