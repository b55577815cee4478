"""Axis rules, one function per operator, grouped in families; importing this package registers them all."""

from onnxprune.rules import conv, elementwise, layout, linear, norm, pool, reduce, sizes
from onnxprune.rules.registry import Reason, Refused, axes, find, registered, rule

__all__ = ["FAMILIES", "Reason", "Refused", "axes", "find", "registered", "rule"]

FAMILIES = (conv, elementwise, layout, linear, norm, pool, reduce, sizes)
