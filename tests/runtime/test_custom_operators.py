"""Libraries of custom operators: sessions have them as long as the context lasts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxprune.errors import ModelError, OptionError
from onnxprune.runtime.custom_operators import custom_operators, libraries
from onnxprune.runtime.session import inference_session


def foo() -> ModelProto:
    floats = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", floats, ["N", 3, 2]), helper.make_tensor_value_info("slope", floats, [3])]
    node = helper.make_node("Foo", ["x", "slope"], ["y"], domain="my.domain")
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", floats, ["N", 3, 2])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("my.domain", 1)], ir_version=10)


def test_sessions_have_the_operators_within_the_context(foo_library: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 2), np.float32)
    slope = np.array([1, -2, 3], np.float32)
    with custom_operators(foo_library), custom_operators(str(foo_library)):
        assert libraries() == (str(foo_library),)
        (y,) = inference_session(foo()).run(None, {"x": x, "slope": slope})
    np.testing.assert_allclose(y, slope[:, None] * x / (1 + np.abs(x)), rtol=1e-6)
    assert libraries() == ()
    with pytest.raises(ModelError, match="Foo"):
        inference_session(foo())


def test_a_file_that_is_no_library_is_named(foo_library: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    absent = tmp_path / "absent.so"
    for files, says in (([absent], "there is no such file$"), ([foo_library, text], "ONNX Runtime does not load it")):
        with pytest.raises(OptionError, match=f"^--custom-ops {files[-1]}: {says}"), custom_operators(*files):
            pass
        assert libraries() == ()
