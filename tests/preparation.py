"""The law on passes that only prepare: whatever they do, the outputs of the file that was given are what they were.

ONNX Runtime runs the file itself, at several sizes, and what a pass made of it. A pass that writes a size of one of them into the
graph, leaves out an attribute, or stores a shared weight twice, breaks the law.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto

from axes.rules.conformance import DRAWS, build, draw
from axes.rules.samples import Sample
from onnxprune.driver import ort_quantizer
from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array
from onnxprune.options.targets import Align
from onnxprune.passes import Couple, Decode, Encode, FoldMasks, Lossless, Normalize, Restore
from onnxprune.passes.constants import gather_constants
from onnxprune.runtime.session import inference_session
from onnxprune.verify.comparison import TOLERANCE, difference

__all__ = ["GROWS", "PREPARING", "Preparing", "Source", "opened"]

_SLACK = 4096
"""Bytes by which what was prepared may be larger than the file: names, small constants and nodes, and no matrix."""

Preparing = Callable[[Model], Model]


def _gathered(model: Model) -> Model:
    changed = model.copy()
    gather_constants(changed)
    return changed


def _without_loss(model: Model) -> Model:
    return Lossless(Align(1)).run(Couple().run(Normalize().run(model))).model


def _for_int8(model: Model) -> Model:
    with ort_quantizer.Workshop(model) as workshop:
        prepared = workshop.prepare(opset=ort_quantizer.PER_CHANNEL)
        return Model.of(prepared.to_proto())  # which does not go away with the folder


PREPARING: dict[str, Preparing] = {
    "read": lambda model: model,
    "gather constants": _gathered,
    "fold masks": FoldMasks().run,
    "decode": Decode().run,
    "encode": lambda model: Encode().run(model).model,
    "encode fast": lambda model: Encode(mode="fast").run(model).model,
    "encode as sparse tensors": lambda model: Encode("coo").run(model).model,
    "encode and decode": lambda model: Decode().run(Encode().run(model).model),
    "normalize": lambda model: Normalize().run(model).model,
    "normalize and restore": lambda model: Restore().run(Normalize().run(model).model, model),
    "lossless": _without_loss,
    "prepare for int8": _for_int8,
}
"""Passes, and what commands make of several, that must not change what a model computes."""
GROWS = frozenset({"normalize", "lossless", "prepare for int8"})
"""Those of which nothing is written before other passes have run: constants that nodes make are folded there."""


@dataclass(frozen=True)
class Source:
    """A file, inputs of it, and what it computes from them.

    Attributes:
        proto: the file.
        feeds: inputs of several sizes.
        outputs: for each of them.
    """

    proto: ModelProto
    feeds: Sequence[Mapping[str, Array]]
    outputs: Sequence[Sequence[Any]]

    @classmethod
    def of(cls, proto: ModelProto, feeds: Sequence[Mapping[str, Array]]) -> Source:
        """Raises what ONNX Runtime does where it does not run the file on the inputs."""
        session = inference_session(proto, optimize=False)
        return cls(proto, feeds, [session.run(None, dict(feed)) for feed in feeds])

    def breach(self, preparing: Preparing, *, grows: bool = False) -> str:
        """What a pass changed, in words; empty where the law holds. ``grows``: whether the result may be larger than the file."""
        made = preparing(Model.of(self.proto))
        proto = made.to_proto()
        if not grows and proto.ByteSize() > self.proto.ByteSize() + _SLACK:
            return f"it takes {proto.ByteSize()} bytes, and the file {self.proto.ByteSize()}"
        for side in ("input", "output"):
            if [v.name for v in getattr(proto.graph, side)] != [v.name for v in getattr(self.proto.graph, side)]:
                return f"the {side}s are others"
        try:
            session = inference_session(proto, optimize=False)
        except ModelError as error:
            return str(error)
        for feed, expected in zip(self.feeds, self.outputs, strict=True):
            sizes = {name: array.shape for name, array in feed.items()}
            try:
                got = session.run(None, dict(feed))
            except Exception as error:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
                return f"it does not run on {sizes}: {error}"
            for output, one, other in zip(proto.graph.output, got, expected, strict=True):
                gap = difference(one, other)
                if gap > TOLERANCE.get(str(getattr(other, "dtype", "")), TOLERANCE["float32"]):
                    return f"{output.name!r} differs by {gap:.1e} on {sizes}"
        return ""


def opened(sample: Sample) -> Source:
    """A sample of a rule whose inputs have an open axis, and inputs of three sizes; of one size where it takes no other."""
    drawn = [at for at, given in enumerate(sample.inputs) if isinstance(given, str)]
    shapes = {at: Sample.shape(str(sample.inputs[at]))[0] for at in drawn}
    for axis in (0, -1):
        sizes = [shape[axis] for shape in shapes.values() if len(shape) > 1]
        if not sizes:
            continue
        resized = [_resized(sample, shapes, axis, sizes[0], to) for to in (sizes[0], 1, 3 * sizes[0] + 1)]
        proto = _open(build(sample, draw(sample, "mixed")), shapes, axis, sizes[0])
        try:
            return Source.of(proto, list(map(_feeds, resized, DRAWS)))
        except Exception:  # noqa: BLE001, S112 - onnxruntime derives its exceptions from Exception alone
            continue
    return Source.of(build(sample, draw(sample, "mixed")), [_feeds(sample, how) for how in DRAWS])


def _feeds(sample: Sample, how: str) -> dict[str, Array]:
    values = zip(sample.inputs, draw(sample, how), strict=True)
    return {f"x{at}": value for at, (given, value) in enumerate(values) if isinstance(given, str) and value is not None}


def _resized(sample: Sample, shapes: Mapping[int, tuple[int, ...]], axis: int, size: int, to: int) -> Sample:
    """The sample with another size along an axis of every input that has the same size there."""
    inputs = list(sample.inputs)
    for at, shape in shapes.items():
        if len(shape) > 1 and shape[axis] == size:
            changed = list(shape)
            changed[axis] = to
            inputs[at] = str(sample.inputs[at]).replace(" ".join(map(str, shape)), " ".join(map(str, changed)))
    return replace(sample, inputs=tuple(inputs))


def _open(proto: ModelProto, shapes: Mapping[int, tuple[int, ...]], axis: int, size: int) -> ModelProto:
    names = {f"x{at}": shape for at, shape in shapes.items() if len(shape) > 1 and shape[axis] == size}
    for value in proto.graph.input:
        if value.name in names:
            value.type.tensor_type.shape.dim[axis].dim_param = "open"
    return proto


def noise(proto: ModelProto, sizes: Sequence[Mapping[str, int]], seed: int = 0) -> list[dict[str, Array]]:
    """Float inputs of a model for several sizes of its named dimensions."""
    rng, found = np.random.default_rng(seed), []
    for named in sizes:
        shapes = {v.name: [named.get(d.dim_param, d.dim_value) for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}
        found.append({name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})
    return found
