"""What a page tells: the verdict, the cards, the layers."""

from __future__ import annotations

import pytest

import documents
from onnxprune.pages.contents import Card, cards, concludes, layers, outputs, tried, verdict, whole


@pytest.mark.parametrize(("level", "colour"), [("good", "good"), ("worse", "warn"), ("unknown", "warn"), ("collapsed", "bad")])
def test_the_band_has_the_colour_of_the_accuracy(level: str, colour: str) -> None:
    found = verdict(documents.pruned(judgement=documents.judgement(level, "said")))
    assert (found.level, found.accuracy) == (colour, "said")
    assert found.surgery == "exact: 1 of 1 outputs tested on 3 input sizes, largest difference 3.0e-07"


def test_a_wrong_surgery_is_bad_whatever_the_accuracy() -> None:
    check = documents.pruned()["verification"] | {"ok": False, "text": "logits differs"}
    found = verdict(documents.pruned(verification=check))
    assert (found.level, found.surgery) == ("bad", "WRONG: logits differs")


def test_without_samples_accuracy_is_said_to_be_unknown() -> None:
    found = verdict(documents.pruned(judgement=None, verification=None))
    assert (found.level, found.accuracy, found.surgery) == ("warn", "accuracy was not measured", "")


def test_cards_have_costs_with_units_and_ratios() -> None:
    found = {card.name: card for card in cards(documents.pruned())}
    assert list(found) == ["latency", "file", "MACs", "parameters"]
    assert found["file"] == Card("file", "6 MB", "3 MB", 0.5, value=3_000_000)
    assert found["parameters"] == Card("parameters", "1.5 M", "750 k", 0.5, value=750_000)
    assert found["latency"] == Card("latency", "0.2 ms", "0.1 ms", 0.5, "0.45 to 0.55 in half of 200 rounds", 0.1)


def test_accuracy_is_the_score_and_else_the_agreement() -> None:
    score = {"metric": "top1", "original": 0.99, "pruned": 0.985, "samples": 599}
    drift = {"cosine": 0.9, "agreement": 0.97, "classes": 10, "samples": 64, "source": "--calib calib.npz"}
    first = next(cards(documents.pruned(judgement=documents.judgement("good", "") | {"score": score, "drift": drift})))
    assert first == Card("accuracy", "99.0%", "98.5%", note="top1, 599 samples", value=0.985)
    first = next(cards(documents.pruned(judgement=documents.judgement("good", "") | {"drift": drift})))
    assert first == Card("same answer as the original", "100%", "97.0%", note="64 samples, --calib calib.npz", value=0.97)
    drift["classes"] = 0
    first = next(cards(documents.pruned(judgement=documents.judgement("good", "") | {"drift": drift})))
    assert first == Card("cosine with the original", "1", "0.900", note="64 samples, --calib calib.npz", value=0.9)


def test_what_optimize_found_has_its_latency_its_size_and_its_proof() -> None:
    found = documents.searched()
    assert [card.name for card in cards(found)] == ["share of the latency", "file"]
    assert verdict(found).surgery.startswith("exact")
    assert [one["output"] for one in outputs(found)] == ["logits"]
    assert [one.name for one in tried(found) if one.chosen] == ["channels 0.5"]


def test_layers_are_groups_or_sparse_weights() -> None:
    assert [(one.before, one.after) for one in layers(documents.pruned())] == [(32, 24), (32, 23), (32, 22)]
    sparse = {"layers": [{"node": "n", "weight": "w", "shape": [8, 8], "size": 64, "kept": 16, "energy": 0.9}]}
    (one,) = layers(sparse)
    assert (one.name, one.before, one.after, one.note) == ("w", 64, 16, "75.0% zeros")


def test_what_the_steps_of_a_recipe_found_is_put_together() -> None:
    found = whole(documents.recipe())
    assert {card.name: card.after for card in cards(found)} == {
        "latency": "0.1 ms",
        "file": "1 MB",
        "MACs": "1 k",
        "parameters": "750 k",
    }
    assert verdict(found).accuracy == "the end"
    assert verdict(found).surgery.endswith("largest difference 3.0e-07")  # of all steps
    assert [one.kind for one in layers(found)] == ["group"] * 3
    assert found["notes"] == ["cut: a note"]
    assert whole(documents.pruned()) == documents.pruned()


def test_only_what_was_made_or_proven_has_a_verdict() -> None:
    assert not any(concludes(one) for one in (documents.timed(), documents.inspected(), {"command": "log", "steps": []}))
    assert concludes(documents.pruned())
    assert concludes(documents.recipe())
    failed = {"command": "lint", "files": [], "failure": {"message": "1 of 2 files must be mended"}}
    assert concludes(failed)
    assert (verdict(failed).level, verdict(failed).accuracy) == ("bad", "1 of 2 files must be mended")


def test_a_proof_alone_is_good_or_bad() -> None:
    proof = {"command": "verify", **documents.pruned()["verification"]}
    assert verdict(proof).level == "good"
    assert [one["output"] for one in outputs(proof)] == ["logits"]
    assert verdict(proof | {"ok": False, "text": "differs"}).level == "bad"
