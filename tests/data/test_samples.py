from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, ValueInfoProto
from PIL import Image

from data.test_batching import unknown, value
from data.test_sources import MODULE
from nets import parse
from onnxprune.data.samples import Batch, Samples, held_out, in_multiples, noise_samples, open_samples, optional_samples
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array

X = value("x", "N", 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (11, 3, 4, 4), np.uint8)


def joined(samples: Samples, size: int = 4) -> tuple[list[int], Array, Any]:
    """Sizes of the batches, the only input, the labels."""
    found = list(samples.batches(size))
    labels = [batch.labels for batch in found if batch.labels is not None]
    x = np.concatenate([next(iter(batch.feeds.values())) for batch in found])
    return [batch.size for batch in found], x, np.concatenate(labels) if labels else None


# The same samples in every form


def as_mapping(folder: Path, x: Array, labels: Array, cut: int) -> object:
    return {"x": x, "label": labels}


def as_npz(folder: Path, x: Array, labels: Array, cut: int) -> object:
    np.savez(folder / "a.npz", x=x, labels=labels)
    return folder / "a.npz"


def as_compressed_npz(folder: Path, x: Array, labels: Array, cut: int) -> object:
    np.savez_compressed(folder / "a.npz", anything=np.asfortranarray(x), label=labels)
    return str(folder / "a.npz")


def as_npy(folder: Path, x: Array, labels: Array, cut: int) -> object:
    np.save(folder / "a.npy", x)
    return folder / "a.npy"


def as_folder_of_batches(folder: Path, x: Array, labels: Array, cut: int) -> object:
    for start in range(0, len(x), cut):
        np.savez(folder / f"input{start}.npz", x=x[start : start + cut], label=labels[start : start + cut])
    return folder


def as_folder_of_samples(folder: Path, x: Array, labels: Array, cut: int) -> object:
    for number, (one, label) in enumerate(zip(x, labels, strict=True)):
        np.savez_compressed(folder / f"{number}.npz", x=one, label=label)
    return folder


def as_images(folder: Path, x: Array, labels: Array, cut: int) -> object:
    for number, one in enumerate(x):
        Image.fromarray(one.transpose(1, 2, 0)).save(folder / f"{number}.png")
    return folder


class Own(Samples):
    """Somebody's own, in batches of its own."""

    source, labelled, count = "own", True, None

    def __init__(self, x: Array, labels: Array, cut: int) -> None:
        self.x, self.labels, self.cut = x, labels, cut

    def batches(self, size: int = 16) -> Iterator[Batch]:
        for start in range(0, len(self.x), self.cut):
            part = slice(start, start + self.cut)
            yield Batch({"x": self.x[part]}, self.labels[part], len(self.x[part]))


def as_own(folder: Path, x: Array, labels: Array, cut: int) -> object:
    return Own(x, labels, cut)


def as_pair(folder: Path, x: Array, labels: Array, cut: int) -> object:
    return x, labels


def as_generator(folder: Path, x: Array, labels: Array, cut: int) -> object:
    return ({"x": x[start : start + cut], "labels": labels[start : start + cut]} for start in range(0, len(x), cut))


FORMS = [
    as_mapping,
    as_pair,
    as_generator,
    as_npz,
    as_compressed_npz,
    as_npy,
    as_folder_of_batches,
    as_folder_of_samples,
    as_images,
    as_own,
]


@pytest.mark.parametrize("form", FORMS)
@given(
    count=st.integers(1, 11),
    size=st.integers(1, 5),
    fixed=st.booleans(),
    limit=st.none() | st.integers(1, 12),
    cut=st.integers(1, 4),
    dtype=st.sampled_from([TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT16]),
)
def test_every_form_gives_the_same_batches(
    form: Any, count: int, size: int, fixed: bool, limit: int | None, cut: int, dtype: int
) -> None:
    x, labels = PIXELS[:count], np.arange(count) % 3
    inputs = [value("x", size if fixed else "N", 3, 4, 4, dtype=dtype)]
    with tempfile.TemporaryDirectory() as folder:
        source = form(Path(folder), x, labels, cut)

        def opened() -> Samples:
            return open_samples(source, inputs, preprocess="none" if form is as_images else None, limit=limit)

        taken = min(count, limit or count) if not fixed else min(count, max(limit or count, size))
        whole, rest = divmod(taken, size)
        if fixed and not whole:
            with pytest.raises(OptionError, match=f"{count} samples of 'x', the model takes {size} at a time"):
                list(opened().batches())
            return
        samples = opened()
        sizes = [size] * whole + ([] if fixed or not rest else [rest])
        for _ in range(2):
            got, y, marks = joined(samples, size)
            assert got == sizes
            np.testing.assert_array_equal(y, x[: sum(sizes)])
            assert samples.labelled == (form not in {as_npy, as_images}) == (marks is not None)
            assert marks is None or np.array_equal(marks, labels[: sum(sizes)])
        assert samples.count in {None, sum(sizes)}


