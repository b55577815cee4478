"""Axis rules, one function per operator, grouped in families; importing this package registers them all."""

from onnxprune.axes.rules import (
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
    sizes,
)
from onnxprune.axes.rules.registry import Reason, Refused, axes, find, registered, rule

__all__ = ["FAMILIES", "Reason", "Refused", "axes", "find", "registered", "rule"]

FAMILIES = (attention, conv, elementwise, fixed, flow, fused, layout, linear, norm, pool, quant, recurrent, reduce, sizes)
