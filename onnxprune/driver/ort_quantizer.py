"""ONNX Runtime's quantizer: kept quiet, fed one batch at a time, and with every file that it writes in a folder that goes away.

It imports onnxruntime only when something is quantised.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from onnx import ModelProto, TensorProto, helper, version_converter

from onnxprune.errors import ModelError, OnnxPruneError
from onnxprune.ir import files
from onnxprune.ir.model import Model
from onnxprune.ir.node import domain_of
from onnxprune.ir.weights import Weight
from onnxprune.runtime import session
from onnxprune.runtime.custom_operators import libraries, register_libraries

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples

__all__ = ["BYTES", "PER_CHANNEL", "PER_TENSOR", "Settings", "Workshop", "operators"]

BYTES = frozenset({TensorProto.INT8, TensorProto.UINT8})
"""Element types of quantised weights."""
_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""How the ranges of activations are found, and ONNX Runtime's names of that."""
PER_TENSOR, PER_CHANNEL = 10, 13
"""The first operator sets of ``QuantizeLinear``, and of its axis."""
_BATCH = 16
"""Samples in memory at a time, with every value inside the graph where histograms are taken."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the quantizer is told.

    Attributes:
        method: one of `onnxprune.options.quantize.RANGES`.
        percentile: of the values of an activation that its range holds, in percent.
        per_channel: whether each output channel of a weight has its own scale.
        activations: ``uint8`` or ``int8``; int8 is symmetric.
        reduce_range: whether weights take 7 bits.
        exclude: names of nodes that stay in floating point.
    """

    method: str
    percentile: float
    per_channel: bool
    activations: str
    reduce_range: bool
    exclude: Sequence[str]


def operators() -> frozenset[str]:
    """Operators that the quantizer may put into int8."""
    from onnxruntime.quantization import registry

    return frozenset(registry.QDQRegistry) | frozenset(registry.QLinearOpsRegistry)


