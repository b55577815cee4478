"""Numbers and sentences that several tables print."""

from __future__ import annotations

import dataclasses

import pytest

from onnxprune.cli import tables
from onnxprune.cli.console import bar, console, quantity
from onnxprune.verify.verdicts import Check, OutputVerdict, Verdict


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1 k"), (67_600, "67.6 k"), (4.09e9, "4.09 G"), (999_600, "1000 k")]
)
def test_quantities(value: float, text: str) -> None:
    assert quantity(value) == text


def test_a_verdict_says_how_it_was_reached(capsys: pytest.CaptureFixture[str]) -> None:
    check = Check(ok=True, error=0.0, runs=1, notes=("at one size",), outputs=(OutputVerdict("y", Verdict.PROVEN),))
    tables.verdict(console(), dataclasses.asdict(check), "a == b")
    assert capsys.readouterr().out == (
        "surgery exact: 1 output proven on 1 input size, largest difference 0.0e+00 (a == b)\n  at one size\n"
    )


@pytest.mark.parametrize(("share", "signs"), [(0.0, 0), (0.5, 6), (1.0, 12), (2.0, 12)])
def test_a_bar_is_as_long_as_its_share(share: float, signs: int) -> None:
    assert len(bar(share, console())) == signs
