"""The conformance samples: nodes with concrete shapes, at least one for each operator that has a rule.

A sample says nothing about axes; the rule does, and the law checks it. Sizes of one sample differ from each other where they
can, so that a rule that confuses two axes contradicts the shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from onnxprune.ir.weights import Array

__all__ = ["REFUSED", "SAMPLES", "Sample"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One node.

    Attributes:
        op: the operator.
        domain: its operator set.
        opset: the version of the standard operator set.
        inputs: text is data to draw: sizes, and after a colon the kind (``2 3 4``, ``2 3:positive``); an array is a constant;
            ``None`` is absent.
        attrs: attributes.
        outputs: their number.
        note: tells samples of one operator apart.
        refused: for a form that the rule must refuse, words of the refusal.
        weights: inputs that are constants wherever the operator is used, and so always zero at removed positions.
        absent: outputs that are left out.
    """

    op: str
    domain: str
    opset: int
    inputs: tuple[str | Array | None, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    note: str = ""
    refused: str = ""
    weights: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """The operator, a version other than the usual one, and the note."""
        name = f"{self.domain}::{self.op}" if self.domain else self.op
        return name + (f"@{self.opset}" if self.opset != OPSET else "") + (f"-{self.note}" if self.note else "")

    @staticmethod
    def shape(text: str) -> tuple[tuple[int, ...], str]:
        """The sizes and the kind of an input that is drawn."""
        sizes, _, kind = text.partition(":")
        return tuple(map(int, sizes.split())), kind


OPSET = 21


def S(  # noqa: N802
    op: str,
    *inputs: str | Array | None,
    note: str = "",
    outs: int = 1,
    refused: str = "",
    weights: tuple[int, ...] = (),
    absent: tuple[int, ...] = (),
    **attrs: Any,
) -> Sample:
    """A row: ``S("Softmax@11", "2 3 4", axis=1)``; the operator may come with ``domain::`` and ``@opset``."""
    name, _, opset = op.partition("@")
    domain, _, short = name.rpartition("::")
    return Sample(short, domain, int(opset or OPSET), inputs, attrs, outs, note, refused, weights, absent)


def i64(*values: int) -> Array:
    return np.array(values, np.int64)


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


def scalar(value: float, dtype: Any = np.float32) -> Array:
    return np.array(value, dtype)


ONES = [1, 1, 1, 1]

ANYWHERE = (
    "Abs", "Atan", "Asinh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin",
    "Sinh", "Softplus", "Softsign", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip

UNARY = [
    *(S(op, "2 6 3") for op in ANYWHERE),
    *(S(op, "2 6:small") for op in ("Acos", "Asin", "Atanh")),
    S("Acosh", "2 6:above one"),
    *(S(op, "2 6:positive") for op in ("Log", "Sqrt")),
    S("BitwiseNot", "2 6:u8"),
    S("Not", "2 6:bool"),
    S("Swish@24", "2 6 3"),
    S("Shrink", "2 6", bias=0.7, lambd=0.8, note="bias"),
    S("ThresholdedRelu", "2 6", alpha=-0.5, note="negative"),
    S("Cast", "2 6", to=TensorProto.DOUBLE),
    S("Cast", "2 6", to=TensorProto.BOOL, note="bool"),
    S("CastLike", "2 6", scalar(1, np.float16)),
    S("CastLike", "2 6", "3:f16", note="vector"),
    S("Clip", "2 6 4", scalar(0), scalar(1), note="relu6"),
    S("Clip", "2 6 4", scalar(0.5), note="low"),
    S("Clip", "2 6 4", None, scalar(-0.5), note="high"),
    S("Clip@11", "2 6 4", scalar(-1), scalar(1)),
    S("Clip", "2 6 4", note="none"),
    S("Clip", "2 6 4", scalar(-1), "", note="computed-high"),
    S("Clip", "2 6 4", ":positive", note="computed"),
    S("Dropout", "2 6 4"),
    S("Dropout", "2 6 4", outs=2, note="mask"),
    S("Dropout@11", "2 6 4", ratio=0.3),
    S("Dropout", "2 6 4", scalar(0.4), scalar(False, np.bool_), note="inference"),
]

WITH = (
    "Add", "Div", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mul", "Sub", "Sum",
)  # fmt: skip

BINARY = [
    *(S(op, "2 6 4", "2 6 4", note="same") for op in WITH),
    *(S(op, "2 6 4", "6 1", note="channel") for op in (*WITH, "PRelu")),
    *(S(op, "6 1", "2 6 4", note="left") for op in ("Add", "Sub", "Mul", "Div")),
    S("Add", "2 1 4", "6 1", note="crossed"),
    S("Mul", "2 6 4", "", note="number"),
    S("Mul", "2 6 5 5", "2 6 1 1", note="gate"),
    S("Div", "2 6 4", "2 1 4:positive", note="over the rest"),
    S("Sum", "2 6", "6", "2 1", note="three"),
    S("Mean", "2 6", "6", "1", note="three"),
    S("Max", "2 6", note="one"),
    S("Min", "2 6", "6", "2 1", note="three"),
    S("PRelu", "2 6 4", "4", note="last"),
    S("Pow", "2 6:positive", scalar(2), note="square"),
    S("Pow", "2 6", scalar(3), note="cube"),
    S("Pow", "2 6:positive", "6", note="channel"),
    S("Mod", "2 6", "6", fmod=1),
    *(S(op, "2 6 4:bool", "6 1:bool") for op in ("And", "Or", "Xor")),
    S("Equal", "2 6 4", "2 6 4", note="same"),
    S("Equal", "2 6:bool", "6:bool", note="bool"),
    *(S(op, "2 6:u8", "6:u8") for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    S("BitShift", "2 6:u8", "6:u8", direction="LEFT"),
    S("Where", "2 6:bool", "6", "2 1"),
    S("Where", "6 1:bool", "2 6 4", "2 6 4", note="channel"),
    S("Where", "2 6 4:bool", "2 6 4", "", note="number"),
]

CONV = [
    S("Conv", "2 6 5 5", "8 6 3 3", "8", pads=ONES, note="dense"),
    S("Conv", "2 6 5 5", "8 6 3 3", note="no-bias"),
    S("Conv@11", "2 6 5 5", "8 6 1 1", "8", strides=[2, 2], note="stride"),
    S("Conv", "2 12 5 5", "8 3 3 3", "8", group=4, pads=ONES, note="grouped"),
    S("Conv", "2 12 5 5", "8 3 3 3", group=4, note="grouped-no-bias"),
    S("Conv", "2 6 5 5", "6 1 3 3", "6", group=6, note="depthwise"),
    S("Conv", "2 6 5 5", "18 1 3 3", "18", group=6, note="multiplier"),
    S("Conv", "2 6 9", "8 6 3", "8", dilations=[2], note="1d"),
    S("Conv", "2 4 9", "6 2 3", "6", group=2, note="1d-grouped"),
    S("Conv", "1 4 4 4 5", "6 4 3 3 3", "6", note="3d"),
    S("Conv", "1 4 4 4 5", "4 1 3 3 3", "4", group=4, note="3d-depthwise"),
    S("ConvTranspose", "2 6 4 4", "6 8 3 3", "8", strides=[2, 2]),
    S("ConvTranspose", "2 6 4 4", "6 8 3 3", note="no-bias"),
    S("ConvTranspose", "2 12 4 4", "12 2 3 3", "8", group=4, note="grouped"),
    S("ConvTranspose", "2 6 4", "6 1 3", "6", group=6, note="1d-depthwise"),
]

LINEAR = [
    S("MatMul", "3 5", "5 4"),
    S("MatMul", "2 3 5", "5 4", note="3d-2d"),
    S("MatMul", "2 3 5", "2 5 4", note="3d"),
    S("MatMul", "2 6 3 5", "2 6 5 4", note="4d"),
    S("MatMul", "2 1 3 5", "6 5 4", note="broadcast"),
    S("MatMul", "3 5", "6 5 4", note="2d-3d"),
    S("MatMul", "5", "5 4", note="vector-matrix"),
    S("MatMul", "3 5", "5", note="matrix-vector"),
    S("MatMul", "5", "5", note="vectors"),
    S("MatMul", "5", "6 5 4", note="vector-batch"),
    S("MatMul", "6 3 5", "5", note="batch-vector"),
    S("MatMul", "1 3 5", "1 5 4", note="units"),
    S("MatMul", "2 3 1", "1 4", note="outer"),
    S("Gemm", "3 5", "5 4", "4"),
    S("Gemm", "3 5", "4 5", "4", transB=1, note="transB"),
    S("Gemm", "5 3", "5 4", transA=1, note="transA"),
    S("Gemm", "5 3", "4 5", "3 4", transA=1, transB=1, alpha=0.5, beta=2.0, note="both"),
    S("Gemm", "3 5", "5 4", "3 1", note="column"),
    S("Gemm", "3 5", "5 4", "1 4", note="row"),
    S("Gemm", "3 5", "5 4", "", note="number"),
    S("Gemm", "3 5", "5 4", "1", note="one"),
    S("Gemm@11", "3 5", "5 4", "4"),
    S("Gemm", "1 5", "5 4", "1 4", note="one-row"),
    S("Einsum", "2 3 5", "2 5 4", equation="bmk,bko->bmo"),
    S("Einsum", "2 3 6 5", "2 7 6 5", equation="bqhd, bkhd -> bhqk", note="attention"),
    S("Einsum", "2 3 5", "4 5", equation="...i,oi->...o", note="ellipsis"),
    S("Einsum", "3 5", "5 4", equation="ij,jk", note="implicit"),
    S("Einsum", "2 3 5", equation="bij->bj", note="sum"),
    S("Einsum", "2 3 5", equation="abc->cab", note="transpose"),
    S("Einsum", "2 3 5", "2 5", "3 5", equation="bij,bj,ij->b", note="three"),
    S("Einsum", "2 3 5", "2 3 5", equation="...a,...a->...", note="ellipses"),
    S("Einsum", "3 5", "4", equation="ij,k->ik", note="unrelated"),
]

LAYOUT = [
    S("Transpose", "2 3 4 5", perm=[0, 2, 1, 3]),
    S("Transpose", "2 3 4", note="default"),
    S("Transpose", "2 3 4", perm=[2, 0, 1], note="cycle"),
    S("Squeeze", "2 1 5 1", i64(1, 3)),
    S("Squeeze", "2 1 5", i64(-2), note="negative"),
    S("Squeeze@11", "2 1 5 1", note="all"),
    S("Squeeze@11", "2 1 5", axes=[1]),
    S("Unsqueeze", "2 5", i64(1, -1)),
    S("Unsqueeze@11", "2 5", axes=[0, 2]),
    S("Unsqueeze", "", i64(0), note="number"),
    S("Reshape", "2 6 4 5", i64(2, 120), note="flatten"),
    S("Reshape", "2 6 4 5", i64(0, -1), note="copy-fill"),
    S("Reshape", "2 4 30", i64(2, 4, 5, 6), note="split"),
    S("Reshape", "2 4 5 6", i64(2, 4, 30), note="merge"),
    S("Reshape", "2 12 4", i64(2, 3, 16), note="resplit"),
    S("Reshape", "2 6 5", i64(2, 6, 1, 5), note="unit"),
    S("Reshape", "2 6", i64(2, -1, 1, 3), note="shuffle"),
    S("Reshape@11", "2 3 5 4", i64(6, 20), note="two-merges"),
    S("Reshape", "1 6 4", i64(6, 4), note="drop-unit"),
    S("Reshape", "2 3 5 7", i64(2, 15, 7), note="inner"),
    S("Reshape", "2 6 4", i64(-1), note="all"),
    S("Reshape", "4 6", i64(6, 4), note="misaligned"),
    S("Reshape", "2 6 4", i64(2, 6, 4), note="same"),
    S("Reshape", "2 6 4", i64(2, 6, 4), allowzero=1, note="allowzero"),
    S("Reshape", "2 6 4", i64(0, 3, 8), allowzero=2**40, note="allowzero that is not 1"),
    S("Flatten", "2 3 4 5"),
    S("Flatten", "2 3 4 5", axis=2, note="2"),
    S("Flatten", "2 3 4 5", axis=-1, note="negative"),
    S("Flatten", "2 3 4", axis=0, note="0"),
    S("Flatten", "2 3 4", axis=3, note="rank"),
    S("Concat", "2 4 5", "2 6 5", axis=1),
    S("Concat", "2 5 4", "2 5 3", "2 5 6", axis=-1, note="last"),
    S("Concat", "3 4", "2 4", axis=0, note="first"),
    S("Concat", "2 4", axis=1, note="one"),
    S("Split", "2 10 3", i64(4, 6), axis=1, outs=2),
    S("Split@11", "2 10 3", split=[4, 6], axis=1, outs=2),
    S("Split@18", "2 9", i64(2, 3, 4), axis=-1, outs=3),
    S("Split", "6 4", i64(2, 4), outs=2, note="default-axis"),
    S("Split@11", "2 6", axis=1, split=[6], note="one"),
    S("Slice", "2 12", i64(3), i64(7), i64(1)),
    S("Slice", "2 12 5", i64(-5), i64(2**31 - 1), i64(1), i64(1), note="tail"),
    S("Slice", "2 12 6", i64(2, 1), i64(9, 5), i64(-2, 2), note="two-axes"),
    S("Slice", "2 12", i64(0, 3), i64(2, -2), note="no-axes"),
    S("Slice", "2 12", i64(1), i64(11), i64(1), i64(2), note="step"),
    S("Slice", "2 12", i64(-1), i64(-100), i64(1), i64(-1), note="reverse"),
    S("Slice", "2 12", i64(0), i64(2**31 - 1), i64(1), i64(2), note="even"),
    S("Slice", "2 12", i64(1), i64(12), i64(1), i64(3), note="every-third"),
    S("Slice", "2 12", i64(0), i64(-1), i64(1), i64(2), note="even-short"),
    S("Slice", "2 12", i64(-11), i64(100), i64(1), i64(2), note="odd-from-the-end"),
    S("Slice", "2 12", i64(0), i64(100), i64(1), note="beyond"),
    S("Slice@9", "2 12", starts=[3], ends=[7], axes=[1]),
    S("Slice", "2 12", i64(0), i64(5), i64(1), note="head"),
    S("Pad", "2 6 4", i64(0, 2, 0, 0, 3, 0)),
    S("Pad", "2 6 4", i64(0, 0, 1, 0, 0, 1), note="space"),
    S("Pad@11", "2 6", i64(0, 2, 0, 3), scalar(0.5), note="value"),
    S("Pad@18", "2 6", i64(2, 3), None, i64(1), note="axes"),
    S("Pad", "2 6 4", i64(0, 0, 1, 0, 0, 1), mode="reflect", note="reflect"),
    S("Pad@10", "2 6", pads=[0, 2, 0, 3]),
    S("Pad", "2 6", i64(0, -1, 0, 2), note="negative"),
    S("Expand", "6 1", i64(2, 6, 4)),
    S("Expand", "2 6 1", i64(1, 1, 4), note="ones"),
    S("Expand", "2 1 4", i64(6, 1), note="short"),
    S("Expand", "", i64(3, 4), note="number"),
    S("Tile", "2 4 5", i64(1, 3, 1)),
    S("Tile", "2 4", i64(2, 3), note="both"),
    S("Gather", "7 6", i64(0, 5, 2)),
    S("Gather", "2 7 6", i64(0, 5), axis=1, note="1"),
    S("Gather", "2 6 7", np.array(3), axis=-1, note="number"),
    S("Gather", "2 9 3", i64(7, 0, -5, 3, 0, 7, 2, -1), axis=1, note="list"),
    S("Gather", "2 3 5", i64(4, 3, 2, 1, 0), axis=-1, note="reversed"),
    S("Gather", "2 5 3", i64(*[1] * 9, 2), axis=1, note="table"),
    S("Gather", "7 6", "2 3:i64", note="embedding"),
    S("DepthToSpace", "2 20 3 3", blocksize=2, mode="DCR", note="DCR"),
    S("DepthToSpace", "2 20 3 4", blocksize=2, mode="CRD", note="CRD"),
    S("DepthToSpace@11", "1 18 2 3", blocksize=3, note="default"),
    S("SpaceToDepth", "2 5 6 4", blocksize=2),
]

NORM = [
    S("BatchNormalization", "2 6 4 4", "6", "6", "6", "6:positive"),
    S("BatchNormalization@11", "2 6", "6", "6", "6", "6:positive", note="2d"),
    S("InstanceNormalization", "2 6 4 5", "6", "6"),
    S("InstanceNormalization", "2 6 5", "6", "6", note="1d"),
    S("LayerNormalization", "2 3 8", "8", "8"),
    S("LayerNormalization@17", "2 3 8", "8", note="no-bias"),
    S("LayerNormalization", "2 6 3 4", "3 4", "3 4", axis=2, note="two-axes"),
    S("LayerNormalization", "2 3 8", "8", "8", outs=3, note="statistics"),
    S("LayerNormalization", "2 3 8", "3 8", "3 8", axis=1, note="axis-1"),
    S("GroupNormalization", "2 12 3 3", "12", "12", num_groups=4),
    S("GroupNormalization@18", "2 12 3 3", "4", "4", num_groups=4),
    S("LpNormalization", "2 6 4"),
    S("LpNormalization", "2 6 4", axis=1, p=1, note="l1"),
    *(S(op, "2 6 4") for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(S(f"{op}@11", "2 6 4", axis=1) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    S("Softmax", "2 6 4", axis=1, note="channels"),
    S("Softmax@11", "2 6 4", note="default"),
]

POOL = [
    *(S(op, "2 6 5 5", kernel_shape=[3, 3], pads=ONES) for op in ("AveragePool", "MaxPool", "LpPool")),
    S("AveragePool@11", "2 6 9", kernel_shape=[3], strides=[2], note="1d"),
    S("MaxPool@11", "1 4 4 4 4", kernel_shape=[2, 2, 2], note="3d"),
    *(S(op, "2 6 4 5") for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    S("GlobalAveragePool", "2 6 5", note="1d"),
    S("Resize", "2 6 3 4", None, f32(1, 1, 2, 2), note="scales"),
    S("Resize", "2 6 3 4", None, None, i64(2, 6, 6, 8), note="sizes"),
    S("Resize@11", "2 6 3 4", f32(), f32(), i64(2, 6, 6, 8), mode="linear", note="linear"),
    S("Resize@11", "2 6 3 4", f32(), f32(1, 1, 2, 2)),
    S("Resize", "2 6 3 4", None, None, i64(5, 7), axes=[2, 3], note="axes"),
    S("Upsample@9", "2 6 3 4", f32(1, 1, 2, 2)),
]

REDUCTIONS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]

REDUCE = [
    *(S(op, "2 6 4" + (":positive" if op == "ReduceLogSum" else ""), i64(1)) for op in REDUCTIONS),
    *(S(f"{op}@11", "2 6 4" + (":positive" if op == "ReduceLogSum" else ""), axes=[1], keepdims=0) for op in REDUCTIONS),
    S("ReduceSum", "2 6 4", note="all"),
    S("ReduceSum", "2 6 4", i64(-1, 0), keepdims=0, note="two"),
    S("ReduceSum@13", "2 6 4", i64(1), keepdims=0),
    S("ReduceMean@13", "2 6 4", axes=[-1]),
    S("ReduceMean@18", "2 6 4", i64(2)),
    S("ReduceSum", "2 6 4", noop_with_empty_axes=1, note="noop"),
    S("ReduceMax", "2 6 4", i64(), note="empty"),
    *(S(op, "2 6 4", axis=1) for op in ("ArgMax", "ArgMin")),
    S("ArgMax", "2 6 4", axis=-1, keepdims=0, note="last"),
    S("CumSum", "2 6 4", scalar(2, np.int64)),
    S("CumSum", "2 6 4", i64(-2), note="vector"),
    S("TopK", "2 6 4", i64(3), axis=1, outs=2),
]

SIZES = [
    S("Shape", "2 6 4"),
    S("Shape", "2 6 4", start=1, note="start"),
    S("Size", "2 6 4"),
    S("ConstantOfShape", i64(2, 6)),
    S("ConstantOfShape", i64(2, 6), value=numpy_helper.from_array(f32(1)), note="ones"),
]

SAMPLES = [*UNARY, *BINARY, *CONV, *LINEAR, *LAYOUT, *NORM, *POOL, *REDUCE, *SIZES]

REFUSED = [
    S("Squeeze", "2 1 5 1", note="all", refused="spell"),
    S("BatchNormalization", "2 6 4", "6", "6", "6", "6:positive", outs=3, training_mode=1, note="training", refused="training"),
    S("LRN", "2 6 4 4", size=3, refused="neighbours"),
    S("MeanVarianceNormalization", "2 6 3 4", refused="deviation"),
    S("Einsum", "3 3", equation="ii->i", note="diagonal", refused="twice"),
    S("Einsum", "2 3 5", "1 5 4", equation="...ij,...jk->...ik", note="broadcast", refused="both 2 and 1"),
    S("MaxPool", "2 6 5 5", kernel_shape=[3, 3], outs=2, note="indices", refused="second output"),
    S(
        "Resize",
        "2 6 3 4",
        f32(0, 0, 0, 0, 1, 1, 1, 1),
        None,
        i64(2, 6, 6, 8),
        coordinate_transformation_mode="tf_crop_and_resize",
        refused="crops",
    ),
]