def test_a_function_gives_them_too(here: Path) -> None:
    (here / "mine.py").write_text(MODULE)
    samples = open_samples("mine:pairs", [X], limit=2)
    for _ in range(2):
        sizes, x, labels = joined(samples)
        assert (sizes, x[:, 0].tolist(), labels.tolist()) == ([2], [0, 1], [0, 1])
    assert (samples.count, samples.labelled, samples.source) == (None, True, "--calib mine:pairs")


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    x = np.zeros((2000, 3, 32, 32), np.float32)  # 24.6 MB
    np.savez_compressed(tmp_path / "c.npz", x=x)
    np.savez_compressed(tmp_path / "f.npz", x=np.asfortranarray(x))
    np.savez(tmp_path / "a.npz", x=x)
    np.save(tmp_path / "a.npy", x)
    del x
    for name in ("a.npz", "c.npz", "f.npz", "a.npy"):
        tracemalloc.start()
        count = sum(batch.size for batch in open_samples(tmp_path / name, [value("x", "N", 3, 32, 32)]).batches(16))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 2000
        assert peak < 4e6, f"{name}: {peak / 1e6:.1f} MB"  # a batch is 0.2 MB


# What is told and refused


def test_where_samples_come_from(tmp_path: Path) -> None:
    path = as_npz(tmp_path, np.ones((5, 3)), np.arange(5), 1)
    samples = open_samples(str(path), [X], option="--data", limit=3)
    assert (samples.source, samples.count, samples.labelled) == (f"--data {path}", 3, True)
    assert open_samples({"x": np.ones((5, 3))}, [X]).source == "samples"
    assert open_samples({"x": np.ones((5, 3))}, [value("x", 2, 3)], limit=1).count == 2  # at least one batch
    other = open_samples({"x": np.ones((5, 3)), "target": np.zeros(5)}, [X], label="target")
    assert other.labelled


def test_samples_for_the_same_model_are_themselves() -> None:
    samples = open_samples({"x": np.ones((5, 3))}, [X])
    assert open_samples(samples, [X]) is samples
    assert joined(open_samples(samples, [X], limit=2))[0] == [2]
    assert joined(open_samples(samples, [value("x", 4, 3)]))[0] == [4]


def test_samples_of_another_model_are_refused() -> None:
    with pytest.raises(OptionError, match=r"^own: array 'x' has shape \[2, 3\], the input takes \[samples, 4\]"):
        open_samples(Own(np.ones((5, 3)), np.zeros(5), 2), [value("x", "N", 4)])


@pytest.mark.parametrize("arrays", [{}, {"x": np.ones((3, 4))}, {"x": np.ones((0, 3))}, {"x": np.ones((3, 3), complex)}])
def test_the_first_sample_is_looked_at_on_opening(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "0.npz", **arrays)
    for source in (tmp_path / "0.npz", tmp_path):
        with pytest.raises(OptionError, match=f"^--calib {tmp_path}"):
            open_samples(source, [X])


