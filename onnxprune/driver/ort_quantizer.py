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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from onnx import ModelProto, TensorProto, helper, version_converter

from onnxprune.driver.int8_layers import (
    as_constants,
    as_defaults,
    make_biases_vectors,
    masked_scores,
    name_nodes,
    separate_names,
    unlike_parts,
)
from onnxprune.errors import ModelError, OnnxPruneError
from onnxprune.ir import files
from onnxprune.ir.model import DEFAULTS, Model
from onnxprune.ir.node import domain_of
from onnxprune.ir.temporary import temporary_folder
from onnxprune.ir.weights import Weight
from onnxprune.passes.bodies import replace_all
from onnxprune.passes.generated import generated_weights
from onnxprune.passes.normalize import remove_unused
from onnxprune.runtime import session
from onnxprune.runtime.custom_operators import register_libraries
from onnxprune.runtime.float_outputs import with_float_outputs
from onnxprune.runtime.int8_operators import operators
from onnxprune.runtime.parallel import at_once, map_ordered
from onnxprune.runtime.stopping import run_options
from onnxprune.shapes.run_memory import runs_that_fit
from onnxprune.verify.law import isolate

if TYPE_CHECKING:
    from onnxprune.data.batching import Batch
    from onnxprune.data.samples import Samples

__all__ = ["BYTES", "PER_CHANNEL", "PER_TENSOR", "Settings", "Workshop"]

