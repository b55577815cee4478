"""Sizes that users and samples give to open axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from nets import parse
from onnxprune.data.samples import open_samples, sized
from onnxprune.errors import OptionError
from onnxprune.ir.model import Model

BODY = "{ y = Relu(x) }"
IMAGE = f"(float[n,3,height,width] x, float[n,tokens] ids) => (float[n,3,height,width] y) {BODY}"


def fixed(*texts: str, model: ModelProto | None = None) -> dict[str, int]:
    return dict(Model.of(model or parse(IMAGE), texts).sizes.fixed)


def test_sizes_of_an_input_and_of_named_dimensions() -> None:
    assert fixed("x=?x3x224x192") == {"height": 224, "width": 192}
    assert fixed("height=224", "ids=1x7") == {"height": 224, "n": 1, "tokens": 7}
    assert fixed() == {}


def test_axes_without_a_name() -> None:
    model = parse("(float[A,4] x) => (float[A,4] y) { y = Relu(x) }")
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    assert fixed("x=5x4", model=model) == {"x.0": 5}
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert fixed("x=5x4", model=model) == {"x.0": 5}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("x=1x4x?x?",), r"--shape x=1x4x\?x\?: axis 1 of input x\[n, 3, height, width\] is 3, not 4"),
        (("x=1x3",), r"gives 2 sizes, and input x\[n, 3, height, width\] has 4 axes"),
        (("depth=3",), r"--shape depth=3: there is no input and no dimension 'depth'; inputs are x\[n, 3, height, width\], ids"),
        (("height=3", "x=?x3x4x?"), r"--shape x=\?x3x4x\?: dimension 'height' is given 3 and 4; it has one size"),
        (("x",), r"--shape 'x': write the sizes of an input, as image=\?x3x224x224"),
        (("x=3x",), "--shape 'x=3x': write"),
        (("height=-1",), "--shape 'height=-1': write"),
    ],
)
def test_what_does_not_fit(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fixed(*texts)


def test_a_name_of_an_input_and_of_a_dimension() -> None:
    model = parse("(float[N,length] x, int64[N] length) => (float[N,length] y) { y = Relu(x) }")
    assert fixed("length=9", model=model) == {"N": 9}
    model = parse("(float[N,length] x, int64[N,2] length) => (float[N,length] y) { y = Relu(x) }")
    assert fixed("length=9", model=model) == {"length": 9}


def test_samples_give_sizes_except_of_the_batch() -> None:
    model = Model.of(parse(IMAGE), ("height=8",))
    found = model.sizes.with_samples({"x": (None, 3, 8, 9), "ids": (None, 7)}, model.inputs, "--calib c.npz")
    assert found.seen == {"height": 8, "width": 9, "tokens": 7}
    with pytest.raises(OptionError, match=r"--calib c.npz: axis 2 of input 'x' has size 9, and --shape gives it 8"):
        model.sizes.with_samples({"x": (None, 3, 9, 9)}, model.inputs, "--calib c.npz")


def test_shapes_are_as_far_as_they_are_known() -> None:
    model = Model.of(parse(IMAGE), ("height=8",))
    assert model.sizes.shapes(model.inputs) == {"x": (-1, -1, 8, -1)}
    found = model.sizes.with_samples({"x": (None, 3, 8, 9), "ids": (None, 7)}, model.inputs, "--calib c.npz")
    assert found.shapes(model.inputs) == {"x": (-1, -1, 8, 9), "ids": (-1, 7)}


def test_copies_keep_their_sizes() -> None:
    model = Model.of(parse(IMAGE), ("height=8",))
    assert model.copy().sizes == model.sizes == Model.of(model).sizes


def test_the_rank_of_an_input_may_be_given() -> None:
    model = parse(f"(float[n] x) => (float[n] y) {BODY}")
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
    assert Model.of(model, ("x=2x?",)).sizes.ranks == {"x": 2}
    assert fixed("x=2x?", model=model) == {"x.0": 2}


ALIKE = "(float[n,3,dynamic,dynamic] x, float[n,dynamic] ids) => (float[n,3,dynamic,dynamic] y) { y = Relu(x) }"
"""Height and width have one name, and so has the length of something else."""


def names(model: Model) -> list[str]:
    return [dim.dim_param for value in (*model.graph.input, *model.graph.output) for dim in value.type.tensor_type.shape.dim]


def test_a_name_that_one_input_has_two_sizes_of_is_none() -> None:
    model = Model.of(parse(ALIKE), ("x=?x3x48x192",))
    assert model.sizes.fixed == {"x.2": 48, "x.3": 192}
    assert names(model) == ["n", "", "", "", "n", "", "n", "", "", ""]
    square = Model.of(parse(ALIKE), ("x=?x3x48x48",))
    assert square.sizes.fixed == {"dynamic": 48}
    with pytest.raises(OptionError, match="dimension 'dynamic' is given 48 and 7; it has one size"):
        Model.of(parse(ALIKE), ("x=?x3x48x48", "ids=?x7"))


def test_samples_show_it_too() -> None:
    feeds = {"x": np.zeros((4, 3, 8, 16), np.float32), "ids": np.zeros((4, 7), np.float32)}
    model = Model.of(parse(ALIKE))
    found = sized(model, open_samples(feeds, model.inputs))
    assert found.sizes.shapes(found.inputs) == {"x": (-1, -1, 8, 16), "ids": (-1, 7)}
    assert names(model) == ["n", "", "dynamic", "dynamic", "n", "dynamic", "n", "", "dynamic", "dynamic"]


def test_a_batch_may_have_the_name_of_everything_else(tmp_path: Path) -> None:
    """Samples show that it is one: there are more of them than a row has numbers."""
    model = Model.of(parse("(float[any,3,any,any] x) => (float[any,3,any,any] y) { y = Relu(x) }"))
    array = np.random.default_rng(0).standard_normal((64, 3, 8, 12)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=array)
    for source in (str(tmp_path / "x.npz"), {"x": array}, iter([array[:32], array[32:]])):
        samples = open_samples(source, model.inputs)
        assert samples.count in {64, None}
        assert [batch.feeds["x"].shape for batch in samples.batches(32)] == [(32, 3, 8, 12)] * 2
        found = sized(model, samples)
        assert found.sizes.shapes(found.inputs) == {"x": (-1, -1, 8, 12)}
        assert open_samples(samples, model.inputs).count in {64, None}
    square = open_samples({"x": array[:8, :, :8, :8]}, model.inputs)
    assert square.count == 1, "eight images of 8 px are one input, as far as anyone can see"


def test_a_question_mark_is_no_name() -> None:
    """As some files of Paddle call what is open."""
    proto = parse(ALIKE)
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_param = "?"
    model = Model.of(proto)
    assert set(names(model)) == {""}
    assert fixed("x=2x3x48x192", model=proto) == {"x.0": 2, "x.2": 48, "x.3": 192}
