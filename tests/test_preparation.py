"""The law on passes that only prepare, for every rule and for random graphs; and that it catches those that do more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import ModelProto

from axes.rules.samples import Sample
from axes.rules.test_law import SAMPLES
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.runtime.session import Session
from open_nets import OpenNet, attention, branch, convolved, copies, dense, generated, open_models, sparse, stacked, tied, windows
from preparation import GROWS, PREPARING, Source, noise, opened
from test_random_graphs import models

SIZES = ({"N": 2, "T": 7}, {"N": 1, "T": 12}, {"N": 3, "T": 230})
FIRST = {(sample.domain, sample.op): sample for sample in reversed(SAMPLES)}
"""One sample of each rule."""
CONVERTED_WRONGLY = {
    "Hardmax@11": "the converter of onnx keeps its axis, which means something else from operator set 13 on; quantize refuses it",
}
"""Samples that another operator set, which int8 needs, changes: the proof of `quantize` finds that."""
CHEAP = ("read", "fold masks", "encode", "normalize and restore")
"""What commands do to every model; the other passes are a part of it, or take longer."""


def check(source: Source, names: tuple[str, ...] = tuple(PREPARING)) -> None:
    for name in names:
        found = source.breach(PREPARING[name], grows=name in GROWS)
        assert not found, f"{name}: {found}\n{onnx.printer.to_text(source.proto)[:6000]}"


def over_sequences(model: ModelProto) -> Source:
    return Source.of(model, noise(model, SIZES))


@pytest.mark.parametrize("sample", FIRST.values(), ids=lambda sample: sample.id)
def test_an_operator_stays_what_it_is(sample: Sample) -> None:
    check(opened(sample), CHEAP)


def test_most_operators_are_tried_at_three_sizes() -> None:
    sizes = [{str([array.shape for array in feed.values()]) for feed in opened(sample).feeds} for sample in FIRST.values()]
    assert sum(len(some) == 3 for some in sizes) > 0.6 * len(FIRST)


@pytest.mark.slow
@pytest.mark.parametrize("name", PREPARING)
def test_every_sample_stays_what_it_is(name: str) -> None:
    for sample in SAMPLES:
        if name == "prepare for int8" and sample.id in CONVERTED_WRONGLY:
            assert opened(sample).breach(PREPARING[name], grows=True), f"{sample.id} is converted rightly now"
        else:
            check(opened(sample), (name,))


@settings(max_examples=15)
@given(open_models())
def test_graphs_over_sequences_stay_what_they_are(model: ModelProto) -> None:
    check(over_sequences(model))


@settings(max_examples=10)
@given(models())
def test_graphs_over_images_stay_what_they_are(model: ModelProto) -> None:
    check(Source.of(model, noise(model, ({"N": 2}, {"N": 1}, {"N": 5}))))


@pytest.mark.slow
@settings(max_examples=120)
@given(open_models())
def test_many_graphs_over_sequences_stay_what_they_are(model: ModelProto) -> None:
    check(over_sequences(model))


@pytest.mark.slow
@settings(max_examples=100)
@given(models())
def test_many_graphs_over_images_stay_what_they_are(model: ModelProto) -> None:
    check(Source.of(model, noise(model, ({"N": 2}, {"N": 1}, {"N": 5}))))


# --- Passes that do more than they say -------------------------------------------------------------------------------


def pins_a_size(model: Model, source: Source) -> Model:
    """Write what ``Shape`` says of the first inputs into the graph."""
    changed = model.copy()
    names = [node.output[0] for node in changed.graph.node if node.op_type == "Shape"]
    for name, value in zip(names, Session(changed, names).run(source.feeds[0]), strict=True) if names else ():
        changed.weights[name] = Weight(name, None, value)
    kept = [node for node in changed.graph.node if node.op_type != "Shape"]
    del changed.graph.node[:]
    changed.graph.node.extend(kept)
    return changed


def drops_attributes(model: Model, _: Source) -> Model:
    changed = model.copy()
    for node in changed.graph.node:
        if node.op_type not in {"If", "Cast"}:
            del node.attribute[:]
    return changed


def copies_shared_weights(model: Model, _: Source) -> Model:
    changed = model.copy()
    for name, readers in changed.consumers().items():
        for node, position in readers[1:] if name in changed.weights and changed.weights[name].is_float else ():
            copy = changed.fresh_name(f"{name}__copy")
            changed.weights[copy] = changed.weights[name].renamed(copy)
            node.input[position] = copy
    return changed


def rounds_weights(model: Model, _: Source) -> Model:
    changed = model.copy()
    for name, weight in model.weights.items():
        if weight.is_float:
            changed.weights[name] = Weight(name, None, weight.array().astype(np.float16).astype(np.float32))
    return changed


def drops_an_output(model: Model, _: Source) -> Model:
    changed = model.copy()
    changed.graph.output[0].name = changed.graph.node[-1].output[0] = "other"
    return changed


class Firsts(OpenNet):
    """Choices are the first ones."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)

    def pick(self, *options: object) -> object:
        return options[0]


def sharing(net: OpenNet) -> None:
    """One large weight with two readers."""
    weight, back = net.matrix(columns=80), net.matrix(rows=80)
    for _ in range(2):
        net.x = net.node("MatMul", net.node("Relu", net.node("MatMul", net.x, weight)), back)


FAULTS: list[tuple[Callable[[Model, Source], Model], tuple[Callable[[OpenNet], None], ...], str]] = [
    *((pins_a_size, (dense, layer), "") for layer in (windows, copies, attention, branch)),
    (drops_attributes, (convolved,), ""),
    (drops_attributes, (attention,), ""),
    (copies_shared_weights, (sharing,), "it takes"),
    (rounds_weights, (dense, sparse), "'y' differs by"),
    (drops_an_output, (tied,), "the outputs are others"),
]


@pytest.mark.parametrize("name", ["read", "fold masks", "encode", "normalize and restore"])
@pytest.mark.parametrize(("fault", "layers", "words"), FAULTS, ids=lambda one: getattr(one, "__name__", None))
def test_a_pass_that_does_more_is_caught(
    name: str, fault: Callable[[Model, Source], Model], layers: tuple[Callable[[OpenNet], None], ...], words: str
) -> None:
    source = over_sequences(stacked(Firsts(), *layers))
    right = PREPARING[name]
    assert source.breach(right) == ""
    found = source.breach(lambda model: fault(right(model), source))
    assert found
    assert found.startswith(words)


def test_a_chain_that_loses_the_attributes_of_its_nodes_is_caught() -> None:
    source = over_sequences(stacked(Firsts(), generated))
    assert source.breach(lambda model: drops_attributes(model, source)).startswith("'y' differs by")


def test_an_operator_that_loses_an_attribute_is_caught() -> None:
    """... for each rule, where the attribute says something."""
    caught = 0
    for sample in FIRST.values():
        source = opened(sample)
        if sample.attrs:
            caught += bool(source.breach(lambda model, source=source: drops_attributes(model, source)))  # type: ignore[misc]
    assert caught > 0.5 * sum(bool(sample.attrs) for sample in FIRST.values())
