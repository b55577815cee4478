from __future__ import annotations

from onnxprune.pages.card import card

FOUND = {
    "judgement": {"level": "good", "text": "top1 99.0% -> 98.7%", "score": None, "drift": None},
    "before": {"macs": 1000, "params": 200, "size": 900},
    "after": {"macs": 500, "params": 120, "size": 450},
}


def test_figures_command_and_notes() -> None:
    text = card(FOUND, "small", "model.onnx", command="onnxprune prune big -o small", notes=["hidden_size stays 64"])
    head, body = text.split("\n---\n", 1)
    assert head == "---\ntags:\n- onnx\n- onnxprune"
    assert body.startswith("\n# small\n")
    assert "\n    onnxprune prune big -o small\n" in body
    assert "| MACs | 1 k | 500 | 0.500 |\n" in body
    assert "Top1 99.0% -> 98.7%.\n" in body
    assert "- hidden_size stays 64\n" in body


def test_the_head_of_the_original_holds_on() -> None:
    old = "---\nlicense: mit\nlanguage:\n  - en\n  - de\ntags: [text, onnx]\nmodel-index:\n- name: x\n  results: []\n---\n# Old\n"
    head = card(FOUND, "small", "model.onnx", origin="org/name", old=old).split("\n---\n")[0]
    assert head == ("---\nlicense: mit\nlanguage:\n  - en\n  - de\nbase_model: org/name\ntags:\n- text\n- onnx\n- onnxprune")


def test_a_path_is_no_base_model() -> None:
    for origin in ("", "/home/me/bert", "a/b/c", "bert: 1\nx/y"):
        assert "base_model" not in card(FOUND, "small", "model.onnx", origin=origin)
    known = "---\nbase_model: org/first\n---\n"
    assert "base_model: org/first\n" in card(FOUND, "small", "model.onnx", origin="org/second", old=known)


def test_a_command_that_found_nothing_has_a_card_without_a_table() -> None:
    assert "|" not in card({}, "small", "model.onnx")
