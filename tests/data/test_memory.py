from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data.test_batching import value
from onnxprune.data.memory import repeatable
from onnxprune.data.samples import open_samples
from onnxprune.errors import OptionError

X = np.arange(15, dtype=np.float32).reshape(5, 3)
ONE = [value("x", "N", 3)]
TWO = [value("a", "N", 3), value("b", "N", 3)]


class Rows:
    """A data set of records, of which the model takes a part: `datasets.Dataset` has this form."""

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Any:
        for at, row in enumerate(X.tolist()):
            yield {"x": row, "label": at, "text": f"row {at}", "ragged": [[1], [2, 3]]}


def loader(*arrays: Any, **options: Any) -> Any:
    data = pytest.importorskip("torch.utils.data", reason="needs PyTorch")
    import torch

    return data.DataLoader(data.TensorDataset(*map(torch.as_tensor, arrays)), batch_size=2, **options)


def tensor() -> Any:
    return pytest.importorskip("torch", reason="needs PyTorch").as_tensor(X)


@pytest.mark.parametrize(
    ("make", "labelled"),
    [
        (lambda: X, False),
        (X.tolist, False),
        (tensor, False),
        (lambda: {"x": X.tolist(), "label": range(5), "other": "text"}, True),
        (lambda: (X,), False),
        (lambda: (X, range(5)), True),
        (lambda: ({"x": X}, range(5)), True),
        (lambda: list(X), False),
        (lambda: list(zip(X, range(5), strict=True)), True),
        (lambda: [(row, at) for at, row in enumerate(X.tolist())], True),
        (lambda: iter(X), False),
        (lambda: (row for row in X), False),
        (lambda: (row for row in X.tolist()), False),
        (Rows, True),
        (lambda: loader(X), False),
        (lambda: loader(X, np.arange(5)), True),
    ],
)
def test_forms(make: Any, labelled: bool) -> None:
    samples = open_samples(make(), ONE)
    assert samples.labelled == labelled
    for _ in range(2):
        found = list(samples.batches(2))
        assert [batch.size for batch in found] == [2, 2, 1]
        np.testing.assert_array_equal(np.concatenate([batch.feeds["x"] for batch in found]), X)
        if labelled:
            assert np.concatenate([batch.labels for batch in found if batch.labels is not None]).tolist() == list(range(5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: (X, -X),
        lambda: (X, -X, range(5)),
        lambda: [(X[:2], -X[:2]), (X[2:], -X[2:])],
        lambda: loader(X, -X),
        lambda: loader(X, -X, np.arange(5)),
    ],
)
def test_several_inputs_in_their_order(make: Any) -> None:
    batch = next(open_samples(make(), TWO).batches(5))
    np.testing.assert_array_equal(batch.feeds["a"], X)
    np.testing.assert_array_equal(batch.feeds["b"], -X)


def test_what_another_pass_may_change_is_known() -> None:
    assert open_samples(loader(X, shuffle=True), ONE).fresh
    assert not open_samples(list(X), ONE).fresh
    assert not open_samples(iter(X), ONE).fresh


def test_a_buffer_may_be_used_again() -> None:
    def rows() -> Any:
        buffer = np.empty(3, np.float32)
        for row in X:
            buffer[:] = row
            yield buffer

    class Data:
        def __iter__(self) -> Any:
            return rows()

    np.testing.assert_array_equal(next(open_samples(Data(), ONE).batches(5)).feeds["x"], X)


def test_iterators_are_kept() -> None:
    assert repeatable(iter("ab")) == ["a", "b"]
    assert repeatable(X) is X


@pytest.mark.parametrize(
    ("source", "inputs", "words"),
    [
        (3, ONE, "samples: of type int: give an array, arrays by input name, a pair"),
        (None, ONE, "samples: of type NoneType: give an array"),
        ((), ONE, "samples: is of 0 parts: give one array and maybe labels"),
        ([], ONE, "samples: has no samples"),
        ((X, X, X), ONE, "samples: is of 3 parts: give one array and maybe labels"),
        ((X,), TWO, "samples: is of 1 parts: give 2 arrays, for a, b, and maybe labels"),
        ([(X, X, X, X)], TWO, "samples, item 0: is of 4 parts: give 2 arrays"),
        ([[[1, 2], [3]]], ONE, "samples: cannot be made an array: "),
        ({"y": X, "z": X}, ONE, "samples: has no array for input 'x'; it has y, z"),
        ({"x": X[:, :2]}, ONE, r"samples: array 'x' has shape \[5, 2\]"),
    ],
)
def test_what_is_not_samples(source: Any, inputs: Any, words: str) -> None:
    with pytest.raises(OptionError, match=f"^{words}"):
        open_samples(source, inputs)
