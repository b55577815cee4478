"""What int8 adds to a file takes few bytes: its names are short, its equal constants are one, and no default is spelled out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import NodeProto, TensorProto

from onnxprune.ir.model import Model
from onnxprune.ir.node import QDQ, defined, domain_of, every_body, every_graph, every_node
from onnxprune.ir.plain import default_attributes
from onnxprune.passes.base import Pass
from onnxprune.passes.bodies import rename, replace_all

if TYPE_CHECKING:
    from onnxprune.ir.weights import Array

__all__ = ["Compact"]

_SUFFIXES = ("_quantized", "__own")
"""Behind the name that a constant or value has in the file: of its integers, and of what made room for another of that name."""
_STEMS = {"QuantizeLinear": "q", "DequantizeLinear": "dq"}
"""Of the names of what these make."""


@dataclass(frozen=True)
class Compact(Pass):
    """A file with ``QuantizeLinear`` and ``DequantizeLinear``, in fewer bytes; it computes the same.

    The quantizer spells the name of a value up to eleven times for each pair of these, which is more than the weights of a small
    network. Afterwards names of the file are as they were, the integers of ``w`` are called ``w``, and all else has a short name:
    ``q3``, ``dq3``, ``scale3``, ``zero3``. Equal scales, and equal zero points, are stored once. Biases in int32 have no zero
    point, which is 0 by the standard. Descriptions that are not those of the file are gone.
    """

    def run(self, model: Model, original: Model) -> Model:
        """The model in fewer bytes.

        Args:
            model: made from ``original``; every ``QuantizeLinear`` and ``DequantizeLinear`` that its main graph has is new.
            original: the file, as it was read.
        """
        result = model.copy()
        _drop_default_points(result)
        _share_parameters(result)
        new = _new_names(result, original)
        rename(result.graph, new)
        result.weights = {new.get(name, name): weight.renamed(new.get(name, name)) for name, weight in result.weights.items()}
        _tidy_nodes(result, original)
        _drop_default_attributes(result, original)
        made = {name for node in result.graph.node for name in node.output}
        recorded = [value for value in result.graph.value_info if value.name in made - set(new.values())]
        replace_all(result.graph.value_info, recorded)
        return result


def _converting(model: Model) -> Iterator[NodeProto]:
    return (node for node in model.graph.node if node.op_type in QDQ and not domain_of(node))


def _drop_default_points(model: Model) -> None:
    """Take away zero points of int32, which are 0: one of four bytes for each channel of a layer."""
    for node in _converting(model):
        point = model.weights.get(node.input[2]) if len(node.input) > 2 else None
        if point is not None and point.dtype == TensorProto.INT32 and not point.array().any():
            del node.input[2:]
    _drop_unread(model)


def _share_parameters(model: Model) -> None:
    """Store equal scales, and equal zero points, once."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    for node in _converting(model):
        for at, name in enumerate(node.input):
            weight = model.weights.get(name)
            if at and weight is not None and name not in model.overridable:
                node.input[at] = first.setdefault((weight.dtype, tuple(weight.shape), _bytes(weight.array())), name)
    _drop_unread(model)


def _bytes(array: Array) -> bytes:
    return bytes(array.tobytes())


def _drop_unread(model: Model) -> None:
    """Take away the parameters that nothing reads any more."""
    read = {name for node in every_node(model.graph) for name in node.input}
    read.update(value.name for graph in every_graph(model.graph) for value in graph.output)
    read.update(model.overridable)
    model.weights = {name: weight for name, weight in model.weights.items() if name in read}


def _new_names(model: Model, original: Model) -> dict[str, str]:
    """The names of values of the main graph that change: first those go back to the file's that belong to it."""
    fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
    known = original.weights.keys() | {name for graph in every_graph(original.graph) for name in defined(graph)}
    kinds = dict(_kinds(model))
    named = dict.fromkeys([*kinds, *model.weights, *(name for node in model.graph.node for name in node.output if name)])
    changing = [name for name in named if name not in fixed and (name in kinds or name not in known)]
    taken = fixed | set(named).difference(changing)
    taken.update(name for body in every_body(model.graph) for name in defined(body))
    new: dict[str, str] = {}
    stems = {name: name.removesuffix(end) for name in changing for end in _SUFFIXES if name.endswith(end)}
    for name, stem in (*stems.items(), *_in_place_of(model, original)):
        free = stem in known and stem not in taken
        if free and name in changing and name not in new and (name in model.weights or name not in kinds):
            new[name] = stem
            taken.add(stem)
    new |= _numbered([name for name in changing if name not in new], kinds, taken | known)
    return {name: to for name, to in new.items() if name != to}


def _in_place_of(model: Model, original: Model) -> Iterator[tuple[str, str]]:
    """Constants that nodes read, themselves or converted, with those that nodes of the same name read in the file.

    A batch normalisation that is folded into a convolution leaves it a weight and a bias of other names.
    """
    integers = {node.output[0]: node.input[0] for node in _converting(model) if node.op_type == "DequantizeLinear"}
    twins = {node.name: node for node in original.graph.node if node.name}
    for node in model.graph.node:
        twin = twins.get(node.name)
        if twin is not None and twin.op_type == node.op_type:
            for name, was in zip(node.input, twin.input, strict=False):
                if was in original.weights:
                    yield integers.get(name, name), was


def _kinds(model: Model) -> Iterator[tuple[str, str]]:
    """The values that ``QuantizeLinear`` and ``DequantizeLinear`` make and take, each with the stem of its name."""
    for node in _converting(model):
        yield node.output[0], _STEMS[node.op_type]
        yield from zip((name for name in node.input[1:] if name in model.weights), ("scale", "zero"), strict=False)


def _numbered(names: list[str], kinds: Mapping[str, str], taken: set[str]) -> dict[str, str]:
    """Short names, with a number behind what they are."""
    counts: dict[str, int] = {}
    found = {}
    for name in names:
        stem = kinds.get(name, "v")
        number = counts.get(stem, 0)
        while f"{stem}{number}" in taken:
            number += 1
        found[name] = f"{stem}{number}"
        counts[stem] = number + 1
    return found


def _tidy_nodes(model: Model, original: Model) -> None:
    """Give nodes the names that they have in the file, or where they convert that of their output; new descriptions go."""
    file = list(every_node(original.graph))
    names, described = {node.name for node in file}, {node.doc_string for node in file}
    makers = {name: node.name for node in file for name in node.output}
    used = {""} | {node.name for node in model.graph.node if node.name in names and node.op_type not in QDQ}
    for node in model.graph.node:
        if node.op_type in QDQ or node.name not in names:
            name = node.output[0] if node.op_type in QDQ else makers.get(node.output[0], "")
            node.name = "" if name in used else name  # ONNX Runtime takes no two nodes of one name
            used.add(node.name)
        if node.doc_string not in described:
            node.ClearField("doc_string")


def _drop_default_attributes(model: Model, original: Model) -> None:
    """Take away attributes that say what the standard does, except those in the file: ONNX Runtime spells them out."""
    spelled = {
        (node.op_type, name, attribute.name)
        for node in every_node(original.graph)
        for name in node.output
        for attribute in node.attribute
    }
    for node in model.graph.node:
        known = {} if domain_of(node) else default_attributes(node.op_type, model.opset)
        new = [one for one in node.attribute if (node.op_type, node.output[0], one.name) not in spelled]
        gone = [one.name for one in new if one.name in known and known[one.name] == one.SerializeToString()]
        if gone:
            replace_all(node.attribute, [one for one in node.attribute if one.name not in gone])
