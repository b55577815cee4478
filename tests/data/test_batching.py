"""What a model takes, and how arrays become batches of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, ValueInfoProto, helper

from onnxprune.data.batching import Batch, Held, InputSignature, SampleBlock, Table, assemble, take_samples
from onnxprune.errors import OptionError
from onnxprune.ir.weights import Array

FLOAT = TensorProto.FLOAT


def value(name: str, *shape: int | str | None, dtype: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def unknown(name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, None)


def table(single: bool = False, **arrays: Any) -> Table:
    return Table("there", {name: Held(np.asarray(array)) for name, array in arrays.items()}, single)


def batches(signature: InputSignature, *tables: Table, size: int = 4) -> list[Batch]:
    rows = signature.size or size
    return list(assemble((b for t in tables for b in signature.blocks(t, rows)), rows, signature.size or 1))


def marks(batch: Batch) -> Array:
    assert batch.labels is not None
    return batch.labels


def sizes(found: list[Batch]) -> list[int]:
    return [batch.size for batch in found]


# Which axis is the batch


@pytest.mark.parametrize(
    ("inputs", "batched", "size"),
    [
        ([value("x", "N", 3), value("t", "N")], {"x", "t"}, None),
        ([value("x", "a", 3), value("t", "b")], {"x", "t"}, None),  # exporters name each axis after its input
        ([value("x", None, 3)], {"x"}, None),
        ([unknown("x")], {"x"}, None),
        ([value("x", 4, 3), value("t", 4), value("table", 7, 3)], {"x", "t"}, 4),
        ([value("x", "N", 3), value("scale"), value("table", 7, 3)], {"x"}, None),
        ([value("scale"), value("x", 4, 3)], {"x"}, 4),
        ([value("ids", "N", "T"), value("positions", "T")], {"ids"}, None),
        ([value("x", "N", 3), value("adjacency", "N", "N")], set(), 1),
        ([value("scale")], set(), 1),
        ([], set(), 1),
    ],
)
def test_the_batch_is_the_first_axis(inputs: list[ValueInfoProto], batched: set[str], size: int | None) -> None:
    signature = InputSignature.of(inputs)
    assert ({spec.name for spec in signature.specs if spec.batched}, signature.size) == (batched, size)


def test_an_input_that_is_no_tensor_is_refused() -> None:
    sequence = helper.make_tensor_sequence_value_info("s", FLOAT, None)
    with pytest.raises(OptionError, match="input 's' is not a tensor"):
        InputSignature.of([sequence])


def test_whole_inputs_are_in_every_batch() -> None:
    signature = InputSignature.of([value("x", "N", 3), value("scale"), value("mask", 1, "T")])
    found = batches(signature, table(x=np.ones((6, 3)), scale=2.0, mask=np.ones((1, 5))))
    assert [{name: array.shape for name, array in batch.feeds.items()} for batch in found] == [
        {"x": (4, 3), "scale": (), "mask": (1, 5)},
        {"x": (2, 3), "scale": (), "mask": (1, 5)},
    ]


def test_another_value_of_a_whole_input_begins_a_batch() -> None:
    signature = InputSignature.of([value("x", "N"), value("scale")])
    tables = [table(x=np.zeros(2), scale=scale) for scale in (1.0, 1.0, 1.0, 2.0)]
    found = batches(signature, *tables)
    assert [(batch.size, float(batch.feeds["scale"])) for batch in found] == [(4, 1), (2, 1), (2, 2)]


def test_without_a_batch_a_table_is_a_sample() -> None:
    signature = InputSignature.of([value("x", "N", 2), value("adjacency", "N", "N")])
    found = batches(signature, *(table(x=np.ones((n, 2)), adjacency=np.eye(n), label=n) for n in (3, 5)))
    assert [batch.feeds["adjacency"].shape for batch in found] == [(3, 3), (5, 5)]
    assert [(batch.size, list(marks(batch))) for batch in found] == [(1, [3]), (1, [5])]


# Samples and batches


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7), st.booleans(), st.integers(1, 40))
def test_however_samples_are_cut_the_batches_are_the_same(cuts: list[int], size: int, exact: bool, limit: int) -> None:
    x = np.arange(sum(cuts), dtype=np.float32)
    taken = x[:limit]
    signature = InputSignature.of([value("x", size if exact else "N")])
    starts = np.cumsum([0, *cuts])
    tables = [table(x=x[a:b], labels=x[a:b].astype(int)) for a, b in pairwise(starts)]

    blocks = take_samples((block for t in tables for block in signature.blocks(t, size)), limit)
    found = list(assemble(blocks, size, size if exact else 1))
    whole, rest = divmod(len(taken), size)
    assert sizes(found) == [size] * whole + ([] if exact or not rest else [rest])
    got = np.concatenate([batch.feeds["x"] for batch in found]) if found else x[:0]
    np.testing.assert_array_equal(got, taken[: len(got)])
    assert all(np.array_equal(marks(batch), batch.feeds["x"]) for batch in found)


@pytest.mark.parametrize(("multiple", "expected"), [(1, [8, 3]), (2, [8, 2]), (4, [8]), (8, [8])])
def test_an_incomplete_batch_is_cut_to_a_multiple(multiple: int, expected: list[int]) -> None:
    blocks = InputSignature.of([value("x", "N")]).blocks(table(x=np.arange(11, dtype=np.float32)), 8)
    assert sizes(list(assemble(blocks, 8, multiple))) == expected


def test_samples_of_another_shape_begin_a_batch() -> None:
    tables = [table(single=True, x=np.ones(length)) for length in (5, 5, 5, 5, 5, 7, 7)]
    assert [b.feeds["x"].shape for b in batches(InputSignature.of([value("x", "N", "T")]), *tables)] == [(4, 5), (1, 5), (2, 7)]
    assert [b.feeds["x"].shape for b in batches(InputSignature.of([value("x", 2, "T")]), *tables)] == [(2, 5), (2, 5), (2, 7)]


def test_a_table_may_be_one_sample() -> None:
    signature = InputSignature.of([value("x", "N", 3), value("t", "N")])
    found = batches(signature, *(table(single=True, x=np.full(3, i), t=i, label=label) for i, label in enumerate([7, [8], 9])))
    (batch,) = found
    np.testing.assert_array_equal(batch.feeds["x"], [[0] * 3, [1] * 3, [2] * 3])
    np.testing.assert_array_equal(batch.feeds["t"], [0, 1, 2])
    np.testing.assert_array_equal(marks(batch), [7, 8, 9])


def test_only_as_much_is_read_as_is_taken() -> None:
    read = []

    def blocks() -> Iterator[SampleBlock]:
        for start in range(0, 100, 4):
            read.append(start)
            yield SampleBlock({"x": np.zeros(4)}, {}, None, 4)

    assert sizes(list(assemble(take_samples(blocks(), 10), 4))) == [4, 4, 2]
    assert read == [0, 4, 8]


# Names


def test_the_only_array_needs_no_name() -> None:
    one, two = InputSignature.of([value("x", "N")]), InputSignature.of([value("x", "N"), value("t", "N")])
    assert sizes(batches(one, table(images=np.ones(3), labels=[1, 2, 3]))) == [3]
    with pytest.raises(OptionError, match="there: has no array for input 'x'; it has images, masks"):
        batches(one, table(images=np.ones(3), masks=np.ones(3)))
    with pytest.raises(OptionError, match="no array for input 'x'; it has images"):
        batches(two, table(images=np.ones(3)))


@pytest.mark.parametrize("name", ["label", "labels"])
def test_labels(name: str) -> None:
    signature = InputSignature.of([value("x", "N")])
    labelled = Table("there", {"x": Held(np.ones(6)), name: Held(np.arange(6, dtype=np.uint8))})
    assert signature.labelled(labelled)
    assert not signature.labelled(table(x=np.ones(6)))
    found = batches(signature, labelled)
    assert [(str(marks(batch).dtype), batch.size) for batch in found] == [("int64", 4), ("int64", 2)]
    np.testing.assert_array_equal(np.concatenate([marks(batch) for batch in found]), range(6))


@pytest.mark.parametrize("kind", [">f4", "<f4", ">i2", "<f8"])
def test_labels_have_the_byte_order_of_the_machine(kind: str) -> None:
    (batch,) = batches(InputSignature.of([value("x", "N")]), table(x=np.ones(3), labels=np.arange(3, dtype=kind)))
    assert marks(batch).dtype.isnative
    np.testing.assert_array_equal(marks(batch), range(3))


def test_an_input_named_label_is_an_input() -> None:
    signature = InputSignature.of([value("x", "N"), value("label", "N")])
    (batch,) = batches(signature, table(x=np.ones(2), label=np.zeros(2)))
    assert (set(batch.feeds), batch.labels) == ({"x", "label"}, None)
    assert signature.label_name == "labels"


# Fit


def test_arrays_become_what_the_inputs_take() -> None:
    types = {"x": TensorProto.FLOAT, "t": TensorProto.INT64, "h": TensorProto.BFLOAT16}
    signature = InputSignature.of([value(name, "N", dtype=dtype) for name, dtype in types.items()])
    (batch,) = batches(signature, table(x=np.ones(2), t=np.zeros(2, np.int32), h=np.ones(2, np.float32)))
    assert [str(batch.feeds[name].dtype) for name in "xth"] == ["float32", "int64", "bfloat16"]


def test_an_array_of_the_right_type_is_not_copied() -> None:
    x = np.ones((2, 3), np.float32)
    (batch,) = batches(InputSignature.of([value("x", "N", 3)]), table(x=x))
    assert np.shares_memory(batch.feeds["x"], x)


@pytest.mark.parametrize(
    ("inputs", "arrays", "words"),
    [
        ([value("x", "N", 3)], {"x": np.ones((5, 4))}, r"array 'x' has shape \[5, 4\], the input takes \[samples, 3\]"),
        ([value("x", 2, 3, "T")], {"x": np.ones(3)}, r"has shape \[3\], the input takes \[samples, 3, any\]"),
        ([unknown("x")], {"x": 1.0}, r"has shape \[\], the input takes \[samples, \.\.\.\]"),
        ([value("x", "N"), value("s")], {"x": [1.0], "s": [1.0]}, r"array 's' has shape \[1\], the input takes \[\]"),
        ([value("x", "N"), value("s", 2, 2)], {"x": [1.0], "s": [[1.0]]}, r"'s' has shape \[1, 1\], the input takes \[2, 2\]"),
        ([value("x", "N")], {"x": np.ones(5, complex)}, "array 'x' is of type complex128, the input takes float32"),
        ([value("x", "N", dtype=TensorProto.INT32)], {"x": [1, 2**40]}, "'x' holds 1099511627776, which .* int32, cannot hold"),
        ([value("x", "N", dtype=TensorProto.FLOAT16)], {"x": [1.0, 1e5]}, "'x' holds 100000.0, which .* float16, cannot hold"),
        ([value("x", "N"), value("t", "N")], {"x": [1.0], "t": [1.0, 2]}, "'x' has 1 samples, array 't' has 2: give as many"),
        ([value("x", "N")], {"x": [1.0], "labels": [1, 2]}, "'x' has 1 samples, array 'label' has 2"),
        ([value("x", "N")], {"x": [1.0], "label": 1}, "'x' has 1 samples, array 'label' has 0"),
    ],
)
def test_what_does_not_fit_is_refused(inputs: list[ValueInfoProto], arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=f"^there: .*{words}"):
        batches(InputSignature.of(inputs), table(**arrays))


def test_masks_of_attention_hold_infinities() -> None:
    x: Array = np.array([-np.inf, 0, 0])
    (batch,) = batches(InputSignature.of([value("x", "N", dtype=TensorProto.FLOAT16)]), table(x=x))
    np.testing.assert_array_equal(batch.feeds["x"], x)


@pytest.mark.parametrize("values", [[np.inf, -np.inf, np.nan], [-np.inf, 0.5, 65504], [np.inf, 0], [np.nan, 0], [0, 1, np.nan]])
def test_other_infinities_are_refused(values: list[float]) -> None:
    with pytest.raises(OptionError, match=r"^there: array 'x' holds (nan|-?inf) at sample"):
        batches(InputSignature.of([value("x", "N", dtype=TensorProto.FLOAT16)]), table(x=np.array(values)))


def test_texts() -> None:
    (batch,) = batches(InputSignature.of([value("x", "N", dtype=TensorProto.STRING)]), table(x=["a", "bc"]))
    assert (batch.feeds["x"].dtype, batch.feeds["x"].tolist()) == (np.dtype(object), ["a", "bc"])
