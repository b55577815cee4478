"""The law, for every rule: `op(slice(inputs)) == slice(op(zero outside(inputs)))`, and the claims beside the equation.

Each case is one sample (see `samples`) and one letter of its rule. Where the coupling asks for less than masked inputs, so does
the law: letters that pass through are removed from activations that are not zero there, and a sum over a letter needs zeros
in only one input of each clause.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from onnx import defs

from axes.rules import samples
from axes.rules.conformance import DRAWS, Cut, Letters, Runner, build, draw, letters_of, same, stated, subsets, whole
from axes.rules.more_samples import MORE, REFUSED_TOO
from axes.rules.samples import S, Sample
from onnxprune.axes.node_axes import NodeAxes
from onnxprune.axes.rules import find, registered
from onnxprune.axes.rules.registry import NEVER, Refused
from onnxprune.ir.model import Model
from onnxprune.shapes.probes import probe

OUTSIDE = [sample for point in entry_points(group="onnxprune.samples") for sample in point.load()(S)]
"""Those of installed packages that bring rules."""
SAMPLES = [*samples.SAMPLES, *MORE, *OUTSIDE]
REFUSED = [*samples.REFUSED, *REFUSED_TOO]

READS_SIZES = {"Shape", "Size"}
"""They read sizes and not values: after pruning they read smaller ones, which is what is wanted."""

QUANTIZES = {"DynamicQuantizeLinear"}
"""Their zero is whatever the zero point is, which depends on the data."""

EXACT_AND_MIXING = {"ReduceLogSum": "removing a zero is exact as in ReduceSum, but the logarithm of a sum is too rare to analyse"}
"""Operators whose mixing letters obey the law on every draw, and why they are marked all the same."""

ZERO_AND_UNCLAIMED = {
    "ArgMax": "a0 a1 a2",  # the first of equal positions is 0 by accident
    "ArgMin": "a0 a2",
    "EmbedLayerNormalization": "d",  # too careful, as its letter mixes anyway
    "SkipLayerNormalization": "a2",  # as above
    "SkipSimplifiedLayerNormalization": "a0 a1 a2",  # as above
    "GroupQueryAttention": "k",  # too careful: keys and values may have a cache behind them
    "Pad": "a1",  # the padding, on the same axis, is not zero
}
"""Operators, and letters of theirs, that are zero on every draw where the rule says never."""


def case(sample: Sample, *letter: str) -> ParameterSet:
    return pytest.param(sample, *letter, id="-".join((sample.id, *letter)))


def cases(pick: Callable[[Letters], tuple[str, ...]]) -> list[ParameterSet]:
    """A parameter for each letter of each sample."""
    found = []
    for sample in SAMPLES:
        if sample.op in READS_SIZES:
            continue
        with contextlib.suppress(Exception):  # shown by test_sample_is_stated
            found += [case(sample, letter) for letter in pick(letters_of(sample))]
    return found


def cuts(sample: Sample, letter: str) -> Iterator[Cut]:
    node = stated(sample)
    assert isinstance(node, NodeAxes)
    for kept in subsets(node.sizes[letter]):
        yield Cut(sample, letter, kept)


def breaches(sample: Sample, letter: str) -> Iterator[str]:
    """Every draw, kept subset and set of masked inputs for which the law does not hold."""
    contracted = letter in letters_of(sample).contracted
    for cut in cuts(sample, letter):
        kept = [*cut.keep.values()]
        sliced_node: Runner | None = None
        carriers = frozenset(cut.carriers())
        masks = {carriers}
        if not contracted:
            masks.add(carriers & {*sample.weights})
        elif letter not in cut.rule.mix:
            masks.update(cut.claims_drop())
        for how in DRAWS:
            inputs = draw(sample, how)
            sliced = cut.sliced(inputs)
            sliced_node = sliced_node or Runner(sample, sliced, cut)
            actual = sliced_node(sliced)
            for at in sorted(masks, key=sorted):
                expected = cut.sliced_outputs(whole(sample)(cut.masked(inputs, at)))
                if not all(itertools.starmap(same, zip(expected, actual, strict=True))):
                    shapes = [y.shape for y in expected], [y.shape for y in actual]
                    yield f"{how} data, kept {kept}, zeros in inputs {sorted(at)}: {shapes[0]} against {shapes[1]}"


def test_every_operator_of_the_standard_has_a_rule_or_a_reason() -> None:
    standard = {schema.name for schema in defs.get_all_schemas() if not schema.domain}
    assert standard - {op for domain, op in registered() if not domain} == set()


def test_every_rule_has_a_sample() -> None:
    """Every rule that may state something: those that always refuse say so in their signature."""
    sampled = {(sample.domain, sample.op) for sample in (*SAMPLES, *REFUSED)}
    unsampled = [(find(*key), key) for key in registered() if key not in sampled]
    states = [key for function, key in unsampled if inspect.get_annotations(function)["return"] != "Refused"]  # type: ignore[arg-type]
    missing = [f"{domain or 'ai.onnx'}::{op}" for domain, op in states]
    assert not missing, f"no sample in tests/rules for {', '.join(missing)}"


def test_samples_have_names_of_their_own() -> None:
    ids = [sample.id for sample in (*SAMPLES, *REFUSED)]
    assert sorted(set(ids)) == sorted(ids)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.id)
def test_sample_is_stated(sample: Sample) -> None:
    node = stated(sample)
    assert not isinstance(node, Refused), node.text
    equation = node.rule.equation
    spelled = {f for side in (equation.inputs, equation.outputs) for t in side for axis in t for b in axis for f in b}
    assert node.rule.mix | node.rule.fixed <= spelled, "marks letters that the equation does not have"
    for how in DRAWS:
        for y in whole(sample)(draw(sample, how)):
            assert y.dtype.kind != "f" or np.isfinite(y).all(), f"the sample is not finite on {how} data"


@pytest.mark.parametrize("sample", REFUSED, ids=lambda s: s.id)
def test_form_is_refused(sample: Sample) -> None:
    node = stated(sample)
    assert isinstance(node, Refused), f"states {node.rule}"
    assert sample.refused in node.text


@pytest.mark.parametrize("sample", [case(sample) for sample in SAMPLES])
def test_probe_knows_the_shapes(sample: Sample) -> None:
    inputs = draw(sample, "positive")
    shapes = probe(Model.of(build(sample, inputs))).shapes
    assert [shapes[f"y{i}"] for i in range(sample.outputs) if i not in sample.absent] == [y.shape for y in whole(sample)(inputs)]


@pytest.mark.parametrize(("sample", "letter"), cases(lambda letters: letters.free))
def test_law(sample: Sample, letter: str) -> None:
    found = list(breaches(sample, letter))
    node = stated(sample)
    assert isinstance(node, NodeAxes)
    assert not found, f"{node.rule}: {'; '.join(found[:3])}"


@pytest.mark.parametrize(("sample", "letter"), cases(lambda letters: letters.mix))
def test_mixing_letter_breaks_the_law(sample: Sample, letter: str) -> None:
    breaks = any(breaches(sample, letter))
    assert breaks != (sample.op in EXACT_AND_MIXING), f"{letter} {'is rightly' if breaks else 'need not be'} marked as mixing"


@pytest.mark.parametrize(("sample", "letter"), cases(lambda letters: letters.free + letters.mix))
def test_outputs_are_zero_where_the_rule_says_so(sample: Sample, letter: str) -> None:
    """Zeros in the inputs that its clauses name suffice; and where it says never, some draw is not zero."""
    node, always = stated(sample), True
    assert isinstance(node, NodeAxes)
    for cut in cuts(sample, letter):
        carriers, claims = frozenset(cut.carriers()), set(cut.claims_zero())
        for how, at in itertools.product(DRAWS, {*claims, carriers}):
            if not carriers or at & set(node.rule.poles):
                continue
            values = cut.removed(whole(sample)(cut.masked(draw(sample, how), at)))
            zero = not any(np.any(y != 0) for y in values)
            always &= zero
            claimed = any(claim <= at for claim in claims)
            assert zero or not claimed or sample.op in QUANTIZES, (
                f"{node.rule}: not zero on {how} data with zeros in inputs {sorted(at)}"
            )
    if node.rule.zero == NEVER and carriers and not node.rule.poles and letter not in letters_of(sample).contracted:
        assert always == (letter in ZERO_AND_UNCLAIMED.get(sample.op, "").split()), (
            f"{node.rule}: {'is' if always else 'is not'} zero on every draw"
        )


@pytest.mark.parametrize(("sample", "letter"), cases(lambda letters: letters.free + letters.mix))
def test_outputs_are_finite_except_at_poles(sample: Sample, letter: str) -> None:
    node = stated(sample)
    assert isinstance(node, NodeAxes)
    for cut in cuts(sample, letter):
        for position in cut.carriers():
            results = [whole(sample)(cut.masked(draw(sample, how), {position})) for how in DRAWS]
            finite = all(np.isfinite(y).all() for ys in results for y in ys if y.dtype.kind == "f")
            if letter in letters_of(sample).contracted or letter in node.rule.mix:
                continue  # poles matter where positions pass
            assert finite == (position not in node.rule.poles), f"{node.rule}: {position}, poles {node.rule.poles}"