def test_labels_that_some_files_lack(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", x=np.ones((2, 3)), label=[0, 1])
    np.savez(tmp_path / "1.npz", x=np.ones((2, 3)))
    with pytest.raises(OptionError, match=rf"^--calib {tmp_path / '1.npz'}: has no labels, unlike the first samples"):
        list(open_samples(tmp_path, [X]).batches())


def test_a_generator_that_is_spent(here: Path) -> None:
    (here / "mine.py").write_text(f"{MODULE}\nspent = iter([np.ones((2, 3))])\nempty = []\n")
    with pytest.raises(OptionError, match="--calib mine:spent: has no samples the second time: what it yields must begin anew"):
        list(open_samples("mine:spent", [X]).batches())
    with pytest.raises(OptionError, match=r"--calib mine:empty: has no samples$"):
        open_samples("mine:empty", [X])


def test_samples_of_too_many_shapes_for_a_fixed_batch(tmp_path: Path) -> None:
    for number in range(4):
        np.savez(tmp_path / f"{number}.npz", x=np.ones(3 + number))
    with pytest.raises(OptionError, match="has no 2 samples in a row of one shape; the model takes 2 at a time"):
        list(open_samples(tmp_path, [value("x", 2, "T")]).batches())


def test_options_without_sense(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--calib: a limit of 0 samples: take at least 1"):
        open_samples({"x": np.ones((5, 3))}, [X], limit=0)
    path = as_npz(tmp_path, np.ones((5, 3)), np.arange(5), 1)
    with pytest.raises(OptionError, match=rf"--preprocess imagenet: is for a folder of images, which --calib {path} is not"):
        open_samples(str(path), [X], preprocess="imagenet")


def test_too_few_samples_are_seen_on_opening() -> None:
    with pytest.raises(OptionError, match=r"^samples: has 3 samples of 'x', the model takes 4 at a time"):
        open_samples({"x": np.ones((3, 3))}, [value("x", 4, 3)])


# Noise


@pytest.mark.parametrize(
    ("inputs", "count", "sizes"),
    [
        ([X, value("t", "N", dtype=TensorProto.INT64)], 16, [4, 4, 4, 4]),
        ([X], 6, [4, 2]),
        ([value("x", 5, 3)], 16, [5, 5, 5]),
        ([value("x", 32, 3)], 16, [32]),
        ([X, value("scale"), value("table", 7, 2)], 5, [4, 1]),
        ([value("x", "N", 2), value("adjacency", "N", "N")], 3, [1, 1, 1]),
        ([unknown("x")], 4, [4]),
        ([], 2, [1, 1]),
    ],
)
def test_noise(inputs: Sequence[ValueInfoProto], count: int, sizes: list[int]) -> None:
    samples = noise_samples(inputs, count=count)
    found = list(samples.batches(4))
    assert [batch.size for batch in found] == sizes
    assert (samples.count, samples.labelled, samples.source) == (sum(sizes), False, "seeded noise")
    for batch, again in zip(found, samples.batches(4), strict=True):
        assert list(batch.feeds) == [one.name for one in inputs]
        assert all(np.array_equal(array, again.feeds[name]) for name, array in batch.feeds.items())


def test_natural_noise_differs_from_white_for_images_alone() -> None:
    inputs = [value("x", "N", 3, 16, 16), value("t", "N", 5)]
    (white,), (natural,) = (noise_samples(inputs, natural=natural).batches(16) for natural in (False, True))
    np.testing.assert_array_equal(white.feeds["t"], natural.feeds["t"])
    steps = [np.abs(np.diff(batch.feeds["x"])).mean() for batch in (white, natural)]
    assert steps[1] < 0.7 * steps[0]


def test_noise_takes_shapes() -> None:
    (batch,) = noise_samples([value("x", "N", "T")], count=4, shapes={"x": (2, 7)}).batches(4)
    assert batch.feeds["x"].shape == (4, 7)


def test_noise_does_not_depend_on_the_batch() -> None:
    (one,), many = noise_samples([X]).batches(16), list(noise_samples([X]).batches(3))
    np.testing.assert_array_equal(one.feeds["x"], np.concatenate([batch.feeds["x"] for batch in many]))
    assert len(np.unique(one.feeds["x"])) == 48
    (other,) = noise_samples([X], seed=1).batches(16)
    assert not np.array_equal(one.feeds["x"], other.feeds["x"])


# Samples that spoil or show nothing


@pytest.mark.parametrize("value_", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_finite_number_is_refused_with_its_sample(tmp_path: Path, value_: float) -> None:
    x = np.arange(60, dtype=np.float32).reshape(20, 3)
    x[13, 2] = value_
    np.savez(tmp_path / "a.npz", x=x)
    samples = open_samples(tmp_path / "a.npz", [X], option="--eval")
    with pytest.raises(OptionError, match=rf"^--eval .*a\.npz: array 'x' holds {value_} at sample 13: samples must be finite"):
        list(samples.batches(4))


def test_labels_are_finite_numbers() -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    with pytest.raises(OptionError, match="array 'label' holds nan at sample 2"):
        open_samples({"x": x, "label": np.array([0, 1, np.nan, 1])}, [X]).batches(4).__next__()
    with pytest.raises(OptionError, match="labels are numbers"):
        open_samples({"x": x, "label": np.array(list("abcd"))}, [X])


# Values that spoil what is fitted


def test_huge_values_are_refused_other_than_in_masks() -> None:
    x = np.ones((4, 3), np.float32)
    x[2, 1] = 1e16
    with pytest.raises(OptionError, match=r"array 'x' holds 1\.0+\d*e\+16 at sample 2: samples must be numbers below 1e\+15"):
        list(open_samples({"x": x}, [X]).batches())
    for hidden in (-1e9, -3.4e38, -np.inf):
        mask = np.where(np.eye(3) > 0, np.float32(hidden), np.float32(0))
        assert np.array_equal(next(open_samples({"x": mask}, [X]).batches()).feeds["x"], mask)
    with pytest.raises(OptionError, match="holds inf at sample 0"):
        list(open_samples({"x": np.full((2, 3), np.inf, np.float16)}, [X]).batches())


def test_labels_are_no_masks() -> None:
    feeds = {"x": np.ones((2, 3), np.float32), "label": np.array([0, -np.inf])}
    with pytest.raises(OptionError, match="'label' holds -inf at sample 1"):
        list(open_samples(feeds, [X]).batches())


def test_bytes_for_an_input_in_floating_point_are_named() -> None:
    x = np.random.default_rng(0).integers(0, 255, (8, 3)).astype(np.uint8)
    assert "'x' holds bytes, 0 to 255, which the model gets as they are" in optional_samples({"x": x}, [X], "").notice  # type: ignore[union-attr]
    assert optional_samples({"x": x.astype(np.float32)}, [X], "").notice == ""  # type: ignore[union-attr]


RECURRENT = """(float[N,5] x, float[1,M,3] state) => (float[1,N,3] y)
<float[1,12,5] w, float[1,12,3] r, float[1,12] b, int64[1] front = {0}> {
  t = Unsqueeze(x, front)
  s, y, c = LSTM<hidden_size = 3>(t, w, r, "", "", state)
}"""


@pytest.mark.parametrize(("rows", "alone"), [(1, True), (6, False)])
def test_samples_go_one_at_a_time_where_they_share_the_state_of_one(rows: int, alone: bool) -> None:
    model = Model.of(parse(RECURRENT))
    x = np.random.default_rng(0).random((6, 5), np.float32)
    samples = open_samples({"x": x, "state": np.zeros((1, rows, 3), np.float32)}, model.inputs)
    in_multiples(model, samples)
    assert samples.alone == alone
    assert [batch.size for batch in samples.batches(samples.at_a_time(6))] == ([1] * 6 if alone else [6])


# Held out


@pytest.mark.parametrize(("count", "every"), [(10, 4), (64, 4), (65, 4), (9, 3)])
def test_parts_share_no_sample_and_are_all_samples(count: int, every: int) -> None:
    inputs = [value("x", "N", 2)]
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    given = open_samples({"x": x, "label": np.arange(count)}, inputs)
    parts = held_out(given, inputs, every)
    rows = [np.concatenate([batch.feeds["x"] for batch in part.batches(5)]) for part in parts]
    labels = [np.concatenate([batch.labels for batch in part.batches(5) if batch.labels is not None]) for part in parts]
    assert np.array_equal(rows[1], x[every - 1 :: every])
    assert np.array_equal(rows[1], x[[parts[1].place(number) for number in range(len(rows[1]))]])
    assert np.array_equal(labels[1], np.arange(count)[every - 1 :: every])
    assert np.array_equal(np.sort(np.concatenate(labels)), np.arange(count))
    assert np.array_equal(rows[0], x[labels[0]])
    assert all(part.labelled for part in parts)


def test_of_a_fixed_batch_whole_batches_are_held_out() -> None:
    inputs = [value("x", 2, 3)]
    x = np.arange(48, dtype=np.float32).reshape(16, 3)
    others, those = held_out(open_samples({"x": x}, inputs), inputs, 4)
    assert [batch.feeds["x"][0, 0] for batch in those.batches()] == [18.0, 42.0]
    assert sum(batch.size for batch in others.batches()) == 12
    rows = np.concatenate([batch.feeds["x"] for batch in those.batches()])
    assert np.array_equal(x[[those.place(number) for number in range(4)]], rows)


def test_too_few_to_hold_any_out() -> None:
    inputs = [value("x", "N", 2)]
    with pytest.raises(OptionError, match="has 3 samples, of which none can be held out"):
        held_out(open_samples({"x": np.eye(3, 2, dtype=np.float32)}, inputs), inputs, 4)
