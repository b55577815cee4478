"""ONNX Runtime, as the compiler uses it: sessions, feeds, evaluation of constants.

Custom operators, the benchmark and the quantizer alone import onnxruntime besides it; each does so only when something runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.node import every_body
from onnxprune.ir.subgraph import subgraph
from onnxprune.runtime.affordable import affordable
from onnxprune.runtime.custom_operators import register_libraries
from onnxprune.runtime.draws import fix_draws
from onnxprune.runtime.stopping import run_options
from onnxprune.runtime.threads import threads as default_threads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnxruntime
    from onnx import GraphProto

    from onnxprune.ir.model import Model
    from onnxprune.ir.types import Shape
    from onnxprune.ir.weights import Array, Weight

__all__ = [
    "Session",
    "declare_lent",
    "evaluate",
    "first_line",
    "inference_session",
    "lend",
    "random_feeds",
    "session_options",
    "value_info",
]

_SHARED = 1024
"""Bytes from which a weight is handed over instead of copied into the graph; smaller ones are copied in no time."""
_BFLOAT16 = "tensor(bfloat16)"
"""As ONNX Runtime spells the type; its Python interface has no arrays of it."""


def lend(proto: ModelProto, weights: Iterable[Weight]) -> dict[str, Any]:
    """Declare weights in a graph; small ones go inside, the others are returned as ``add_external_initializers`` takes them.

    Keep what is returned as long as the session: it holds the memory.
    """
    lent: dict[str, Any] = {}
    for weight in weights:
        array = np.ascontiguousarray(weight.array()) if weight.nbytes >= _SHARED else None
        shared = None if array is None or array.nbytes != weight.nbytes else _hand_over(array, weight.dtype)
        if array is None or shared is None:
            weight.append_to(proto.graph.initializer)
            continue
        declare_lent(proto, weight.name, weight.dtype, weight.shape, array.nbytes)
        lent[weight.name] = shared
    return lent


def declare_lent(proto: ModelProto, name: str, dtype: int, dims: Iterable[int], nbytes: int) -> None:
    """Declare a constant of a graph that a session is lent."""
    tensor = proto.graph.initializer.add(name=name, data_type=dtype, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "memory"), ("offset", "0"), ("length", str(nbytes))):
        tensor.external_data.add(key=key, value=value)


class Session:
    """A model in ONNX Runtime on the CPU, without a second copy of its weights.

    Weights are handed over as they lie in memory (or are mapped from a file) and are never serialised, so that models of any
    size load fast.
    """

    def __init__(
        self,
        model: Model,
        outputs: Sequence[str] | None = None,
        *,
        optimize: bool = True,
        fuse: bool = False,
        threads: int = 1,
    ) -> None:
        """Load a model, with its own or other values as outputs.

        With ``fuse`` it computes as it does for users: kernels of int8 take the place of quantised nodes, which otherwise compute
        in floating point, exactly.

        Random numbers are the same in every run, see `onnxprune.runtime.draws`.

        One thread adds in one order, so that a run repeats to the bit, and takes the least processor time; 0 takes all cores.

        Raises:
            ModelError: ONNX Runtime does not accept the model, or Python has no arrays for its inputs or outputs.
        """
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        if outputs is not None:
            known = {output.name: output for output in proto.graph.output}
            chosen = [known.get(name, ValueInfoProto(name=name)) for name in outputs]
            del proto.graph.output[:]
            proto.graph.output.extend(chosen)
        fix_draws(proto)
        read = set(_read(proto.graph))  # ONNX Runtime drops what nothing reads, and then does not take its values
        self._weights = lend(proto, [weight for name, weight in model.weights.items() if name in read])
        options = _cpu_options(optimize=optimize, fuse=fuse, threads=threads, lent=self._weights)
        self._session = _load(proto, options, model.name)
        for value in (*self._session.get_inputs(), *self._session.get_outputs()):
            if _BFLOAT16 in value.type:
                raise ModelError(f"{model.name}: ONNX Runtime cannot pass {value.name!r} in bfloat16 to or from Python")

    @property
    def output_types(self) -> dict[str, str]:
        """The types of the outputs by name, as ONNX Runtime spells them: ``tensor(float)``."""
        return {value.name: value.type for value in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs for some inputs; raises what ONNX Runtime raises."""
        results: list[Any] = self._session.run(None, dict(feeds), run_options())
        return results


def _read(graph: GraphProto) -> Iterator[str]:
    """The values that a graph and its bodies read or return."""
    for part in (graph, *every_body(graph)):
        yield from (value.name for value in part.output)
        for node in part.node:
            yield from node.input


def _hand_over(array: Array, dtype: int) -> Any:
    """ONNX Runtime's view of an array; ``None`` for a type that it does not take from Python."""
    import onnxruntime as ort

    if dtype == TensorProto.BFLOAT16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), dtype)
    return ort.OrtValue.ortvalue_from_numpy(array) if array.dtype.kind in "fiub" else None


def session_options(*, threads: int = 0, lent: Mapping[str, Any] | None = None) -> onnxruntime.SessionOptions:
    """The options that every session starts from; no other function makes any.

    Args:
        threads: threads within one operator; 0 for as many as `onnxprune.runtime.threads` says, 1 for the calling thread alone.
        lent: the weights that the model declares to lie in memory, as `lend` returns them.
    """
    import onnxruntime as ort  # takes 0.1 s; only what runs a model needs it

    options = ort.SessionOptions()
    options.log_severity_level = 4  # "fatal": ONNX Runtime raises its errors, and the log would only repeat them
    options.intra_op_num_threads = threads or default_threads()
    register_libraries(options)
    if lent:
        options.add_external_initializers(list(lent), list(lent.values()))
    return options


