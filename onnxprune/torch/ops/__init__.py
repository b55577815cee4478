"""One function for each operator, in the families of `onnxprune.axes.rules`; importing this package registers them all."""

from onnxprune.torch.ops import (
    attention,
    conv,
    elementwise,
    fixed,
    flow,
    fused,
    layout,
    linear,
    norm,
    pool,
    quant,
    recurrent,
    reduce,
    resize,
    signal,
    sizes,
)

__all__ = ["FAMILIES"]

FAMILIES = (
    attention, conv, elementwise, fixed, flow, fused, layout, linear, norm, pool, quant, recurrent, reduce, resize, signal,
    sizes,
)  # fmt: skip
