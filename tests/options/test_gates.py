"""Gates: the same options everywhere, read once, and refused with the way out."""

from __future__ import annotations

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.fields import fields_of
from onnxprune.options.gates import Gates, parse_share
from onnxprune.options.prune import Recipe
from onnxprune.options.quantize import QuantRecipe
from onnxprune.options.sparsify import EncodeRecipe, SparseRecipe
from onnxprune.pipeline.steps import STEPS


@pytest.mark.parametrize(("text", "share"), [("95%", 0.95), ("0.95", 0.95), ("1", 1.0), ("0", 0.0)])
def test_shares_are_percent_or_fractions(text: str, share: float) -> None:
    assert parse_share(text, "--min-score", "") == pytest.approx(share)


@pytest.mark.parametrize("field", ["min_score", "max_drop", "min_agreement"])
@pytest.mark.parametrize("text", ["much", "-1%", "101%", "nan"])
def test_what_is_no_share_is_refused_by_name(field: str, text: str) -> None:
    with pytest.raises(OptionError, match=rf"--{field.replace('_', '-')} '{text}': write .* as "):
        Gates(**{field: text})


@pytest.mark.parametrize("kind", [Recipe, QuantRecipe, SparseRecipe, EncodeRecipe])
def test_recipes_have_the_gates_as_they_are_declared(kind: type) -> None:
    own = {field.name: field for field in fields_of(kind)}
    for gate in fields_of(Gates):
        assert (own[gate.name].type, own[gate.name].default) == (gate.type, gate.default)
        assert own[gate.name].option.reads == gate.option.reads


def test_every_step_that_writes_a_model_has_gates() -> None:
    names = {field.name for field in fields_of(Gates)}
    for name, step in STEPS.items():
        if name != "benchmark":
            assert names <= {field.name for kind in step.options for field in fields_of(kind)}, name


def test_a_metric_that_is_named_is_a_score_that_is_asked_for() -> None:
    assert not Gates().scored
    assert Gates(metric="cosine").scored


def test_a_recipe_gives_its_gates() -> None:
    assert Recipe(min_agreement="95%", eval="e.npz").gates == Gates(min_agreement="95%", eval="e.npz")
    assert Recipe(min_agreement="95%").asked == "--min-agreement 95%"
    assert not Recipe().asked