def _cpu_options(
    *, optimize: bool, fuse: bool = False, threads: int = 0, lent: Mapping[str, Any] | None = None
) -> onnxruntime.SessionOptions:
    """The options of the compiler's own runs: threads do not spin, so that idle ones take no processor time."""
    import onnxruntime as ort

    options = session_options(threads=threads, lent=lent)
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
    level = ort.GraphOptimizationLevel
    wanted = level.ORT_ENABLE_ALL if fuse else level.ORT_ENABLE_BASIC
    options.enable_cpu_mem_arena = False  # which would keep the peak of every session until it ends
    options.graph_optimization_level = wanted if optimize else level.ORT_DISABLE_ALL
    return options


def inference_session(proto: ModelProto, name: str = "<model>", *, optimize: bool = True) -> onnxruntime.InferenceSession:
    """A session for a whole protobuf.

    Raises:
        ModelError: ONNX Runtime does not accept the model.
    """
    return _load(proto, _cpu_options(optimize=optimize), name)


def _load(proto: ModelProto, options: onnxruntime.SessionOptions, name: str) -> onnxruntime.InferenceSession:
    import onnxruntime as ort

    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime derives its exceptions from Exception alone
        raise ModelError(f"{name}: ONNX Runtime does not load it: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error of ONNX Runtime, whose stack follows on other lines; of one without a text, its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def evaluate(model: ModelProto, nodes: Sequence[NodeProto], constants: Mapping[str, Array]) -> dict[str, Array]:
    """Compute the outputs of nodes from constants alone; those that ONNX Runtime cannot compute, or that are huge, are left out.

    Args:
        model: its operator sets say what the nodes mean.
        nodes: in topological order; they read only the constants and each other.
        constants: by name.
    """
    wanted = [name for node in nodes for name in node.output if name]
    fits = affordable(model, nodes, constants)
    if fits is None:
        fits = len(nodes) == 1  # operators that make much of little have a known shape where their inputs are known
    if not fits:
        return {} if len(nodes) == 1 else _in_halves(model, nodes, constants)
    read = {name for node in nodes for name in node.input}
    proto = subgraph(model, nodes, [], wanted)
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in read
    )
    try:
        return dict(zip(wanted, _constant_outputs(proto), strict=True))
    except Exception:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
        return {} if len(nodes) == 1 else _in_halves(model, nodes, constants)


def _in_halves(model: ModelProto, nodes: Sequence[NodeProto], constants: Mapping[str, Array]) -> dict[str, Array]:
    """`evaluate`, where some nodes cannot be computed: they must not hide the others, of which there may be thousands."""
    known = dict(constants)
    half = len(nodes) // 2
    for part in (nodes[:half], nodes[half:]):
        ready: list[NodeProto] = []
        have = set(known)
        for node in part:
            if have.issuperset(name for name in node.input if name):
                ready.append(node)
                have.update(node.output)
        if ready:
            known |= evaluate(model, ready, known)
    return {name: known[name] for node in nodes for name in node.output if name in known}


def _constant_outputs(proto: ModelProto) -> list[Array]:
    """The outputs of a model without inputs; bfloat16 comes to Python as float32, which changes no value."""
    running = inference_session(proto, "<constants>", optimize=False)
    halves = [at for at, output in enumerate(running.get_outputs()) if output.type == _BFLOAT16]
    for at in halves:
        output = proto.graph.output[at]
        proto.graph.node.add(op_type="Cast", input=[output.name], output=[f"{output.name}__float32"]).attribute.append(
            helper.make_attribute("to", TensorProto.FLOAT)
        )
        output.name = f"{output.name}__float32"
    running = inference_session(proto, "<constants>", optimize=False) if halves else running
    results: list[Array] = running.run(None, {}, run_options())
    for at in halves:
        results[at] = results[at].astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
    return results


def value_info(name: str, value: Any, *, ranked: bool = False) -> ValueInfoProto:
    """The type of a value as a graph input declares it; sizes are open.

    Args:
        name: of the graph input.
        value: an array, or a list of arrays of one type.
        ranked: tell the rank of an array; knowing it, ONNX Runtime fuses more nodes.

    Raises:
        ModelError: the value is neither.
    """
    sample = value[0] if isinstance(value, list) and value else value
    if not isinstance(sample, np.ndarray):
        raise ModelError(f"{name!r} is no tensor, and the model is too large to be run whole")
    dtype = helper.np_dtype_to_tensor_dtype(sample.dtype)
    if isinstance(value, list):
        return helper.make_tensor_sequence_value_info(name, dtype, None)
    return helper.make_tensor_value_info(name, dtype, [None] * sample.ndim if ranked else None)


def random_feeds(inputs: Sequence[ValueInfoProto], shapes: Mapping[str, Shape], seed: int) -> dict[str, Array]:
    """Seeded inputs: standard normal floats; integers and booleans from {0, 1}, valid as indices nearly everywhere."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for value in inputs:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = shapes[value.name]
        if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
            feeds[value.name] = rng.integers(0, 2, shape).astype(dtype)
        elif dtype == np.object_:
            feeds[value.name] = np.full(shape, "", dtype=object)
        else:
            feeds[value.name] = rng.standard_normal(shape, np.float32).astype(dtype)
    return feeds
