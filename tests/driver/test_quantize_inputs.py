"""What `quantize` takes: old files, large ones, any number of samples; and what it refuses, in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import onnxprune
from int8_nets import NET, net, samples, small
from nets import parse
from onnxprune.driver.quantize import quantize
from onnxprune.errors import ModelError, OptionError, TargetError
from onnxprune.ir import files
from onnxprune.ir.model import Model
from onnxprune.options.quantize import QuantRecipe
from onnxprune.runtime.session import Session


def test_an_old_operator_set_is_brought_up_where_that_is_needed() -> None:
    old = NET.replace('"": 17', '"": 11')
    assert small(net(text=old)).compiled.opset == 13
    assert small(net(text=old), per_channel=False).compiled.opset == 11


def test_equal_constants_of_the_oldest_format_are_shared_and_no_inputs() -> None:
    """In that, every constant is an input, too, which ONNX Runtime leaves where it reads another one that is equal."""
    made = "gain = ConstantOfShape <value = float[1] {2}> (sizes) shift = ConstantOfShape (same) a = Conv"
    old = net(text=NET.replace("a = Conv", made))
    del old.graph.initializer[2:4]  # gain and shift
    old.graph.initializer.extend(numpy_helper.from_array(np.array([8]), name) for name in ("sizes", "same"))
    old.graph.input.extend(helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in old.graph.initializer)
    old.ir_version = 3
    check = small(old).report.verification
    assert check is not None
    assert not check.notes


def test_operator_sets_that_are_named_twice_are_read_as_one() -> None:
    twice = net()
    twice.opset_import.append(twice.opset_import[0])
    assert small(twice).report.weights == 4


@pytest.mark.parametrize("count", [24, 300])
@pytest.mark.parametrize(("behind", "size"), [("y = Add (b, table)", 1), ("y = Reshape (b, crops)", 3)])
def test_models_that_are_particular_about_the_number_of_samples(behind: str, size: int, count: int) -> None:
    """One takes a single sample, or as many as its table has rows; the other multiples of three."""
    proto = parse(
        f"""(float[N, 8] x) => (float[M, A, B] y)
        <float[8, 8] w, float[8, 4] v, float[1, 12, 4] table, int64[3] crops = {{-1, 3, 4}}> {{
          a = MatMul (x, w)
          r = Relu (a)
          b = MatMul (r, v)
          {behind}
        }}"""
    )
    rows = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    report = quantize(proto, samples={"x": rows}).report
    assert report.nodes["MatMul"] == 2
    assert report.drift is not None
    assert report.drift.samples % size == 0


def test_a_model_in_several_files_stays_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    onnx.save(net(sparsity=0.5), tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.data")
    monkeypatch.setattr(files, "LIMIT", 1000)
    text = NET.replace("BatchNormalization (a, gain, shift, mean, variance)", "Identity (a)")
    assert small(tmp_path / "net.onnx").report.nodes["Conv"] == 2
    result = small(net(sparsity=0.5, text=text))
    result.save(tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx.data").exists()
    assert Session(Model.of(tmp_path / "int8.onnx")).run(samples())[0].shape == (8, 5)
    with pytest.raises(
        ModelError, match="has operator set 11, and int8 needs 13: export it again with operator set 17, or use --per"
    ):
        small(net(text=text.replace('"": 17', '"": 11')))


def test_what_cannot_be_quantized_is_said() -> None:
    with pytest.raises(OptionError, match="add --calib DATA"):
        quantize(net())
    with pytest.raises(OptionError, match=r"--exclude 'fouth': no node, weight or operator of <model> .*; did you mean 'fourth'"):
        small(net(), exclude=("fouth",))
    with pytest.raises(ModelError, match="computes in int8 already"):
        small(small(net()).model)
    half = onnxprune.ir.model.Model.of(net())
    from onnxprune.ir.precision import retyped

    with pytest.raises(ModelError, match="is in float16, which int8 kernels do not read: quantise the float32 model"):
        small(retyped(half, TensorProto.FLOAT16).to_proto())
    sines = "net (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) { y = Sin(x) }"
    with pytest.raises(TargetError, match="nothing in it can be quantised: ONNX Runtime has no int8 form of it"):
        small(parser.parse_model('<ir_version: 8, opset_import: ["": 17]>' + sines))
    with pytest.raises(TargetError, match="nothing in it can be quantised: excluded: name less with --exclude"):
        small(net(), exclude=("*",))


@pytest.mark.parametrize("layer", [False, True])
def test_layers_in_branches_are_named(layer: bool) -> None:
    """The quantizer does not look into bodies; where there is nothing else, that is why there is no int8."""
    text = """n (float[N, 4, 8, 8] x, bool b) => (float[N, 4, 8, 8] y) {
      y = If (b) <then_branch = t () => (float[N, 4, 8, 8] p) { [inner] p = Conv <pads = [1, 1, 1, 1]> (z, w) },
                  else_branch = e () => (float[N, 4, 8, 8] q) { q = Relu (z) }> }"""
    text = text.replace("{\n      y", "{ z = Conv <pads = [1, 1, 1, 1]> (x, v) y" if layer else "{ z = Identity (x) y", 1)
    proto = parser.parse_model('<ir_version: 8, opset_import: ["": 17]>' + text)
    for name in ("w", "v")[: 1 + layer]:
        proto.graph.initializer.append(numpy_helper.from_array(np.full((4, 4, 3, 3), 0.5, np.float32), name))
    feeds = samples() | {"b": np.array(True)}
    why = "ONNX Runtime's quantizer does not look into branches and loops"
    if layer:
        report = quantize(proto, samples=feeds).report
        assert report.nodes["Conv"] == 1
        assert {"node": "inner", "op": "Conv", "why": why} in [dict(one) for one in report.kept]
    else:
        with pytest.raises(TargetError, match=f"nothing in it can be quantised: {why}"):
            quantize(proto, samples=feeds)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": "mean"}, "--method 'mean': write one of minmax, entropy, percentile"),
        ({"activations": "int4"}, "--activations 'int4': write one of uint8, int8"),
        ({"reduce_range": "maybe"}, "--reduce-range 'maybe': write one of auto, yes, no"),
        ({"percentile": 12}, "--percentile 12: write the share"),
    ],
)
def test_options_that_make_no_sense_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        QuantRecipe(**fields)
