"""Small models that the campaign of `fuzz` starts from: what the commands look into, in a few nodes each."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = ["seeds"]

TEXTS = {
    "conv": "(float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) [8, 3, 3, 3 a; 8 ab; 4, 8, 1, 1 b] "
    "{ h = Conv <pads = [1, 1, 1, 1]> (x, a, ab) r = Relu (h) y = Conv (r, b) }",
    "residual": "(float[n, 4, 6, 6] x) => (float[n, 5] y) [8, 4, 1, 1 a; 8 s; 8 o; 8 m; 8, 8, 3, 3 b; 8, 5 w; 5 c] "
    "{ h = Conv (x, a) v = Abs (o) n0 = BatchNormalization (h, s, o, m, v) r = Relu (n0) "
    "k = Conv <pads = [1, 1, 1, 1]> (r, b) t = Add (k, r) g = GlobalAveragePool (t) "
    "f = Flatten <axis = 1> (g) y = Gemm (f, w, c) }",
    "depthwise": "(float[n, 4, 8, 8] x) => (float[n, 6, 3, 3] y) [8, 4, 1, 1 a; 8, 1, 3, 3 d; 6, 8, 1, 1 b] "
    "{ h = Conv (x, a) r = Clip (h) k = Conv <group = 8, strides = [2, 2]> (r, d) q = HardSwish (k) y = Conv (q, b) }",
    "mlp": "(float[n, 6] x) => (float[n, 3] y) [6, 8 a; 8 b; 8, 8 c; 8, 3 d] "
    "{ h = MatMul (x, a) i = Add (h, b) r = Tanh (i) "
    "k = Gemm <alpha = 0.5> (r, c) e = Erf (k) z = Mul (e, k) y = MatMul (z, d) }",
    "attention": "(float[n, 5, 8] x) => (float[n, 5, 8] y) [8, 8 q; 8, 8 k; 8, 8 v; 8, 8 o] "
    "<int64[4] s = {0, 0, 2, 4}, int64[3] t = {0, 0, 8}> "
    "{ a = MatMul (x, q) b = MatMul (x, k) c = MatMul (x, v) ar = Reshape (a, s) br = Reshape (b, s) cr = Reshape (c, s) "
    "at = Transpose <perm = [0, 2, 1, 3]> (ar) "
    "bt = Transpose <perm = [0, 2, 3, 1]> (br) ct = Transpose <perm = [0, 2, 1, 3]> (cr) "
    "l = MatMul (at, bt) p = Softmax <axis = -1> (l) m = MatMul (p, ct) mt = Transpose <perm = [0, 2, 1, 3]> (m) "
    "mr = Reshape (mt, t) y = MatMul (mr, o) }",
    "layout": "(float[n, 4, 8, 8] x) => (float[n, 6, 10, 10] y) [8, 4, 1, 1 a; 6, 8, 1, 1 b] "
    "<int64[2] p = {4, 4}, int64[8] d = {0, 0, 1, 1, 0, 0, 1, 1}, int64[1] f = {0}, int64[1] e = {4}, int64[1] ax = {1}> "
    "{ h = Conv (x, a) u, v = Split <axis = 1> (h, p) s = Sigmoid (u) m = Mul (s, v) w = Slice (h, f, e, ax) "
    "c = Concat <axis = 1> (m, w) q = Pad (c, d) y = Conv (q, b) }",
    "resize": "(float[n, 3, 4, 4] x) => (float[n, 2, k, l] y) [8, 3, 3, 3 a; 8, 4, 2, 2 t; 2, 4, 1, 1 b] "
    "<float[4] s = {1, 1, 2, 2}> "
    '{ h = Conv <auto_pad = "SAME_UPPER"> (x, a) r = LeakyRelu (h) c = ConvTranspose <strides = [2, 2]> (r, t) '
    'm = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c) z = Resize <mode = "nearest"> (m, , s) y = Conv (z, b) }',
    "sizes": "(float[n, 4, h, w] x) => (float[n, k] y) [8, 4, 3, 3 a] <int64[1] i = {0}, int64[1] j = {-1}> "
    "{ c = Conv (x, a) r = Relu (c) s = Shape (r) g = Gather <axis = 0> (s, i) t = Concat <axis = 0> (g, j) y = Reshape (r, t) }",
    "lstm": "(float[t, n, 4] x) => (float[t, n, 3] y) [1, 24, 4 w; 1, 24, 6 r; 6, 3 o] <int64[1] ax = {1}> "
    "{ h = LSTM <hidden_size = 6> (x, w, r) s = Squeeze (h, ax) y = MatMul (s, o) }",
    "branches": "(float[n, 4] x) => (float[n, 3] y) [4, 8 a; 8, 3 b] <bool c = {1}, int64 k = {3}> "
    "{ h = MatMul (x, a) r = If (c) <then_branch = t () => (float[n, 8] u) { u = Relu (h) }, "
    "else_branch = e () => (float[n, 8] v) { v = Neg (h) }> "
    "l = Loop (k, , r) <body = b (int64 i, bool go, float[n, 8] p) => (bool q, float[n, 8] o) { q = Identity (go) o = Abs (p) }> "
    "y = MatMul (l, b) }",
    "quantised": "(float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) [4, 8, 1, 1 b; 8, 3, 1, 1 f] "
    "<float s = {0.05}, int8 z = {0}, float g = {0.01}> "
    "{ a = QuantizeLinear (f, g, z) q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) w = DequantizeLinear (a, g, z) "
    "h = Conv (d, w) r = Relu (h) y = Conv (r, b) }",
    "made": "(float[n, 4] x) => (float[n, 3] y) [8, 3 b] <int64[2] d = {4, 8}, int64 zero = {0}, int64 one = {1}, int64 m = {8}> "
    "{ c = ConstantOfShape (d) r = Range (zero, m, one) f = Cast <to = 1> (r) w = Add (c, f) h = MatMul (x, w) "
    "k = Constant <value_float = 0.5> () t = Mul (h, k) v = Relu (t) y = MatMul (v, b) }",
}
"""Inputs and outputs; floating-point weights, as sizes and name; other constants; nodes."""


def seeds() -> dict[str, ModelProto]:
    """The models by name; those with a sparse initializer and with a function besides."""
    rng = np.random.default_rng(0)
    made = {name: _parsed(text, rng) for name, text in TEXTS.items()}
    made["sparse"] = _sparse(made["mlp"])
    made["function"] = _function(made["mlp"])
    return made


def _parsed(text: str, rng: np.random.Generator) -> ModelProto:
    signature, _, rest = text.partition(") [")
    weights, _, body = rest.partition("] ")
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> net {signature}) {body}')
    for weight in weights.split(";"):
        *sizes, last = weight.replace(",", " ").split()
        shape = [int(size) for size in sizes]
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), last))
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    return model


def _sparse(model: ModelProto) -> ModelProto:
    """The model with its first weight as a sparse initializer."""
    made = ModelProto()
    made.CopyFrom(model)
    tensor = made.graph.initializer[0]
    array = numpy_helper.to_array(tensor) * (np.arange(48).reshape(6, 8) % 3 == 0)
    where = np.flatnonzero(array).astype(np.int64)
    values = numpy_helper.from_array(array.reshape(-1)[where], tensor.name)
    made.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=values, indices=numpy_helper.from_array(where, "places"), dims=array.shape)
    )
    del made.graph.initializer[0]
    return made


def _function(model: ModelProto) -> ModelProto:
    """The model with one node as a call of a function."""
    made = ModelProto()
    made.CopyFrom(model)
    opsets = [helper.make_opsetid("", 18)]
    body = [helper.make_node("Sigmoid", ["u"], ["s"]), helper.make_node("Mul", ["u", "s"], ["v"])]
    made.functions.append(helper.make_function("local", "Swish", ["u"], ["v"], body, opsets))
    made.opset_import.add(domain="local", version=1)
    node = next(node for node in made.graph.node if node.op_type == "Tanh")
    node.op_type, node.domain = "Swish", "local"
    return made


def outside(model: ModelProto) -> bytes:
    """Move every initializer of a model to external data in ``w.bin``; returns what is in that file."""
    data = b""
    for tensor in model.graph.initializer:
        raw = numpy_helper.to_array(tensor).tobytes()
        for field in ("raw_data", "float_data", "int64_data", "int32_data"):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", str(len(data))), ("length", str(len(raw)))):
            tensor.external_data.add(key=key, value=value)
        data += raw
    return data
