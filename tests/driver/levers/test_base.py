"""Mixtures of choices."""

from __future__ import annotations

from onnxprune.driver.levers import LEVERS
from onnxprune.driver.levers.base import Made, Mixture, Step
from onnxprune.ir.model import Model
from optimizable import ground, net


def test_a_mixture_does_not_depend_on_the_order_of_choices() -> None:
    one = Mixture().having("precision", "int8").having("channels", "size=0.5")
    other = Mixture().having("channels", "size=0.7").having("precision", "int8").having("channels", "size=0.5")
    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == "size=0.5 + int8"
    assert one.without("channels") == Mixture().having("precision", "int8")
    assert str(Mixture()) == "original"


def test_the_last_model_of_a_step_is_its_result() -> None:
    first, second = Model.of(net()), Model.of(net())
    made = Made(Mixture(), first).then(Step("channels", "size=0.5", {"cut": first, "repaired": second}))
    assert made.model is second
    assert made.mixture == Mixture().having("channels", "size=0.5")


def test_every_lever_says_what_it_is() -> None:
    levers = [kind(ground()) for kind in LEVERS]
    assert len({lever.name for lever in levers}) == len(levers)
    assert [lever.exact for lever in levers] == sorted((lever.exact for lever in levers), reverse=True)
