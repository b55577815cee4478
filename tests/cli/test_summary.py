"""The last screen: what matters first, red where accuracy is lost, and what to do next, at any width."""

from __future__ import annotations

from typing import Any

import pytest

from onnxprune.cli.console import console
from onnxprune.cli.summary import by_reason, change, closing, counts, most_changed, summary
from onnxprune.driver.judgement import Judgement
from onnxprune.verify.drift import Drift
from onnxprune.verify.metrics import QualityScore

DRIFT = Drift(0.5, 0.9, 0.062, 16, "seeded noise", 10)
SCORE = QualityScore("top1", 0.99, 0.98, 599, "--eval e.npz", chance=0.1)


def shown(capsys: pytest.CaptureFixture[str], judged: Any, remedy: str = "Do better") -> str:
    summary(console(), "a -> b", judged.to_dict() if judged else None, [change("file on disk", 1000, 500)], remedy)
    return capsys.readouterr().out


def test_accuracy_comes_first_then_the_costs(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, Judgement(SCORE, DRIFT, sampled=True))
    names = [line.split("  ")[0] for line in out.splitlines()]
    assert names[0] == "a -> b"
    assert names[2:5] == ["accuracy (top1)", "agreement with the original", "file on disk"]
    assert "99.0%" in out
    assert "-1.0 points" in out
    assert "judged on 599 samples (--eval e.npz)\n" in out
    assert "Do better" not in out


@pytest.mark.parametrize(
    ("judged", "words"),
    [
        (Judgement(None, DRIFT), "accuracy collapsed: 6% of 16 samples (seeded noise) get the original's answer. Do better\n"),
        (Judgement(), "accuracy is unknown: outputs were not compared. Do better\n"),
        (Judgement(exact=True), "the outputs are the original's\n"),
    ],
)
def test_lost_accuracy_is_said_with_the_way_out(judged: Judgement, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, judged).endswith(words)


@pytest.mark.parametrize(
    ("variables", "red"), [({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False), ({}, False)]
)
def test_the_line_is_red_where_there_is_colour(
    variables: dict[str, str], red: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    out = shown(capsys, Judgement(None, DRIFT))
    assert any("31m" in line for line in out.splitlines() if "collapsed" in line) is red


def test_what_changed_most_comes_first_and_the_rest_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"g{number}", 16, 16 - number) for number in range(8)]
    most_changed(console(), "group", rows, every=False)
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:6]] == ["g7", "g6", "g5", "g4", "g3"]
    assert out.endswith("... and 3 more, of which 2 changed; --all lists all\n")
    most_changed(console(), "group", rows, every=True)
    assert len(capsys.readouterr().out.splitlines()) == 9
    most_changed(console(), "group", [("a", 4, 4)], every=False)
    assert not capsys.readouterr().out


def test_what_stayed_is_told_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    by_reason(console(), [("a", "first"), ("b", "last"), ("c", "first")], every=False)
    assert capsys.readouterr().out == "stayed: a and 1 more: first\nstayed: b: last\n"
    by_reason(console(), [("a", "first"), ("b", "last"), ("c", "first")], every=True)
    assert "stayed: a, c: first\n" in capsys.readouterr().out


def test_commands_are_never_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    long = "onnxprune benchmark " + "x" * 200
    monkeypatch.setattr("onnxprune.cli.console._WHOLE", 80)
    closing(console(), [long, "second"])
    assert capsys.readouterr().out == f"next: {long}\n      second\n"


def test_counts_have_a_ratio() -> None:
    assert counts("MACs", 2000, 1000) == ("MACs", "2 k", "1 k", "0.500")