BYTES = frozenset({TensorProto.INT8, TensorProto.UINT8})
"""Element types of quantised weights."""
_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""How the ranges of activations are found, and ONNX Runtime's names of that."""
PER_TENSOR, PER_CHANNEL = 10, 13
"""The first operator sets of ``QuantizeLinear``, and of its axis."""
_INFINITE, _MASKED = "is not finite on the samples", "is masked by numbers so low that int8 tells no others apart"
_UNLIKE = "holds numbers so small beside others that int8 tells them from zero no more"
"""Why a value has no range."""
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
        whole: names of weights that have one scale, even if ``per_channel``.
    """

    method: str
    percentile: float
    per_channel: bool
    activations: str
    reduce_range: bool
    exclude: Sequence[str] = ()
    whole: Sequence[str] = ()


class Workshop:
    """A model on its way to int8, in a folder of its own that is there as long as the context.

    Attributes:
        original: the model as it came, with weights as constants; every node has a name.
        said: what the quantizer warned of.
        remedy: what to do if the model is another in the operator set that int8 needs; empty if it had that.
        source: the model in the operator set that int8 needs; nothing is folded in it.
        generated: the weights of it that nodes make of next to nothing, which stay in floating point.
    """

    def __init__(self, original: Model) -> None:
        self.original = original
        self.said: list[str] = []
        self.remedy = ""
        self.source, self.generated = original, dict[str, Weight]()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._folder = self._stack.enter_context(temporary_folder())
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
        model = self.original
        if model.opset < opset:
            model = self._converted(opset)
        self.source, self.generated = model, generated_weights(model)
        files.save(_for_quantizer(as_defaults(model, self.generated.values())), self._plain)
        if self._large:  # the optimizer would need the whole model in memory, several times
            return self.plain()
        from onnxruntime.quantization.shape_inference import quant_pre_process

        folded = self._folder / "prepared.onnx"
        with self._quiet(), _told(f"{model.name}: ONNX Runtime does not prepare it for int8"):
            quant_pre_process(str(self._plain), str(folded), skip_symbolic_shape=True)
        return self._readied(folded)

    def plain(self) -> Model:
        """The model in the operator set that it was brought to; nothing is folded, and what was is forgotten."""
        return self._readied(self._plain)

    def _readied(self, path: Path) -> Model:
        """The model in a file, in forms that the quantizer takes; it is what `quantize` reads from now on."""
        self._ready, model = path, Model.of(path)
        if any([name_nodes(model), separate_names(model), make_biases_vectors(model)]):
            self._ready = self._folder / "ready.onnx"
            files.save(model, self._ready)
        return as_constants(model, self.generated)

    @property
    def _plain(self) -> Path:
        return self._folder / "float.onnx"

    def _converted(self, opset: int) -> Model:
        model = self.original
        self.remedy = f"export it again with operator set {max(opset, 17)}"
        self.remedy += ", or use --per-tensor" if PER_TENSOR <= model.opset < opset else ""
        too_old = f"{model.name}: has operator set {model.opset}, and int8 needs {opset}: {self.remedy}"
        if self._large:
            raise ModelError(too_old)
        try:
            return Model.of(version_converter.convert_version(model.to_proto(), opset))
        except Exception as error:  # the converter raises what its C++ does
            raise ModelError(f"{too_old}; converting it failed: {session.first_line(error)}") from error

    def measure(self, settings: Settings, samples: Samples) -> dict[str, str]:
        """Find the range of each value on samples; returns the nodes that touch one without, by name, and why.

        Raises:
            ModelError: ONNX Runtime does not run the model.
            OptionError: the samples do not fit.
        """
        from onnxruntime.quantization import CalibrationMethod, calibrate

        with self._quiet(), _told(f"{self.original.name}: ONNX Runtime does not measure ranges of it"):
            calibrator = calibrate.create_calibrator(
                self._ready,
                sorted(operators()),
                str(self._folder / "measured.onnx"),
                CalibrationMethod[_METHODS[settings.method]],
                use_external_data_format=self._large,
                extra_options={
                    "symmetric": False,  # of percentiles, they are unless told, and what ReLU leaves loses a bit
                    "percentile": settings.percentile,
                },
            )
            running = calibrator.infer_session
            size, needed = runs_that_fit(self.original, _BATCH)

            def run(batch: Batch) -> list[Any]:
                results: list[Any] = running.run(None, batch.feeds, run_options())
                return results

            count = at_once(needed) if settings.method == "minmax" else 1  # other methods get all that the model computes
            for results in map_ordered(run, samples.batches(size), count):
                calibrator.infer_session = _Run(running, results)
                calibrator.collect_data(_Feed())  # ranges are merged after every batch, whatever the method
            self._ranges = calibrator.compute_data()
        found = {name: data.range_value for name, data in self._ranges.items()}
        nodes = Model.of(self._ready).graph.node
        without = {name: _INFINITE for name, ends in found.items() if not all(np.isfinite(end).all() for end in ends)}
        finite = {name: ends for name, ends in found.items() if name not in without}
        without |= dict.fromkeys(masked_scores(nodes, finite), _MASKED)
        without |= dict.fromkeys(unlike_parts(nodes, finite) - without.keys(), _UNLIKE)
        for name in without.keys() & found.keys():
            del self._ranges.data[name]
        touching = [(node.name, sorted(without.keys() & {*node.input, *node.output})) for node in nodes]
        return {name: f"{values[0]!r} {without[values[0]]}" for name, values in touching if values}

    def quantize(self, settings: Settings) -> Model:
        """The model with quantised constants, and ``QuantizeLinear`` and ``DequantizeLinear`` around what computes in int8.

        Its ranges must have been measured.

        Raises:
            ModelError: the quantizer does not take the model.
        """
        from onnxruntime.quantization import QuantType, quant_utils
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        path = self._folder / "int8.onnx"
        whole = {"quant_type": QuantType.QInt8, "symmetric": True, "reduce_range": settings.reduce_range}
        with self._quiet(), _told(f"{self.original.name}: ONNX Runtime does not quantise it"):
            quantizer = QDQQuantizer(
                quant_utils.load_model_with_shape_infer(self._ready),
                settings.per_channel,
                settings.reduce_range,
                QuantType.QInt8,
                QuantType.QUInt8 if settings.activations == "uint8" else QuantType.QInt8,
                self._ranges,
                [],
                list(settings.exclude),
                sorted(operators()),
                {
                    "WeightSymmetric": True,  # zeros stay zeros
                    "ActivationSymmetric": settings.activations == "int8",
                    "TensorQuantOverrides": {name: [dict(whole)] for name in settings.whole} if settings.per_channel else {},
                },
            )
            quantizer.quantize_model()
            quantizer.model.save_model_to_file(str(path), self._large)
        return as_constants(_with_float_outputs(_in_memory(path), Model.of(self._ready)), self.generated)

    def quantize_most(self, settings: Settings, samples: Samples) -> tuple[Model, dict[str, str]]:
        """`quantize`, without the nodes that the quantizer fails at, or that do not run then; with their names and reasons.

        They are found by halving.

        Raises:
            ModelError: the quantizer does not take the model, whatever is left out.
            OptionError: the samples do not fit.
        """
        every = [node.name for node in Model.of(self._ready).graph.node if node.name not in set(settings.exclude)]
        reasons: dict[str, str] = {}

        def attempt(names: Sequence[str]) -> Model:
            model = self.quantize(replace(settings, exclude=[*settings.exclude, *sorted(set(every).difference(names))]))
            with _told(f"{self.original.name}: does not run in int8"):
                session.Session(model, fuse=True).run(next(iter(samples.batches(1))).feeds)
            return model

        def holds(names: Sequence[str]) -> bool:
            try:
                attempt(names)
            except ModelError as error:
                why = session.first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
                reasons.update(dict.fromkeys(names, f"ONNX Runtime fails at it: {why}"))
                return False
            return True

        try:
            return attempt(every), {}
        except ModelError:
            if not holds([]):
                raise
        left = every
        while wrong := isolate(left, holds):  # some fail only in company, and are found one after the other
            left = [name for name in left if name not in wrong]
        return attempt(left), {name: reasons[name] for name in every if name not in left}

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Nothing is printed; what the quantizer warns of is kept; its sessions have the custom operators.

        Its temporary files lie in the folder of this object, which goes even if the process is killed.
        """
        import onnxruntime as ort

        def with_libraries() -> Any:
            options = plain()
            options.intra_op_num_threads = 1  # so that ranges do not depend on it: batches are run side by side
            register_libraries(options)
            return options

        root, plain, place = logging.getLogger(), ort.SessionOptions, tempfile.tempdir
        tempfile.tempdir = str(self._folder)
        ort.SessionOptions = with_libraries  # the quantizer lets nobody say with which options it runs a model
        handlers, root.handlers = root.handlers, [_Keeper(self.said)]
        ort.set_default_logger_severity(4)
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            ort.SessionOptions, tempfile.tempdir = plain, place
            root.handlers = handlers
            ort.set_default_logger_severity(2)  # what it is unless told; it cannot be asked


