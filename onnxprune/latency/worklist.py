"""What a device is given to measure a table of latencies: the small models, in one file, and a program, in another."""

from __future__ import annotations

import ast
import base64
import importlib
import inspect
import json
import math
import zlib
from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from onnxprune.latency.on_device import CODES, SHAPES_FORMAT
from onnxprune.latency.timer import furnished, has_data, yardstick
from onnxprune.options.version import version
from onnxprune.runtime.session import declare_lent

__all__ = ["program", "shapes_file"]

_MODULES = ("stopwatch", "machines", "cache", "measurements", "on_device")
"""What the program is made of, in this order; none of these needs more than Python, numpy and ONNX Runtime."""


def program() -> str:
    """The program for devices, as one file: modules of ours, one after the other, without what they import of each other."""
    sources = [inspect.getsource(importlib.import_module(f"onnxprune.latency.{name}")) for name in _MODULES]
    about = ast.get_docstring(ast.parse(sources[-1]), clean=False)
    head = f'"""{about}"""\n\n# Made by onnxprune {version()}; license Apache-2.0.\n\nfrom __future__ import annotations\n'
    return "\n".join([head, *(_body(source) for source in sources)])


def _body(source: str) -> str:
    """A module without its documentation, its list of names, and what it imports of ours or of the future."""
    lines = source.splitlines(keepends=True)
    first, *rest = ast.parse(source).body
    dropped = [first, *(node for node in rest if _is_left_out(node))]
    for node in dropped:
        for at in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[at] = ""
    return "".join(lines).strip() + "\n\n"


def _is_left_out(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in {"onnxprune", "__future__"}
    return isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == "__all__" for one in node.targets)


def shapes_file(model: str, layers: Mapping[str, ModelProto], wholes: Mapping[str, ModelProto], options: str) -> bytes:
    """The file with what is to be timed, as JSON, for `onnxprune.latency.on_device.read_shapes`.

    Constants have their shapes alone; the device makes the data. Graphs are compressed together, because they are much alike.

    Args:
        model: the name of the file that it is for.
        layers: models of layers at some widths, by digest.
        wholes: the whole model at some widths, by digest.
        options: those that decide which models these are, as JSON.
    """
    packed = bytearray()
    parts = {
        part: {digest: _entry(packed, one) for digest, one in models.items()}
        for part, models in (("layers", layers), ("wholes", wholes))
    }
    document = {
        "format": SHAPES_FORMAT,
        "onnxprune": version(),
        "model": model,
        "options": options,
        "yardstick": _entry(packed, yardstick()),
        **parts,
        "graphs": base64.b64encode(zlib.compress(bytes(packed), 9)).decode(),
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _entry(packed: bytearray, model: ModelProto) -> tuple[int, int, list[tuple[str, int, list[int]]]]:
    """Where the bytes of a model begin, how many there are, and its constants without data; the bytes are appended."""
    proto = ModelProto()
    proto.CopyFrom(model)
    del proto.graph.initializer[:]
    constants = []
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if has_data(tensor):
            proto.graph.initializer.append(tensor)
        elif tensor.data_type in CODES:
            constants.append((tensor.name, tensor.data_type, list(tensor.dims)))
            nbytes = math.prod(tensor.dims) * np.dtype(CODES[tensor.data_type]).itemsize
            declare_lent(proto, tensor.name, tensor.data_type, tensor.dims, nbytes)
        else:  # a type that numpy does not have: its data are part of the file
            furnished(tensor, rng).append_to(proto.graph.initializer)
    start, content = len(packed), proto.SerializeToString(deterministic=True)
    packed += content
    return start, len(content), constants