class Workshop:
    """A model on its way to int8, in a folder of its own that is there as long as the context.

    Attributes:
        original: the model as it came, with weights as constants; every node has a name.
        said: what the quantizer warned of.
    """

    def __init__(self, original: Model) -> None:
        self.original = original
        self.said: list[str] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxprune-")))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def _large(self) -> bool:
        return self.original.nbytes >= files.LIMIT

    def prepare(self, *, opset: int) -> Model:
        """Bring the model to an operator set, and fold what is constant: batch normalisation into the convolution before it.

        Raises:
            ModelError: the operator set is too old and cannot be converted.
        """
        path, model = self._folder / "float.onnx", self.original
        if model.opset < opset:
            model = self._converted(opset)
        files.save(_with_types(model), path)
        self._ready = path
        if self._large:  # the optimizer would need the whole model in memory, several times
            return Model.of(path)
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self._ready = self._folder / "prepared.onnx"
        with self._quiet(), _told(f"{model.name}: ONNX Runtime does not prepare it for int8"):
            quant_pre_process(str(path), str(self._ready), skip_symbolic_shape=True)
        return Model.of(self._ready)

    def _converted(self, opset: int) -> Model:
        model = self.original
        remedy = f"export it again with operator set {max(opset, 17)}"
        remedy += ", or use --per-tensor" if PER_TENSOR <= model.opset < opset else ""
        too_old = f"{model.name}: has operator set {model.opset}, and int8 needs {opset}: {remedy}"
        if self._large:
            raise ModelError(too_old)
        try:
            return Model.of(version_converter.convert_version(model.to_proto(), opset))
        except Exception as error:  # the converter raises what its C++ does
            raise ModelError(f"{too_old}; converting it failed: {session.first_line(error)}") from error

    def quantize(self, settings: Settings, samples: Samples) -> Model:
        """The model with quantised constants, and ``QuantizeLinear`` and ``DequantizeLinear`` around what computes in int8.

        Ranges are measured the first time and kept for the next, where ONNX Runtime can (1.31): only ``exclude`` may change then.

        Raises:
            ModelError: the quantizer does not take the model.
            OptionError: the samples do not fit.
        """
        from onnxruntime import quantization

        path = self._folder / "int8.onnx"
        static, ranges = quantization.quantize_static, self._folder / "ranges.json"
        kept = {"calibration_cache_path": str(ranges)} if "calibration_cache_path" in signature(static).parameters else {}
        kind = "QUInt8" if settings.activations == "uint8" else "QInt8"
        with self._quiet(), _told(f"{self.original.name}: ONNX Runtime does not quantise it"):
            static(
                str(self._ready),
                str(path),
                _Reader(samples),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=settings.per_channel,
                reduce_range=settings.reduce_range,
                activation_type=quantization.QuantType[kind],
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=list(settings.exclude),
                use_external_data_format=self._large,
                calibrate_method=quantization.CalibrationMethod[_METHODS[settings.method]],
                extra_options={
                    "WeightSymmetric": True,  # zeros stay zeros
                    "ActivationSymmetric": settings.activations == "int8",
                    "CalibTensorRangeSymmetric": False,  # of percentiles, it is unless told, and what ReLU leaves loses a bit
                    "CalibPercentile": settings.percentile,
                    "CalibStridedMinMax": 1,  # ranges are merged after every batch, whatever the method: one is in memory
                },
                **kept,
            )
        return _in_memory(path)

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Nothing is printed; what the quantizer warns of is kept; its sessions have the custom operators."""
        import onnxruntime as ort

        def with_libraries() -> Any:
            options = plain()
            register_libraries(options)
            return options

        root, plain = logging.getLogger(), ort.SessionOptions
        ort.SessionOptions = with_libraries  # the quantizer lets nobody say with which options it runs a model
        handlers, root.handlers = root.handlers, [_Keeper(self.said)]
        ort.set_default_logger_severity(4)
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            ort.SessionOptions = plain
            root.handlers = handlers
            ort.set_default_logger_severity(2)  # what it is unless told; it cannot be asked


def _with_types(model: Model) -> Model:
    """A model that declares which outputs of custom operators are floats: the quantizer leaves alone what has no type."""
    made = [name for node in model.graph.node if domain_of(node) for name in node.output if name]
    if not libraries() or not made:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    types = session.Session(model, made, optimize=False).output_types
    floats = [name for name, kind in types.items() if kind == "tensor(float)"]
    declared = {value.name for value in (*proto.graph.value_info, *proto.graph.output)}
    proto.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in floats if name not in declared
    )
    return Model(proto, model.weights, model.name)


class _Keeper(logging.Handler):
    """Keeps warnings, one of those that differ in quoted names alone."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said, self._known = said, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        kind = re.sub(r"'[^']*'|`[^`]*`", "", text)
        if kind not in self._known and "pre-processing" not in text:
            self._said.append(text)
        self._known.add(kind)


class _Reader:
    """Samples as the quantizer takes them: some batches of all, by number, in the order that they come in."""

    def __init__(self, samples: Samples) -> None:
        self._batches = samples.batches(_BATCH)
        self._count, self._left = sum(1 for _ in samples.batches(_BATCH)), 0

    def __len__(self) -> int:
        return self._count

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = end_index - start_index

    def get_next(self) -> dict[str, Any] | None:
        if self._left == 0:
            return None
        self._left -= 1
        batch = next(self._batches, None)
        return None if batch is None else dict(batch.feeds)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What the quantizer raises, as an error that names the model."""
    try:
        yield
    except OnnxPruneError:
        raise
    except Exception as error:  # it raises anything
        text = session.first_line(error) if str(error).strip() else type(error).__name__
        raise ModelError(f"{what}: {text}; leave nodes out with --exclude") from error


def _in_memory(path: Path) -> Model:
    """A model whose file may go away."""
    model = Model.of(path)
    if model.external:
        model.weights = {name: Weight(name, None, weight.array().copy()) for name, weight in model.weights.items()}
    return model
