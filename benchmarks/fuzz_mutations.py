"""Mutations of models and other files: a list of seeds says which, so that a finding can be shrunk by leaving some out."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = ["FLOATS", "INTEGERS", "TEXTS", "mutated_bytes", "mutated_data", "mutated_json", "mutated_model", "mutated_toml"]

INTEGERS = (0, 1, -1, 2, 3, 7, 8, -2, 99, 255, 2**15, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e30, -1e30, 1e-40, float("inf"), float("-inf"), float("nan"), 0.5)
TEXTS = ("", "x", "y", "a\0b", "\x1b[31mred", "..", "/etc/passwd", "w.bin", "none", "é" * 9, "n" * 3000, "-1", "1e9", "%s{}")
STANDARD = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
VALUES = (
    *(
        "0",
        "-1",
        "2",
        "0.5",
        "1e400",
        "nan",
        "-inf",
        "true",
        "[]",
        "{}",
        '""',
        '"x"',
        '"a\\u0000b"',
        '["x"]',
        "[[1]]",
        "{ a = 1 }",
    ),
    *("1979-05-27", "9" * 5000, "0x7fffffffffffffff", '"/"', '"."', '"m.onnx"', '"os:getcwd"', '"nosuch:thing"', '"\\u001b[31m"'),
    *("[" * 300, '"noise"', '"macs=2"'),
)
OPTIONS = (
    *(
        "align",
        "allow-inexact",
        "batch",
        "calib",
        "criterion",
        "epochs",
        "encoding",
        "lossless",
        "max-drop",
        "method",
        "mode",
        "only",
    ),
    *(
        "pattern",
        "percentile",
        "preprocess",
        "protect",
        "require-proof",
        "scope",
        "seed",
        "sparsity",
        "target",
        "data",
        "teacher",
    ),
    *("steps", "log", "layer"),
)
TABLES = ("[prune]", "[a.b]", "[[prune]]", "[quantize]", "[benchmark]", "[decode]", '["\\u001b[31m"]', "[run]")
KEYS = ("model", "output", "eval", "metric", "custom_ops", "do", "", "[", '"\\u001b"')
Field = Any


def mutated_model(model: ModelProto, choices: list[int]) -> ModelProto:
    """A copy after one mutation for each seed."""
    made = ModelProto()
    made.CopyFrom(model)
    for choice in choices:
        draw = random.Random(choice)
        draw.choices(_MUTATIONS, (6, 2, 2, 1))[0](made, draw)
    return made


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type:
            for one in value if hasattr(value, "append") or hasattr(value, "add") else (value,):
                yield from _messages(one)


def _any_field(model: ModelProto, draw: random.Random) -> None:
    """Change one field of one message."""
    found = [one for one in _messages(model) if one.DESCRIPTOR.name != "StringStringEntryProto" or draw.random() < 0.5]
    message = draw.choice(found)
    fields = message.ListFields()
    if draw.random() < 0.15 or not fields:
        descriptor: Field = draw.choice(message.DESCRIPTOR.fields)
    else:
        descriptor = draw.choice(fields)[0]
    value = getattr(message, descriptor.name)
    if hasattr(value, "append") or hasattr(value, "add"):
        _repeated(value, descriptor, draw)
    elif descriptor.message_type:
        same = [one for one in found if one.DESCRIPTOR is descriptor.message_type]
        if same and draw.random() < 0.6:
            value.CopyFrom(_copy(draw.choice(same)))
        else:
            message.ClearField(descriptor.name)
    elif draw.random() < 0.2:
        message.ClearField(descriptor.name)
    else:
        setattr(message, descriptor.name, _scalar(descriptor, value, draw))


def _copy(message: Any) -> Any:
    """A message that shares nothing: protobuf crashes when a message is copied into one inside itself."""
    made = type(message)()
    made.MergeFromString(message.SerializePartialToString())
    return made


def _repeated(values: Any, descriptor: Field, draw: random.Random) -> None:
    """Drop, double, swap or change an entry."""
    count = len(values)
    action = draw.choice(("drop", "double", "swap", "change"))
    if not count:
        if not descriptor.message_type:
            values.append(_scalar(descriptor, 0, draw))
        else:
            values.add()
        return
    at = draw.randrange(count)
    if action == "drop":
        del values[at]
    elif action == "double" and count < 5000:
        values.append(_copy(values[at]) if descriptor.message_type else values[at])
    elif action == "swap" and count > 1:
        other = draw.randrange(count)
        if descriptor.message_type:
            one, two = _copy(values[at]), _copy(values[other])
            values[at].CopyFrom(two)
            values[other].CopyFrom(one)
        else:
            values[at], values[other] = values[other], values[at]
    elif not descriptor.message_type:
        values[at] = _scalar(descriptor, values[at], draw)


def _scalar(descriptor: Field, value: Any, draw: random.Random) -> Any:
    kind = descriptor.cpp_type
    if descriptor.enum_type:
        return draw.choice([one.number for one in descriptor.enum_type.values])
    if kind in {descriptor.CPPTYPE_INT32, descriptor.CPPTYPE_UINT32, descriptor.CPPTYPE_INT64, descriptor.CPPTYPE_UINT64}:
        wide = kind in {descriptor.CPPTYPE_INT64, descriptor.CPPTYPE_UINT64}
        low = 0 if kind in {descriptor.CPPTYPE_UINT32, descriptor.CPPTYPE_UINT64} else -(2 ** (63 if wide else 31))
        return min(max(draw.choice((*INTEGERS, int(value or 0) + 1, int(value or 0) - 1)), low), 2 ** (63 if wide else 31) - 1)
    if kind in {descriptor.CPPTYPE_FLOAT, descriptor.CPPTYPE_DOUBLE}:
        return draw.choice(FLOATS)
    if descriptor.type == descriptor.TYPE_BYTES:
        return mutated_bytes(bytes(value or b""), [draw.randrange(2**32)])
    return draw.choice(TEXTS)


def _other_operator(model: ModelProto, draw: random.Random) -> None:
    """Give a node another operator, or an attribute that its operator has."""
    nodes = [one for one in _messages(model) if isinstance(one, onnx.NodeProto)]
    if not nodes:
        return
    node = draw.choice(nodes)
    if draw.random() < 0.5 or not onnx.defs.has(node.op_type):
        node.op_type = draw.choice(STANDARD)
        return
    schema = onnx.defs.get_schema(node.op_type)
    if schema.attributes:
        name = draw.choice(sorted(schema.attributes))
        kind = str(schema.attributes[name].type).rpartition(".")[2]
        value: Any = {"INT": draw.choice(INTEGERS), "FLOAT": draw.choice(FLOATS), "STRING": draw.choice(TEXTS)}.get(kind)
        value = [draw.choice(INTEGERS) for _ in range(draw.randrange(1, 5))] if kind == "INTS" else value
        if value is not None:
            kept = [one for one in node.attribute if one.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _new_node(model: ModelProto, draw: random.Random) -> None:
    """Put a node of any operator between a value and those who read it."""
    graph = model.graph
    values = [name for node in graph.node for name in node.output if name]
    if not values:
        return
    name = draw.choice(values)
    schema = onnx.defs.get_schema(draw.choice(STANDARD))
    known = [*values, *(one.name for one in graph.input), *(one.name for one in graph.initializer), ""]
    count = min(max(schema.min_input, 1) + draw.randrange(2), max(schema.max_input, 1), 6)
    inputs = [name, *(draw.choice(known) for _ in range(count - 1))]
    fresh = f"{name}_{draw.randrange(10**6)}"
    at = next(at for at, node in enumerate(graph.node) if name in node.output)
    for node in graph.node:
        for position, read in enumerate(node.input):
            if read == name:
                node.input[position] = fresh
    nodes = list(graph.node)
    nodes.insert(at + 1, helper.make_node(schema.name, inputs, [fresh], fresh))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _constant(model: ModelProto, draw: random.Random) -> None:
    """Change an entry of a constant to a number that is much, or none."""
    tensors = [one for one in _messages(model) if isinstance(one, TensorProto) and one.data_location != TensorProto.EXTERNAL]
    if not tensors:
        return
    tensor = draw.choice(tensors)
    try:
        array = numpy_helper.to_array(tensor).copy()
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError):
        return
    if array.size and array.dtype.kind in "fi":
        value = draw.choice(FLOATS if array.dtype.kind == "f" else INTEGERS)
        if array.dtype.kind == "i":
            value = int(value) % 2 ** (8 * array.itemsize - 1)
        array.reshape(-1)[draw.randrange(array.size)] = value
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


_MUTATIONS = (_any_field, _other_operator, _new_node, _constant)


def mutated_bytes(data: bytes, choices: list[int]) -> bytes:
    """The bytes with some flipped, cut off, doubled, or put in."""
    for choice in choices:
        draw = random.Random(choice)
        made = bytearray(data)
        at = draw.randrange(len(made) + 1)
        action = draw.choice(("flip", "cut", "double", "put", "drop"))
        if action == "flip" and at < len(made):
            made[at] ^= 1 << draw.randrange(8)
        elif action == "cut":
            del made[at:]
        elif action == "double":
            made[at:at] = made[at : at + draw.randrange(1, 64)]
        elif action == "put":
            made[at:at] = draw.randbytes(draw.randrange(1, 9))
        else:
            del made[at : at + draw.randrange(1, 64)]
        data = bytes(made)
    return data


def mutated_json(text: str, choices: list[int]) -> str:
    """The document with values of other types and sizes in some places."""
    return json.dumps(mutated_data(json.loads(text), choices))


def mutated_data(document: Any, choices: list[int]) -> Any:
    """Lists and dictionaries with values of other types and sizes in some places."""
    for choice in choices:
        draw = random.Random(choice)
        places = list(_places(document))
        if not places:
            break
        holder, key = draw.choice(places)
        if draw.random() < 0.2:
            del holder[key]
        elif draw.random() < 0.2:
            other, there = draw.choice(places)
            holder[key] = copy.deepcopy(other[there])
        else:
            holder[key] = draw.choice([*INTEGERS, *FLOATS, *TEXTS, None, True, [], {}, [[[]]], [0] * 9, {"a": 1}, 10**4000])
    return document


def mutated_toml(text: str, choices: list[int]) -> str:
    """The document with other lines, keys and values; or with other bytes."""
    for choice in choices:
        draw = random.Random(choice)
        lines = text.splitlines()
        at = draw.randrange(len(lines) or 1)
        action = draw.choice(("value", "value", "value", "option", "key", "table", "drop", "swap", "bytes"))
        if action == "bytes" or not lines:
            text = mutated_bytes(text.encode("utf-8", "surrogatepass"), [choice]).decode("utf-8", "surrogateescape")
            continue
        key, _, value = lines[at].partition(" = ")
        if action == "value" and value:
            lines[at] = f"{key} = {draw.choice(VALUES)}"
        elif action == "option":
            lines.insert(at + 1, f"{draw.choice(OPTIONS)} = {draw.choice(VALUES)}")
        elif action == "key":
            lines[at] = f"{draw.choice((*OPTIONS, *KEYS))} = {value}"
        elif action == "table":
            lines.insert(
                at,
                draw.choice(
                    ("[prune]", "[a.b]", "[[prune]]", "[quantize]", "[benchmark]", "[decode]", '["\\u001b[31m"]', "[run]")
                ),
            )
        elif action == "drop":
            del lines[at]
        else:
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        text = "\n".join(lines)
    return text


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from _places(inner)