def _for_quantizer(model: Model) -> Model:
    """A model as the quantizer reads it best: in a format whose constants are no inputs, with the types of all operators.

    In older formats ONNX Runtime leaves constants among the inputs that it has replaced by equal ones. The quantizer leaves alone
    what has no type; those of operators outside of the standard are declared.
    """
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    proto.ir_version = max(proto.ir_version, DEFAULTS)
    made = [name for node in model.graph.node if domain_of(node) for name in node.output if name]
    types = session.Session(model, made, optimize=False).output_types if made else {}
    floats = [name for name, kind in types.items() if kind == "tensor(float)"]
    declared = {value.name for value in (*proto.graph.value_info, *proto.graph.output)}
    proto.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in floats if name not in declared
    )
    return Model(proto, model.weights, model.name, sizes=model.sizes)


class _Keeper(logging.Handler):
    """Keeps warnings, one of those that differ in quoted names alone."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said, self._known = said, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        kind = re.sub(r"'[^']*'|`[^`]*`", "", text)
        if kind not in self._known:
            self._said.append(text)
        self._known.add(kind)


@dataclass(frozen=True, slots=True)
class _Run:
    """A session that has run on one batch, as the quantizer asks it."""

    session: Any
    results: Sequence[Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, *_: object) -> Sequence[Any]:
        return self.results


class _Feed:
    """The batch of a `_Run`, as the quantizer reads it."""

    def __init__(self) -> None:
        self._left = [True]

    def get_next(self) -> bool | None:
        return self._left.pop() if self._left else None


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What the quantizer raises, as an error that names the model."""
    try:
        yield
    except (OnnxPruneError, MemoryError):
        raise
    except Exception as error:  # it raises anything
        raise ModelError(f"{what}: {session.first_line(error)}") from error


def _in_memory(path: Path) -> Model:
    """A model whose file may go away."""
    model = Model.of(path)
    if model.external:
        model.weights = {name: Weight(name, None, weight.array().copy()) for name, weight in model.weights.items()}
    return model


def _with_float_outputs(model: Model, original: Model) -> Model:
    """The model, in which products output floats where only floats read them; it is changed."""
    nodes = list(model.graph.node)
    names = {node.name for node in nodes}
    rectified = {name for node in original.graph.node if node.name not in names for name in node.output}
    kept = with_float_outputs(nodes, {output.name for output in model.graph.output}, rectified)
    if len(kept) < len(nodes):
        replace_all(model.graph.node, kept)
        remove_unused(model)
    return model
