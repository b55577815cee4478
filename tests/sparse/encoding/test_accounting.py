"""What sparse weights take."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from codec import planted
from onnxprune.sparse.encoding.accounting import Encoded, compressed, entropy_bytes, totals


def test_entropy() -> None:
    assert entropy_bytes(800, 400, 4) == 100 + 1600  # a bit each
    assert entropy_bytes(800, 0, 4) == 0
    assert entropy_bytes(800, 800, 4) == 3200
    assert entropy_bytes(0, 0, 4) == 0
    assert entropy_bytes(8000, 80, 0) == pytest.approx(1000 * (-0.01 * math.log2(0.01) - 0.99 * math.log2(0.99)))


@pytest.mark.parametrize(("kept", "pattern"), [(1, "1:4"), (2, "2:4"), (3, ""), (4, "")])
def test_pattern(kept: int, pattern: str) -> None:
    array = np.tile(np.array([1, 2, 3, 4], np.float32) * (np.arange(4) < kept), (8, 4))
    assert Encoded.of("w", array).pattern == pattern


def test_the_bound_of_a_pattern_is_lower() -> None:
    array = np.tile(np.array([0.1, 0, 0.3, 0], np.float32), (8, 4))
    assert Encoded.of("w", array).bound == pytest.approx(64 * 4 + 32 * math.log2(6) / 8)


def test_a_bound_is_no_lower_than_what_must_be_stored() -> None:
    """Nearly every weight has a pattern such as 15:16, which says little of it."""
    array = planted((64, 64), 0.2)
    row = Encoded.of("w", array)
    assert row.bound == entropy_bytes(array.size, int(np.count_nonzero(array)), 4)


def test_totals() -> None:
    rows = [Encoded.of("a", np.zeros((2, 4), np.float32)), Encoded.of("b", np.ones((2, 4), np.float16))]
    found = totals(rows)
    assert (found["elements"], found["sparsity"], found["dense_bytes"], found["bound_bytes"]) == (16, 0.5, 48, 16)
    assert [row["name"] for row in found["weights"]] == ["a", "b"]
    assert totals([])["sparsity"] == 0


def test_empty_weights_count_for_nothing() -> None:
    row = Encoded.of("w", np.zeros((0, 4), np.float32))
    assert (row.sparsity, row.dense, row.bound) == (0, 0, 0)


def test_files_are_packed(tmp_path: Path) -> None:
    data = [planted((1000,), 0.2, seed=seed).tobytes() for seed in range(2)]
    paths = [tmp_path / str(number) for number in range(2)]
    for path, content in zip(paths, data, strict=True):
        path.write_bytes(content)
    found = compressed(paths)
    assert found["gzip"] == pytest.approx(len(gzip.compress(b"".join(data), 6)), abs=16)
    assert 0 < found["zstd"] < 8000
