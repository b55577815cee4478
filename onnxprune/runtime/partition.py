"""Runs models of any size: whole where the weights are few, else one partition of the graph after the other.

A partition holds consecutive nodes whose constants fit a budget. It becomes a model of its own, which is fed with values of
earlier partitions and unloaded before the next one is loaded. The results are those of the whole model, and memory is bounded
by the largest partition and the values that cross from one to the next. A control-flow node and its bodies stay together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnx import NodeProto, helper

from onnxprune.errors import ModelError
from onnxprune.ir.model import Model
from onnxprune.ir.node import values_read
from onnxprune.ir.precision import as_float32, float_types
from onnxprune.ir.subgraph import extract, outer_values
from onnxprune.ir.toposort import in_order
from onnxprune.runtime.session import Session, random_feeds, value_info

if TYPE_CHECKING:
    from onnxprune.ir.types import Shape

__all__ = ["WHOLE_BYTES", "Partition", "Runner", "run_each", "run_for_shapes", "split"]

WHOLE_BYTES = 2**29
"""Bytes of constants up to which a model is run whole, 512 MiB; ONNX Runtime packs copies of some, which come on top."""
PARTITION_BYTES = 2**27
"""Bytes of constants in one partition of a larger model, 128 MiB; a node with more is alone. Packed copies come on top."""

NamedValues = dict[str, Any]
"""Tensors, and lists of them, by name."""


@dataclass(frozen=True)
class Partition:
    """Consecutive nodes of a graph.

    Attributes:
        nodes: in an order in which they can run.
        reads: the values from outside that they read: inputs of the graph, and values of earlier partitions.
        writes: values that they compute and that later partitions read, and outputs.
        drops: values that no later partition reads.
    """

    nodes: tuple[NodeProto, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    drops: tuple[str, ...]


def split(model: Model, outputs: Sequence[str]) -> list[Partition]:
    """The partitions that compute some values one after the other; none where the constants are few: it is run whole."""
    if sum(weight.nbytes for weight in model.weights.values()) <= WHOLE_BYTES:
        return []
    return _segments(model, _chunks(model, in_order(model.graph.node, model.name)), outputs)


def _chunks(model: Model, nodes: Iterable[NodeProto]) -> list[list[NodeProto]]:
    """The nodes in portions whose constants fit the budget."""
    chunks: list[list[NodeProto]] = [[]]
    held: set[str] = set()
    for node in nodes:
        constants = model.weights.keys() & values_read(node)
        if chunks[-1] and constants - held and sum(model.weights[name].nbytes for name in held | constants) > PARTITION_BYTES:
            chunks.append([])
            held = set()
        chunks[-1].append(node)
        held |= constants
    return chunks


def _segments(model: Model, chunks: Sequence[Sequence[NodeProto]], outputs: Sequence[str]) -> list[Partition]:
    """Work out, from the last chunk to the first, the values that each must hand on."""
    wanted = set(outputs)
    found: list[Partition] = []
    for nodes in reversed(chunks):
        computed = {name for node in nodes for name in node.output if name}
        reads = set(outer_values(nodes)) - model.weights.keys()
        drops = (reads | computed) - wanted
        writes = computed & wanted
        if writes:
            found.append(Partition(tuple(nodes), *(tuple(sorted(names)) for names in (reads, writes, drops))))
            wanted = (wanted - computed) | reads
    return found[::-1]


def run_each(
    model: Model,
    feeds: Sequence[Mapping[str, Any]],
    outputs: Sequence[str] | None = None,
    *,
    optimize: bool = True,
    threads: int = 1,
) -> list[list[Any] | Exception]:
    """Run a model on several feeds; returns its outputs for each feed, or the error that ONNX Runtime raised.

    Args:
        model: of any size.
        feeds: inputs by name.
        outputs: values to compute instead of the outputs of the graph.
        optimize: whether ONNX Runtime may rewrite the graph.
        threads: see `onnxprune.runtime.session.Session`.

    Raises:
        ModelError: ONNX Runtime does not accept the model, or Python has no arrays for its values.
    """
    names = [output.name for output in model.graph.output] if outputs is None else list(outputs)
    parts = split(model, names)
    if not parts:
        session = Session(model, names, optimize=optimize, threads=threads)
        return [_attempt(session, feed) for feed in feeds]
    states: list[NamedValues | Exception] = [dict(feed) for feed in feeds]
    for part in parts:
        _advance(model, part, states, optimize=optimize, threads=threads)
    return [state if isinstance(state, Exception) else [_value(model, state, name) for name in names] for state in states]


class Runner:
    """A model that is fed several times, with its own outputs; one that is run in partitions is loaded again for each feed."""

    def __init__(self, model: Model, *, threads: int = 1) -> None:
        """Load a model that is run whole.

        Raises:
            ModelError: as `run_each`.
        """
        self.model, self._threads = model, threads
        parts = split(model, [output.name for output in model.graph.output])
        self._session = None if parts else Session(model, threads=threads)

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs for some inputs; raises what ONNX Runtime raises, and what `run_each` does."""
        if self._session:
            return self._session.run(feeds)
        (results,) = run_each(self.model, [feeds], threads=self._threads)
        if isinstance(results, Exception):
            raise results
        return results


def _attempt(session: Session, feed: Mapping[str, Any]) -> list[Any] | Exception:
    try:
        return session.run(feed)
    except Exception as error:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
        return error.with_traceback(None)  # which would keep the session


def _advance(model: Model, part: Partition, states: list[NamedValues | Exception], *, optimize: bool, threads: int) -> None:
    """Run one partition on every state in which no earlier one failed."""
    alive = [(at, state) for at, state in enumerate(states) if not isinstance(state, Exception)]
    if not alive:
        return
    held = alive[0][1]
    inside = extract(model, part.nodes, part.writes, lambda name: value_info(name, held[name], ranked=True))
    session = Session(inside, optimize=optimize, threads=threads)
    for at, state in alive:
        results = _attempt(session, {name: state[name] for name in part.reads})
        if isinstance(results, Exception):
            states[at] = results
            continue
        state.update(zip(part.writes, results, strict=True))
        for name in part.drops:
            state.pop(name, None)


def _value(model: Model, state: NamedValues, name: str) -> Any:
    return state[name] if name in state else model.weights[name].array()


def run_for_shapes(model: Model, inputs: Mapping[str, Shape], missing: Sequence[str]) -> dict[str, Shape | None]:
    """Run the model on a probe and report the shapes of ``missing``.

    Shapes that still do not come out (the model does not run on the probe, a value is no tensor) are left out.
    """
    probe, shapes = model.copy(), {name: model.fresh_name(f"{name}__shape") for name in missing}
    del probe.graph.node[:]
    for node in model.graph.node:
        probe.graph.node.append(node)
        asked = [name for name in node.output if name in shapes]  # right behind the node, so that its values need not be kept
        probe.graph.node.extend(helper.make_node("Shape", [name], [shapes[name]]) for name in asked)
    for form in (probe, as_float32(probe)) if float_types(model) - {"float32"} else (probe,):
        feeds = [random_feeds(form.inputs, inputs, seed=0)]
        try:
            (results,) = run_each(form, feeds, list(shapes.values()), optimize=False)
        except ModelError:
            continue
        if not isinstance(results, Exception):
            return {name: tuple(map(int, shape)) for name, shape in zip(missing, results, strict=True)}
    return {}
