from __future__ import annotations

from onnxprune.pages.brief import brief

CHECK = {"ok": True, "runs": 3, "error": 0.0, "outputs": [{"verdict": "proven"}]}
GOOD = {"level": "good", "text": "top1 99.0% -> 98.7%", "score": None, "drift": None}


def test_accuracy_costs_and_the_proof() -> None:
    costs = [{"macs": 2_000_000, "size": 1000}, {"macs": 1_000_000, "size": 750}]
    document = {"model": "net.onnx", "judgement": GOOD, "verification": CHECK, "before": costs[0], "after": costs[1]}
    assert brief("Result", document).split("\n  ") == [
        "Result of net.onnx",
        "top1 99.0% -> 98.7%",
        "file 1 kB -> 750 B (0.75 x)",
        "MACs 2 M -> 1 M (0.50 x)",
        "exact: 1 of 1 outputs tested on 3 input sizes, largest difference 0.0e+00",
    ]


def test_what_is_not_known_is_left_out() -> None:
    assert brief("Plan", {"model": "net.onnx"}).split("\n  ") == ["Plan of net.onnx", "accuracy was not measured"]
