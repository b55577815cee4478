"""Where convolutions read: ONNX Runtime's results are the products of what the index map gathers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnxprune.ir.node import NodeView
from onnxprune.linear.im2col import Geometry
from onnxprune.runtime import session


def gathered(op: str, size: list[int], kernel: list[int], attributes: dict[str, Any]) -> tuple[Any, Any]:
    """The output of a convolution with one channel, by the index map and by ONNX Runtime."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 1, *size), np.float32), rng.standard_normal((1, 1, *kernel), np.float32)
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    geometry = Geometry.of(NodeView(node, {"x": x.shape, "w": w.shape}, {}, {}, 18), size, kernel)
    flat = np.append(x.reshape(-1), 0)
    taps = geometry.taps(np.arange(math.prod(geometry.out)))
    assert taps.shape == (math.prod(geometry.out), math.prod(kernel))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xwy"]
    graph = helper.make_graph([node], "g", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (expected,) = session.inference_session(model).run(None, {"x": x, "w": w})
    return (flat[taps] @ w.reshape(-1)).reshape(1, 1, *geometry.out), expected


def each(low: int, high: int, dims: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=dims, max_size=dims)


@given(st.data())
def test_a_convolution(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    kernel, strides, dilations = (data.draw(each(1, most, dims)) for most in (3, 3, 2))
    attributes: dict[str, Any] = {"strides": strides}
    mode = data.draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if not mode.startswith("SAME"):  # ONNX Runtime has no dilation there
        attributes["dilations"] = dilations
    attributes |= {"pads": data.draw(each(0, 2, 2 * dims))} if mode == "NOTSET" else {"auto_pad": mode}
    size = [data.draw(st.integers(5, 7)) for _ in range(dims)]
    got, expected = gathered("Conv", size, kernel, attributes)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@given(st.data())
def test_a_transposed_convolution(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    kernel, strides, dilations = (data.draw(each(1, most, dims)) for most in (3, 3, 2))
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations}
    size = data.draw(each(3, 4, dims))
    whole = [s * (n - 1) + (k - 1) * d + 1 for n, k, s, d in zip(size, kernel, strides, dilations, strict=True)]
    match data.draw(st.sampled_from(["pads", "VALID", "shape", "SAME_UPPER", "SAME_LOWER"])):
        case "pads":
            extra = [data.draw(st.integers(0, stride - 1)) for stride in strides]
            attributes |= {"pads": data.draw(each(0, 1, 2 * dims)), "output_padding": extra}
        case "shape":
            attributes["output_shape"] = [data.draw(st.integers(max(1, full - 2), full)) for full in whole]
        case mode:
            attributes["auto_pad"] = mode
    got, expected = gathered("ConvTranspose", size, kernel, attributes)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_some_places_are_rows_of_all() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    geometry = Geometry.of(NodeView(node, {}, {}, {}, 18), [4, 5], [3, 3])
    places = np.array([0, 7, 19])
    np.testing.assert_array_equal(geometry.taps(places), geometry.taps(np.arange(20))[places])


def test_padding_reads_behind_the_end() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 0])
    taps = Geometry.of(NodeView(node, {}, {}, {}, 18), [3], [2]).taps(np.arange(3))
    assert taps.tolist() == [[3, 0], [0, 1], [1, 2]]
