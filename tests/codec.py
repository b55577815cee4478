"""Round trips through decoders, for tests: a chain for one row, decoded by our own code, the standard's, and ONNX Runtime."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import onnxruntime as ort
from hypothesis.extra import numpy as arrays
from onnx import ModelProto, TensorProto, helper, parser

from onnxprune.ir.model import Model
from onnxprune.sparse.encoding.choose import Scheme
from onnxprune.sparse.encoding.decoder import Chain
from onnxprune.sparse.encoding.flat import Flat, bits_of
from onnxprune.sparse.encoding.recognize import Decoders

Array = np.ndarray[Any, np.dtype[Any]]

BFLOAT16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
DTYPES = [np.dtype(kind) for kind in ("f2", "f4", "f8", "i1", "u1")] + [BFLOAT16]


def same(one: Array, other: Array) -> bool:
    """Whether two arrays are the same bit for bit."""
    return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(bits_of(one), bits_of(other))


@st.composite
def sparse(draw: st.DrawFn, *, least: int = 0, rank: int = 5) -> Array:
    """Weights of any type and shape, empty ones too, with no zeros, few, many, or nothing else; zeros in runs or scattered."""
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=rank, min_side=least, max_side=9))
    size = math.prod(shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(DTYPES))
    array = rng.integers(0, 256, size * dtype.itemsize, np.uint8).view(dtype)  # NaN, infinities and all
    if dtype == np.float32 and draw(st.booleans()):
        array = rng.integers(0, 1 << 16, size, np.uint16).view(np.float16).astype(dtype)  # numbers that float16 has
    mask = rng.random(size) < draw(st.sampled_from([0, 0.02, 0.1, 0.3, 0.5, 0.8, 1]))
    if draw(st.booleans()):
        mask = np.sort(mask)[::-1]
    return np.where(mask, array, np.zeros(1, dtype)).reshape(shape)


def empty(opset: int = 13, kind: str = "float") -> Model:
    """A model that returns ``w``, and has no node yet that makes it."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({kind}[N] x) => ({kind}[N] w) {{ w = Identity(x) }}'
    model = Model.of(parser.parse_model(text))
    del model.graph.input[:], model.graph.node[:]
    return model


def chain_of(scheme: Scheme, flat: Flat, opset: int = 13) -> Model:
    """A model whose only constant is made by a decoder and returned."""
    model = empty(opset)
    chain = Chain(model)
    row = scheme.write(chain, flat)
    chain.reshaped(row, -1)
    chain.finish("w")
    model.graph.node.extend(chain.nodes)
    model.weights |= chain.weights
    model.graph.output[0].type.tensor_type.elem_type = flat.dtype
    return model


def decoded(scheme: Scheme, flat: Flat, opset: int = 13) -> Array:
    """What our own decoder makes of it."""
    return Decoders(chain_of(scheme, flat, opset)).weights["w"].array()


def by_reference(model: ModelProto) -> Array:
    """What the standard's reference evaluator makes of it."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):  # theirs is built on np.choose and fails on more than 64 elements
        def _run(self, data: Array, indices: Array, axis: int = 0) -> tuple[Array]:
            return (np.take_along_axis(data, indices, axis),)

    results: Any = ReferenceEvaluator(model, new_ops=[GatherElements]).run(None, {})
    return np.asarray(results[0])


def by_runtime(model: ModelProto, level: Any = ort.GraphOptimizationLevel.ORT_DISABLE_ALL) -> Array:
    """What ONNX Runtime makes of it."""
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    return np.asarray(ort.InferenceSession(model.SerializeToString(), options).run(None, {})[0])


def check(scheme: Scheme, array: Array, *, opset: int = 13) -> None:
    """The decoder makes the array bit for bit: by our own code, by the reference, and by ONNX Runtime."""
    flat = Flat.of(array)
    model = chain_of(scheme, flat, opset)
    assert same(Decoders(model).weights["w"].array(), np.ascontiguousarray(array).reshape(-1))
    proto = model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    if array.dtype != BFLOAT16:  # neither gives Python arrays of it
        assert same(by_reference(proto), array.reshape(-1))
        assert same(by_runtime(proto), array.reshape(-1))


def planted(shape: tuple[int, ...], density: float, dtype: Any = np.float32, seed: int = 0) -> Array:
    """Normal weights, all but some of them zero."""
    rng = np.random.default_rng(seed)
    array = (rng.standard_normal(shape) * 40).astype(dtype)
    array[array == 0] = 1
    array[rng.random(shape) >= density] = 0
    return array
