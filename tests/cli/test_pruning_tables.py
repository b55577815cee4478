"""What `prune`, `plan` and `apply` print, at several widths: nothing is cut, nothing is taken for markup."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from onnxprune.cli import pruning_tables
from onnxprune.driver.judgement import Judgement
from onnxprune.driver.report import GroupReport, Report
from onnxprune.latency.benchmark import BenchReport, BenchRow, LatencyStats
from onnxprune.latency.interleave import Quartiles
from onnxprune.pruning.cost import Cost
from onnxprune.verify.drift import Drift
from onnxprune.verify.verdicts import Check, OutputVerdict, Verdict

ODD = "/model/[bold]layer.0[/red]/:smile:/conv"


def row(label: str, **changes: Any) -> BenchRow:
    plain = BenchRow(
        label=label,
        provider="cpu",
        batch=1,
        threads=1,
        latency=LatencyStats(0.134, 0.133, 0.136, 100, "cpu"),
        ratio=None,
        session_s=0.01,
        loaded_mib=None,
        peak_mib=None,
        inputs={},
        notes=("x[1] was guessed",),
    )
    return dataclasses.replace(plain, **changes)


def bench(**changes: Any) -> BenchReport:
    return BenchReport((row("original"), row("pruned", ratio=Quartiles(0.87, 0.85, 0.88), **changes)), {"cpu": "Some [R] CPU"})


def report(**changes: Any) -> Report:
    plain = Report(
        model=f"{ODD}.onnx",
        requested="macs=0.5",
        obtained={"macs": 0.499, "params": 0.7, "size": 0.8, "channels": 0.9},
        before=Cost(2_000_000, 67_000, 999),
        after=Cost(1_000_000, 50_000, 500),
        groups=(GroupReport("a", 32, 16, exact=True, members=2),),
        refusals=(),
    )
    return dataclasses.replace(plain, **changes)


def test_pruning_says_what_was_asked_and_done(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    drift = Drift(0.99, 0.1, 0.5, 1, "seeded noise")
    frozen, notes = {ODD: "the verifier found: it differs"}, (f"look at {ODD}",)
    verdicts = (
        OutputVerdict("y", Verdict.TESTED),
        OutputVerdict("z", Verdict.PROVEN),
        OutputVerdict("n", Verdict.NOT_TESTED, "is constant"),
    )
    check = Check(ok=True, error=1e-7, runs=1, outputs=verdicts)
    judged = Judgement(None, drift, sampled=False)
    pruning_tables.pruning(
        report(verification=check, drift=drift, judgement=judged, benchmark=bench(), frozen=frozen, notes=notes), ODD
    )
    out = capsys.readouterr().out
    for words in (
        "requested macs=0.5, obtained macs=0.499\n",
        "surgery exact: 1 output proven and 1 output tested on 1 input size, largest difference 1.0e-07 (pruned == masked)\n",
        "surgery not tested: output 'n' is constant\n",
        "latency, cpu, batch 1, 1 thread",
        "999 B",
        "1 sample (seeded noise)",
        "agreement 50.0%\n",
        f"  {ODD}: the verifier found",
        f"note: look at {ODD}\n",
        "accuracy is unknown: no samples were given; outputs have a cosine of 0.99",
    ):
        assert words in out
    pruning_tables.verified(dataclasses.replace(check, notes=(f"compared with {ODD}",)))
    assert capsys.readouterr().out.endswith(f"'n' is constant\n  compared with {ODD}\n")
    pruning_tables.pruning(report(), ODD)
    assert "not verified\n" in capsys.readouterr().out


def test_lossless_removal_says_what_went_and_that_nothing_changed(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    check = Check(ok=True, error=1e-7, runs=2, outputs=(OutputVerdict("y", Verdict.TESTED),))
    found = {"dead": 3, "constant": 1, "duplicated": 2, "kept": 0, "check": dataclasses.asdict(check)}
    proof = "surgery exact: 1 output tested on 2 input sizes, largest difference 1.0e-07 (lossless == original)\n"
    pruning_tables.pruning(report(requested="lossless", verification=check, lossless=found), ODD)
    out = capsys.readouterr().out
    assert "removed without loss: 3 dead, 1 constant, 2 duplicated\n" in out
    assert proof in out
    assert "masked" not in out
    assert "requested" not in out
    pruning_tables.pruning(report(verification=check, lossless={**found, "kept": 4}), ODD)
    out = capsys.readouterr().out
    assert "2 duplicated, except 4 that alignment keeps (--align 1 removes them)\n" in out
    assert proof in out
    assert "requested macs=0.5" in out
    assert "pruned == masked" in out
    pruning_tables.pruning(report(requested="lossless", lossless={**found, "check": None}), ODD)
    out = capsys.readouterr().out
    assert "not verified\n" in out
    assert "==" not in out


def test_a_plan_says_how_much_remains(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    groups = [{"id": ODD, "size": 4, "keep": [0, 1, 2]}, {"id": "b", "size": 4, "keep": [0, 1, 2, 3]}]
    pruning_tables.planned({"groups": groups}, "plan.json", {"macs": 0.5, "channels": 0.875})
    out = capsys.readouterr().out
    assert "0.75" in out
    assert "1 of 2 groups lose positions; 7 of 8 positions remain\n" in out
    assert "obtained macs=0.500, channels=0.875\n" in out
    pruning_tables.planned({"groups": []}, "plan.json", {})
    assert "0 of 0 groups" in capsys.readouterr().out


def test_apply_says_what_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    check = Check(ok=True, error=0.0, runs=3, outputs=(OutputVerdict("y", Verdict.PROVEN),))
    cost = {"size": 208_218, "macs": 1000, "params": 100}
    done = {"model": "a.onnx", "output": ODD, "masked": False, "groups": 1, "verification": dataclasses.asdict(check)}
    done |= {"before": cost | {"size": 300_000}, "after": cost, "judgement": None, "widths": [("a", 4, 2)]}
    pruning_tables.applied(done, commands=["onnxprune benchmark a b"])
    out = capsys.readouterr().out
    assert f"a.onnx -> {ODD}" in out
    assert "file on disk  300 kB  208 kB  0.694" in out
    assert "1 group pruned\n" in out
    assert "surgery exact: 1 output proven on 3 input sizes, largest difference 0.0e+00 (pruned == masked)\n" in out
    assert out.endswith("next: onnxprune benchmark a b\n")
