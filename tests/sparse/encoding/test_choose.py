"""The smallest encoding of each weight."""

from __future__ import annotations

import numpy as np
import pytest

from codec import planted
from onnxprune.errors import OptionError
from onnxprune.options.sparsify import EncodeRecipe
from onnxprune.sparse.encoding.bitmask import Bitmask
from onnxprune.sparse.encoding.choose import (
    PIECE,
    Bundle,
    Layout,
    Piece,
    affordable,
    bundles,
    choose_pieces,
    laid_out,
)
from onnxprune.sparse.encoding.delta import Delta
from onnxprune.sparse.encoding.gaps import Gaps
from onnxprune.sparse.encoding.n_of_m import NM


@pytest.mark.parametrize(
    ("density", "scheme"),
    [(0.5, Bitmask()), (0.3, Bitmask()), (0.26, Gaps(2)), (0.2, Gaps(3)), (0.1, Gaps(4)), (0.05, Gaps(6)), (0.0001, Delta(16))],
)
def test_by_density(density: float, scheme: object) -> None:
    [piece] = choose_pieces("w", planted((1 << 18,), density), "auto", "smallest")
    assert piece.scheme == scheme
    assert piece.nbytes <= 1.01 * min(piece.costs.values())


def test_fast_is_delta() -> None:
    assert {choose_pieces("w", planted((1 << 16,), p), "auto", "fast")[0].scheme for p in (0.5, 0.2, 0.001)} == {
        Delta(8),
        Delta(16),
    }


def test_a_pattern_is_taken_where_it_is_smaller() -> None:
    array = planted((64, 64), 1).reshape(-1, 4)
    np.put_along_axis(array, np.argsort(np.abs(array), axis=1)[:, :2], 0, axis=1)
    array = array.reshape(64, 64)
    assert choose_pieces("w", array, "auto", "smallest")[0].scheme == NM(2, 4)
    [piece] = choose_pieces("w", array.T, "auto", "smallest")
    assert piece.layout == Layout(axis=0)
    np.testing.assert_array_equal(laid_out(array.T, piece.layout), array.reshape(-1).view(np.uint32))


@pytest.mark.parametrize("encoding", ["auto", "bitmask", "delta", "nm"])
@pytest.mark.parametrize("mode", ["smallest", "fast"])
def test_what_does_not_pay_stays(encoding: str, mode: str) -> None:
    for array in (planted((100, 100), 1), planted((3,), 0.1), np.zeros((), np.float32), np.zeros((0, 3), np.float32)):
        assert not choose_pieces("w", array, encoding, mode)


@pytest.mark.parametrize(("encoding", "mode", "word"), [("zip", "fast", "--encoding 'zip'"), ("auto", "slow", "--mode 'slow'")])
def test_bad_names(encoding: str, mode: str, word: str) -> None:
    with pytest.raises(OptionError, match=f"{word}: there are"):
        EncodeRecipe(encoding, mode)


def test_a_large_weight_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.sparse.encoding.choose.PIECE", 1 << 12)
    pieces = choose_pieces("w", planted((10000,), 0.2), "auto", "smallest")
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 4096), (4096, 8192), (8192, 10000)]
    found = bundles(pieces, "smallest")
    assert [bundle.pieces for bundle in sorted(found, key=lambda b: b.pieces[0].start)] == [(piece,) for piece in pieces]
    assert PIECE % 16 == 0, "groups of N:M are never cut"


def small(
    name: str, costs: dict[object, int], dense: int = 1000, fill: int = 0, stored: int = 10, dtype: type = np.float32
) -> Piece:
    layout = Layout(fill=fill, dtype=np.dtype(dtype))
    return Piece(name, layout, 0, 250, min(costs, key=costs.__getitem__), costs, dense, stored)  # type: ignore[arg-type]


def test_few_decoders_are_shared() -> None:
    one, other = Gaps(2), Gaps(3)
    pieces = [small("a", {one: 100, other: 110}, 5000), *(small(f"b{at}", {one: 300, other: 100}, 5000) for at in range(9))]
    [bundle] = bundles(pieces, "smallest")
    assert bundle.scheme == other
    assert [piece.weight for piece in bundle.pieces] == [piece.weight for piece in pieces]
    assert bundle.pieces[0].nbytes == 110


def test_types_and_fills_do_not_share() -> None:
    costs: dict[object, int] = {Delta(8): 10}
    pieces = [small("a", costs, 5000), small("b", costs, 5000, dtype=np.float16), small("c", costs, 5000, fill=7)]
    found = bundles(pieces, "smallest")
    assert sorted(piece.weight for bundle in found for piece in bundle.pieces) == ["a", "b", "c"]
    assert len(found) == 3


def test_a_weight_that_does_not_pay_for_its_decoder_stays() -> None:
    assert bundles([small("a", {Delta(8): 900}, 1050)], "smallest") == []


def test_a_decoder_holds_few_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.sparse.encoding.choose.PIECE", 600)
    pieces = [small(name, {Delta(8): 10}, 5000) for name in "abcde"]
    found: list[Bundle] = bundles(pieces, "smallest")
    assert [len(bundle.pieces) for bundle in found] == [2, 2, 1]


def test_the_fast_mode_decodes_what_saves_most_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.sparse.encoding.choose.BUDGET", (0.2, 0))
    costs: dict[object, int] = {Delta(8): 100}
    pieces = [small("half", costs, stored=500), small("little", costs, stored=20), small("some", costs, stored=150)]
    assert [piece.weight for piece in affordable(pieces, 1000)] == ["little", "some"]
    assert [piece.weight for piece in affordable(pieces, 10000)] == ["half", "little", "some"]
    assert affordable(pieces, 10) == []
    monkeypatch.setattr("onnxprune.sparse.encoding.choose.BUDGET", (0.2, 200))
    assert [piece.weight for piece in affordable(pieces, 10)] == ["little", "some"]
