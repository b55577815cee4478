"""More conformance samples: attention, recurrence, fused and quantized operators,
picked positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from axes.rules.samples import S, Sample, f32, i64

MS = "com.microsoft"

PICKED = [
    S("GatherElements", "2 6 7", "2 6 3:i64", axis=2),
    S("GatherElements", "2 6 7", "2 5 7:i64", axis=1, note="1"),
    S("ScatterElements", "2 6 7", "2 6 3:i64", "2 6 3", axis=2),
    S("ScatterElements", "2 6 7", "2 6 3:i64", "2 6 3", axis=2, reduction="add", note="add"),
    S("GatherND", "7 6", "3 1:i64"),
    S("GatherND", "2 7 6", "2 3 1:i64", batch_dims=1, note="batch"),
    S("ScatterND", "7 6", "3 1:i64", "3 6"),
    S("OneHot", "2 6:i64", np.array(5), f32(0, 1)),
    S("OneHot", "2 6:i64", np.array(5), f32(0, 1), axis=1, note="1"),
    S("Trilu", "3 6 4 4"),
    S("Col2Im", "2 20 16", i64(5, 5), i64(2, 2)),
]

RECURRENT = [
    S("LSTM", "5 2 3", "1 24 3", "1 24 6", "1 48", hidden_size=6, outs=3, weights=(1, 2, 3)),
    S("LSTM", "5 2 3", "1 24 3", "1 24 6", hidden_size=6, outs=1, weights=(1, 2), note="no-bias"),
    S(
        "LSTM",
        *("5 2 3", "2 24 3", "2 24 6", "2 48", None, "2 2 6", "2 2 6", "2 18"),
        hidden_size=6,
        outs=3,
        direction="bidirectional",
        weights=(1, 2, 3, 7),
        note="bidirectional",
    ),
    S("GRU", "5 2 3", "1 18 3", "1 18 6", "1 36", hidden_size=6, outs=2, weights=(1, 2, 3)),
    S(
        "GRU",
        *("5 2 3", "1 18 3", "1 18 6", "1 36", None, "1 2 6"),
        hidden_size=6,
        outs=2,
        linear_before_reset=1,
        weights=(1, 2, 3),
        note="reset",
    ),
    S("RNN", "5 2 3", "1 6 3", "1 6 6", "1 12", hidden_size=6, outs=2, weights=(1, 2, 3)),
    S(
        "RNN",
        *("5 2 3", "1 6 3", "1 6 6", "1 12"),
        hidden_size=6,
        outs=2,
        activations=["LeakyRelu"],
        clip=0.5,
        weights=(1, 2, 3),
        note="clip",
    ),
    S(
        "LSTM",
        *("5 2 3", "1 24 3", "1 24 6", "1 48", "2:i32", "1 2 6", "1 2 6", "1 18"),
        hidden_size=6,
        outs=3,
        activations=["HardSigmoid", "SOFTSIGN", "relu"],
        clip=0.7,
        input_forget=1,
        weights=(1, 2, 3, 7),
        note="clip",
    ),
    S(
        "LSTM",
        *("5 2 3:small", "2 24 3:small", "2 24 6:small", "2 48:small"),
        hidden_size=6,
        outs=3,
        direction="bidirectional",
        activations=["Sigmoid", "ScaledTanh", "LeakyRelu", "Tanh", "Softplus", "HardSigmoid"],
        activation_alpha=[0.8, 0.1, 0.3],
        activation_beta=[1.1, 0.4],
        weights=(1, 2, 3),
        note="gates-zero",
    ),
    S(
        "GRU",
        *("5 2 3", "2 18 3", "2 18 6", "2 36"),
        hidden_size=6,
        outs=2,
        direction="bidirectional",
        activations=["HardSigmoid", "Relu", "Affine", "Softplus"],
        activation_alpha=[0.3, 0.5],
        activation_beta=[0.4, 1.0],
        clip=0.9,
        weights=(1, 2, 3),
        note="clip",
    ),
]

ATTENTION = [
    S("Attention@23", "2 6 4 8", "2 3 5 8", "2 3 5 7"),
    S("Attention@23", "2 6 4 8", "2 3 5 8", "2 3 5 7", "4 5", scale=0.3, note="mask"),
    S("Attention@23", "2 6 4 8", "2 3 5 8", "2 3 5 7", "2 6 4 5", note="bias"),
    S("Attention@23", "2 6 4 8", "2 6 4 8", "2 6 4 8", is_causal=1, softcap=2.0, note="causal"),
    S("Attention@23", "2 4 48", "2 5 24", "2 5 21", q_num_heads=6, kv_num_heads=3, note="3d"),
    S("Attention@23", "2 6 4 8", "2 3 5 8", "2 3 5 7", None, "2 3 2 8", "2 3 2 7", outs=3, note="past"),
    S(f"{MS}::Attention", "2 4 5", "5 72", "72", num_heads=3, weights=(1, 2)),
    S(f"{MS}::Attention", "2 4 5", "5 66", "66", num_heads=3, qkv_hidden_sizes=[24, 24, 18], weights=(1, 2), note="sizes"),
    S(f"{MS}::Attention", "2 4 5", "5 72", "72", num_heads=3, unidirectional=1, scale=0.5, weights=(1, 2), note="causal"),
    S(f"{MS}::MultiHeadAttention", "2 4 24", "2 5 24", "2 5 18", num_heads=3),
    S(f"{MS}::MultiHeadAttention", "2 4 24", "2 5 24", "2 5 24", "72", num_heads=3, weights=(3,), note="bias"),
    S(f"{MS}::MultiHeadAttention", "2 4 24", "2 5 24", "2 5 24", None, None, "2 3 4 5", num_heads=3, note="mask"),
    S(
        f"{MS}::GroupQueryAttention",
        *("2 4 32", "2 4 16", "2 4 16", None, None, np.array([3, 3], np.int32), np.array(4, np.int32)),
        num_heads=4,
        kv_num_heads=2,
        outs=3,
    ),
    S(
        f"{MS}::GroupQueryAttention",
        *("2 4 64", None, None, None, None, np.array([3, 3], np.int32), np.array(4, np.int32)),
        num_heads=4,
        kv_num_heads=2,
        outs=3,
        note="packed",
    ),
    S(
        f"{MS}::GroupQueryAttention",
        *("2 1 32", "2 1 16", "2 1 16", "2 2 3 8", "2 2 3 8", np.array([3, 3], np.int32), np.array(4, np.int32)),
        num_heads=4,
        kv_num_heads=2,
        outs=3,
        note="past",
    ),
    S("RotaryEmbedding@23", "2 4 3 8", "2 3 4", "2 3 4"),
    S("RotaryEmbedding@23", "2 3 32", "2 3 4", "2 3 4", num_heads=4, note="3d"),
    S(f"{MS}::RotaryEmbedding", "2 3 32", i64(0), "8 4", "8 4", num_heads=4),
]

FUSED = [
    S("RMSNormalization@23", "2 3 8", "8"),
    S("SimplifiedLayerNormalization", "2 3 8", "8"),
    S(f"{MS}::SkipLayerNormalization", "2 3 8", "2 3 8", "8", "8", "8"),
    S(f"{MS}::SkipLayerNormalization", "2 3 8", "3 8", "8", "8", outs=4, absent=(1, 2), note="sum"),
    S(f"{MS}::SkipSimplifiedLayerNormalization", "2 3 8", "2 3 8", "8"),
    S(f"{MS}::SkipSimplifiedLayerNormalization", "2 3 8", "2 3 8", "8", outs=4, absent=(1, 2), note="sum"),
    S(f"{MS}::EmbedLayerNormalization", "2 3:i32", "2 3:i32", "9 8", "3 8", "5 8", "8", "8", outs=2),
    S(f"{MS}::Gelu", "2 3 8"),
    S(f"{MS}::QuickGelu", "2 3 8"),
    S(f"{MS}::BiasGelu", "2 3 8", "8"),
    S(f"{MS}::FastGelu", "2 3 8", "8"),
    S(f"{MS}::FastGelu", "2 3 8", note="no-bias"),
    S(f"{MS}::FusedConv", "2 6 5 5", "8 6 3 3", "8", activation="Relu"),
    S(f"{MS}::FusedConv", "2 12 5 5", "8 3 3 3", "8", "2 8 3 3", group=4, activation="Relu", note="sum"),
    S(f"{MS}::FusedConv", "2 6 5 5", "8 6 3 3", "8", activation="Sigmoid", note="Sigmoid"),
    S(f"{MS}::FusedMatMul", "2 3 5", "5 4", alpha=0.5),
    S(f"{MS}::FusedMatMul", "2 5 3", "2 4 5", transA=1, transB=1, note="transposed"),
]

SPATIAL = [
    S("GridSample", "2 6 5 5", "2 3 4 2:small"),
    S("ReverseSequence", "5 2 3", i64(5, 4)),
    S("RoiAlign", "2 6 8 8", np.array([[0, 0, 4, 4]], np.float32), i64(0), output_height=2, output_width=2),
    S("MaxRoiPool", "2 6 8 8", np.array([[0, 0, 0, 4, 4]], np.float32), pooled_shape=[2, 2]),
    S("Scatter@10", "2 6 7", "2 6 3:i64", "2 6 3", axis=2),
    S("CumProd@26", "2 6 4", np.array(2)),
]

UNIT = np.array(1 / 256, np.float32)
ZERO, TWO, SCALE = np.array(0, np.uint8), np.array(2, np.uint8), np.array(0.1, np.float32)

QUANTIZED = [
    S("QuantizeLinear", "2 6 4", SCALE, ZERO),
    S("QuantizeLinear", "2 6 4", "6:positive", axis=1, note="channel"),
    S("DequantizeLinear", "2 6 4:u8", SCALE, TWO),
    S("DequantizeLinear", "6 4:i8", "6:positive", "6:i8 zero", axis=0, note="channel"),
    S("DynamicQuantizeLinear", "2 6 4", outs=3),
    S("QLinearConv", "2 6 5 5:u8", SCALE, ZERO, "8 6 3 3:i8", "8:positive", "8:i8 zero", SCALE, ZERO, "8:i32"),
    S("QLinearConv", "2 12 5 5:u8", SCALE, ZERO, "8 3 3 3:u8", SCALE, TWO, SCALE, ZERO, group=4, note="grouped"),
    S("ConvInteger", "2 6 5 5:u8", "8 6 3 3:u8", ZERO, TWO),
    S("ConvInteger", "2 12 5 5:u8", "8 3 3 3:u8", group=4, note="grouped"),
    S("MatMulInteger", "3 5:u8", "5 4:u8"),
    S("MatMulInteger", "2 3 5:u8", "5 4:u8", ZERO, TWO, note="points"),
    S(f"{MS}::QLinearAdd", "2 6 4:u8", SCALE, ZERO, "6 1:u8", SCALE, ZERO, SCALE, ZERO),
    S(f"{MS}::QLinearMul", "2 6 4:u8", SCALE, ZERO, "2 6 1:u8", SCALE, ZERO, SCALE, ZERO),
    S(f"{MS}::QLinearLeakyRelu", "2 6 4:u8", SCALE, ZERO, SCALE, ZERO),
    S(f"{MS}::QLinearSigmoid", "2 6 4:u8", SCALE, ZERO, UNIT, ZERO),
    S(f"{MS}::QLinearGlobalAveragePool", "2 6 4 4:u8", SCALE, ZERO, SCALE, ZERO),
    S(f"{MS}::QLinearGlobalAveragePool", "2 4 4 6:u8", SCALE, ZERO, SCALE, ZERO, channels_last=1, note="last"),
    S(f"{MS}::QLinearAveragePool", "2 6 4 4:u8", SCALE, ZERO, SCALE, ZERO, kernel_shape=[2, 2]),
    S(f"{MS}::QLinearConcat", SCALE, ZERO, "2 6 4:u8", SCALE, ZERO, "2 5 4:u8", SCALE, ZERO, axis=1),
    S(f"{MS}::QGemm", "3 5:u8", SCALE, ZERO, "5 4:u8", SCALE, ZERO, "4:i32", SCALE, ZERO),
    S(f"{MS}::QGemm", "3 5:u8", SCALE, ZERO, "4 5:u8", SCALE, ZERO, None, SCALE, ZERO, transB=1, note="no-bias"),
    S("QLinearMatMul", "3 5:u8", SCALE, ZERO, "5 4:u8", SCALE, TWO, SCALE, ZERO),
]

FORMS: list[dict[str, Any]] = [{"bits": bits, "block_size": 16} for bits in (4, 8, 2)]
FOUR, EIGHT, TWOS = FORMS
NBITS = f"{MS}::MatMulNBits"

BLOCKS = [
    S(NBITS, "3 32", "8 2 8:u8", "16:positive", K=32, N=8, **FOUR),
    S(NBITS, "2 3 32", "8 2 8:u8", "8 2:positive", "8 1:u8", None, "8", K=32, N=8, **FOUR, note="2d"),
    S(NBITS, "3 96", "5 6 8:u8", "30:positive", "15:u8", K=96, N=5, **FOUR, note="flat"),
    S(NBITS, "3 80", "5 5 8:u8", "25:positive", "15:u8", K=80, N=5, **FOUR, note="flat-odd"),
    S(NBITS, "3 80", "5 5 8:u8", "5 5:positive", "5 3:u8", K=80, N=5, **FOUR, note="odd"),
    S(NBITS, "3 72", "5 5 8:u8", "5 5:positive", "5 3:u8", K=72, N=5, **FOUR, note="short"),
    S(NBITS, "3 72", "5 5 8:u8", "5 5:positive", K=72, N=5, **FOUR, note="short-symmetric"),
    S(NBITS, "3 80", "5 5 8:u8", "5 5:positive", "5 5:positive", K=80, N=5, **FOUR, note="float-points"),
    S(NBITS, "3 64", "5 4 16:u8", "5 4:positive", "5 4:u8", K=64, N=5, **EIGHT, note="bytes"),
    S(NBITS, "3 48", "5 3 16:u8", "5 3:positive", None, None, "5", K=48, N=5, **EIGHT, note="bytes-symmetric"),
    S(NBITS, "3 144", "5 9 4:u8", "5 9:positive", "5 3:u8", K=144, N=5, **TWOS, note="two-bits"),
    S("DequantizeLinear", "6 8:i8", "6 4:positive", "6 4:i8", axis=1, block_size=2, note="blocks"),
    S("DequantizeLinear", "7 5:u8", "3 5:positive", "3 5:u8", axis=0, block_size=3, note="short-block"),
    S("DequantizeLinear", "2 9 4:i8", "2 3 4:positive", axis=1, block_size=3, note="inner-blocks"),
    S("QuantizeLinear", "6 8", "6 4:positive", "6 4:i8 zero", axis=1, block_size=2, note="blocks"),
]

MORE: list[Sample] = [*PICKED, *RECURRENT, *ATTENTION, *FUSED, *SPATIAL, *QUANTIZED, *BLOCKS]

REFUSED_TOO = [
    S(
        NBITS,
        "3 32",
        "8 2 8:u8",
        "8 2:positive",
        K=32,
        N=8,
        **FOUR,
        weight_prepacked=1,
        note="prepacked",
        refused="form of one kernel",
    ),
    S("LSTM", "5 2 3", "1 24 3", "1 24 6", hidden_size=6, activations=["Sigmoid"] * 3, note="activations", refused="not zero"),
    S("GRU", "5 2 3", "1 18 3", "1 18 6", hidden_size=6, activations=["Tanh", "Sigmoid"], note="activations", refused="not zero"),
    S(
        "RNN",
        "5 2 3",
        "1 6 3",
        "1 6 6",
        hidden_size=6,
        activations=["Affine"],
        activation_beta=[0.5],
        note="beta",
        refused="not zero",
    ),
]
