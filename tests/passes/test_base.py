"""Passes and pipelines as text; facts that a changed graph takes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.axes.plan import Plan
from onnxprune.errors import ModelError, OptionError, PassError
from onnxprune.ir.model import Model
from onnxprune.passes import PASSES, Allocate, Couple, Facts, MaskChannels, Normalize, Pass, Pipeline, PruneChannels, Score
from onnxprune.passes.base import need


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        ("normalize", [Normalize()]),
        ("normalize,couple", [Normalize(), Couple()]),
        ("couple{protect=a*|b,allow_inexact=true}", [Couple(("a*", "b"), allow_inexact=True)]),
        ("score{criterion=l1,seed=7}", [Score("l1", 7)]),
        ("allocate{target=params=0.4,scope=uniform,align=1}", [Allocate("params=0.4", "uniform", "1")]),
        ("prune_channels,mask_channels", [PruneChannels(), MaskChannels()]),
    ],
)
def test_text(text: str, steps: list[Pass]) -> None:
    pipeline = Pipeline.parse(text, PASSES)
    assert list(pipeline.steps) == steps
    assert str(pipeline) == text
    assert Pipeline.parse(str(pipeline), PASSES).steps == pipeline.steps


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (" normalize , score { criterion = l1 } ", "normalize,score{criterion=l1}"),
        ("score{criterion=l2,seed=0}", "score"),
        ("normalize,", "normalize"),
        ("score{}", "score"),
    ],
)
def test_spaces_and_defaults_are_not_printed(text: str, printed: str) -> None:
    assert str(Pipeline.parse(text, PASSES)) == printed


NAMES = ", ".join(sorted(PASSES))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("normalise", f"there is no pass 'normalise'; there are {NAMES}"),
        ("score{rank=l2}", "the pass 'score' has no option 'rank'; it has criterion, seed"),
        ("normalize{deep=true}", "the pass 'normalize' has no option 'deep'; it has none"),
        ("score{seed=x}", "score{seed=x}: invalid literal for int() with base 10: 'x'"),
        ("couple{allow_inexact=yes}", "couple{allow_inexact=yes}: write true or false"),
        ("normalize score", "cannot read the pipeline at 'normalize score': write pass{option=value,...},pass,..."),
        ("normalize,,score", "cannot read the pipeline at ',score': write pass{option=value,...},pass,..."),
        ("score{seed=1", "cannot read the pipeline at 'score{seed=1': write pass{option=value,...},pass,..."),
    ],
)
def test_errors_list_what_there_is(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Pipeline.parse(text, PASSES)
    assert str(caught.value) == message


def test_every_pass_is_registered_under_its_name() -> None:
    assert {name: kind.name for name, kind in PASSES.items()} == {name: name for name in PASSES}
    assert ", ".join(sorted(PASSES)) == NAMES


def test_the_default_pipeline_from_text() -> None:
    pipeline = Pipeline.parse("normalize,couple,score,allocate{target=channels=0.5,align=1},prune_channels", PASSES)
    source = parse(NETS["residual"])
    model, facts = pipeline.run(Model.of(source))
    assert model.weights["w1"].shape == (3, 4, 3, 3)
    assert facts.plan is not None
    assert facts.coupling is None  # it was about the larger graph


@dataclass(frozen=True)
class Changes(Pass):
    """Returns another graph; keeps the plan."""

    name: ClassVar[str] = "changes"
    keeps: ClassVar[frozenset[str]] = frozenset({"plan"})

    def run(self, model: Model, facts: Facts) -> Model:
        facts.scores = {"new": np.ones(1)}
        return model.copy()


@dataclass(frozen=True)
class Looks(Pass):
    """Changes nothing."""

    name: ClassVar[str] = "looks"

    def run(self, model: Model, facts: Facts) -> Model:
        return model


@dataclass(frozen=True)
class Fails(Pass):
    """Fails as it is told."""

    name: ClassVar[str] = "fails"
    ours: bool = False

    def run(self, model: Model, facts: Facts) -> Model:
        raise ModelError("theirs") if self.ours else KeyError("lost")


def test_a_changed_graph_takes_back_the_facts_it_does_not_keep() -> None:
    model, facts = Pipeline([Normalize(), Couple()]).run(Model.of(parse(NETS["residual"])))
    facts.plan, facts.frozen = Plan(), {"a": "why"}
    coupling = facts.coupling
    Looks()(model, facts)
    assert facts.coupling is coupling
    Changes()(model, facts)
    assert (facts.shapes, facts.coupling) == (None, None)
    assert facts.plan is not None
    assert facts.scores is not None  # new: it is about the new graph
    assert facts.frozen == {"a": "why"}


def test_a_pass_that_fails_names_those_before_it() -> None:
    model = Model.of(parse(NETS["residual"]))
    with pytest.raises(PassError, match=r"^fails failed after normalize, looks: KeyError: 'lost'$"):
        Pipeline([Normalize(), Looks(), Fails()]).run(model)
    with pytest.raises(PassError, match=r"^fails failed after nothing: "):
        Pipeline([Fails()]).run(model)
    with pytest.raises(ModelError, match=r"^theirs$"):
        Pipeline([Fails(ours=True)]).run(model)


@pytest.mark.parametrize("step", [Score(), Allocate(), PruneChannels(), MaskChannels()])
def test_a_fact_that_no_pass_established(step: Pass) -> None:
    with pytest.raises(PassError, match="no earlier pass established the coupling"):
        step(Model.of(parse(NETS["residual"])), Facts())


def test_need() -> None:
    assert need(0, "zero") == 0
    with pytest.raises(PassError, match="established the plan"):
        need(None, "plan")
