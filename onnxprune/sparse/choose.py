"""Which encoding each weight gets: the one that takes the fewest bytes, the nodes of its decoder included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from onnxprune.errors import OptionError
from onnxprune.sparse.bitmask import Bitmask
from onnxprune.sparse.delta import Delta
from onnxprune.sparse.flat import Flat, bits_of, most_frequent
from onnxprune.sparse.gaps import Gaps
from onnxprune.sparse.nm import patterns
from onnxprune.weights import Array

if TYPE_CHECKING:
    from onnxprune.sparse.chain import Chain

__all__ = ["ENCODINGS", "MODES", "Bundle", "Layout", "Piece", "Scheme", "bundles", "choose", "laid_out"]

ENCODINGS = ("auto", "bitmask", "delta", "nm", "coo", "dense")
MODES = ("smallest", "fast")

CHAIN = 1000
"""About the bytes of a decoder's nodes."""
SHARE = 100
"""About the bytes that a weight adds to a decoder that it shares: a node, its shape, a place among the pieces."""
PIECE = 1 << 24
"""Elements decoded in one go: what a decoder holds in memory while it runs, and far below the 1 GiB that is folded."""
BUNDLE = 1 << 22
"""Elements that share a decoder."""


class Scheme(Protocol):
    """An encoding of a row."""

    @property
    def family(self) -> str: ...

    def nbytes(self, flat: Flat) -> int:
        """What is stored for a row, without nodes."""

    def write(self, chain: Chain, flat: Flat) -> str:
        """Append the decoder to a chain; the name of the row it makes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a weight becomes a row.

    Attributes:
        axis: moved to the end first; ``None`` leaves the order.
        fill: bits of the element that is not stored.
    """

    axis: int | None = None
    fill: int = 0

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
    """

    weight: str
    layout: Layout
    start: int
    stop: int
    scheme: Scheme
    costs: Mapping[Scheme, int] = field(compare=False)

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
    """The elements of a weight in the order of its row, as unsigned integers. [size]"""
    return bits_of(array.transpose(layout.order(array.ndim)))


def choose(name: str, array: Array, encoding: str, mode: str) -> list[Piece]:
    """The cheapest encoding of a weight, piece by piece; nothing if it takes fewer bytes as it is.

    Args:
        name: of the weight.
        array: its values.
        encoding: ``auto``, or the one to take.
        mode: ``smallest``, or ``fast`` for encodings that are quick to decode.

    Raises:
        OptionError: no such encoding or mode.
    """
    if encoding not in ENCODINGS or mode not in MODES:
        option, value, known = ("encoding", encoding, ENCODINGS) if encoding not in ENCODINGS else ("mode", mode, MODES)
        raise OptionError(f"--{option} {value!r}: there are {', '.join(known)}")
    if not array.size:
        return []
    layout = Layout(fill=most_frequent(array))
    options = []
    plain = _plain(encoding, mode)
    if plain:
        options.append(list(_pieces(name, array, layout, plain)))
    if encoding in {"auto", "nm"} and mode == "smallest":
        for axis, scheme in patterns(array, layout.fill):
            options.append(list(_pieces(name, array, replace(layout, axis=axis), (scheme,))))
    best = min(options, key=_total, default=[])
    return best if encoding != "auto" or _total(best) + SHARE < array.nbytes else []


def _total(pieces: Sequence[Piece]) -> int:
    return sum(piece.nbytes for piece in pieces) if pieces else 1 << 62


def _plain(encoding: str, mode: str) -> tuple[Scheme, ...]:
    """The encodings to choose from that look at no pattern."""
    quick = (Delta(8), Delta(16))
    packed = tuple(Gaps(width) for width in range(2, 9))
    return {
        ("auto", "smallest"): (Bitmask(), *packed, *quick),
        ("auto", "fast"): quick,
        ("bitmask", mode): (Bitmask(),),
        ("delta", "smallest"): (*packed, *quick),
        ("delta", "fast"): quick,
    }.get((encoding, mode), ())


def _pieces(name: str, array: Array, layout: Layout, schemes: Sequence[Scheme]) -> Iterator[Piece]:
    row = laid_out(array, layout)
    dtype = Flat.of(array.reshape(-1)[:0]).dtype
    for start in range(0, row.size, PIECE):
        flat = Flat(row[start : start + PIECE], dtype, layout.fill)
        costs = {scheme: scheme.nbytes(flat) for scheme in schemes}
        yield Piece(name, layout, start, start + flat.size, min(costs, key=costs.__getitem__), costs)


def bundles(pieces: Sequence[Piece], dtypes: Mapping[str, int], *, fast: bool) -> list[Bundle]:
    """Share decoders among small pieces, and give up encodings that only few bytes speak for.

    Args:
        pieces: of all weights.
        dtypes: of the weights.
        fast: leave all but very small weights alone: cutting a row copies it.
    """
    kinds: dict[tuple[int, int, Scheme], list[Piece]] = {}
    alone = []
    for piece in pieces:
        if piece.nbytes >= (CHAIN * 16 if fast else CHAIN * 400):
            alone.append(Bundle(piece.scheme, (piece,)))
        else:
            kinds.setdefault((dtypes[piece.weight], piece.layout.fill, piece.scheme), []).append(piece)
    _merge(kinds)
    return [*alone, *(Bundle(kind[2], tuple(part)) for kind, members in kinds.items() for part in _parts(members))]


def _merge(kinds: dict[tuple[int, int, Scheme], list[Piece]]) -> None:
    """Move the pieces of a kind to the other kinds where that costs less than a decoder of its own."""
    for kind in sorted(kinds, key=lambda kind: sum(piece.nbytes for piece in kinds[kind])):
        others = [other for other in kinds if other != kind and other[:2] == kind[:2]]
        moves = []
        for piece in kinds[kind]:
            target = min((o for o in others if o[2] in piece.costs), key=lambda other: piece.costs[other[2]], default=None)
            if target is None:
                break
            moves.append((piece, target))
        more = sum(piece.costs[target[2]] - piece.nbytes for piece, target in moves)
        if len(moves) == len(kinds[kind]) and more < CHAIN:
            for piece, target in moves:
                kinds[target].append(replace(piece, scheme=target[2]))
            del kinds[kind]


def _parts(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces in parts that one decoder holds in memory."""
    part: list[Piece] = []
    size = 0
    for piece in pieces:
        if part and size + piece.size > BUNDLE:
            yield part
            part, size = [], 0
        part.append(piece)
        size += piece.size
    if part:
        yield part
