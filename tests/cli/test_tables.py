"""Tables at several widths: nothing is cut, nothing is taken for markup, one is not many."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from onnxprune.cli import console, tables
from onnxprune.cli.console import quantity
from onnxprune.driver.report import GroupReport, Report
from onnxprune.latency.benchmark import BenchReport, BenchRow, LatencyStats
from onnxprune.latency.interleave import Quartiles
from onnxprune.pruning.cost import Cost
from onnxprune.verify.drift import Drift
from onnxprune.verify.verdicts import Check, OutputVerdict, Verdict

ODD = "/model/[bold]layer.0[/red]/:smile:/conv"
LONG = "/encoder/layers.11/" + "self_attention/" * 6 + "MatMul"


def refusal(name: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "axis": f"{name}:0",
        "axes": [f"{name}:0"],
        "reason": "interface",
        "node": name,
        "text": "graph output: the interface is a contract",
        "remedy": "",
    }
    return plain | changes


def group(name: str) -> dict[str, Any]:
    members = [{"op": "Conv", "value": name, "axis": 1}] * 3
    return {"id": name, "size": 32, "exact": True, "kind": "channels", "members": members}


def found(groups: list[str], refusals: list[str], layers: int = 1) -> dict[str, Any]:
    return {
        "model": f"{ODD}.onnx",
        "opset": 18,
        "cost": {"macs": 1_950_000, "params": 67_600, "size": 280_000},
        "groups": [group(name) for name in groups],
        "refusals": [refusal(name) for name in refusals],
        "layers": [{"node": ODD, "op": "Conv", "macs": 10, "params": 3, "axes": "n (g i) _ _ -> n (g o) _ _"}] * layers,
    }


@pytest.fixture(params=[0, 80, 100, 140])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Columns to print in; 0 is a pipe."""
    columns = int(request.param)
    if columns:
        monkeypatch.setattr(console, "_WHOLE", columns)
    return columns


def test_names_come_out_whole_and_unchanged(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    tables.inspection(found([ODD, LONG], [ODD]), layers=True)
    out = capsys.readouterr().out
    assert f"{ODD}.onnx: opset 18, 1.95 M MACs, 67.6 k parameters, 280 kB\n" in out
    if width:
        table = out.splitlines()[1:]
        assert max(len(line) for line in table) <= width
    else:
        assert LONG in out
        assert out.count(ODD) == 5
    assert "…" not in out


@pytest.mark.parametrize(("count", "words"), [(0, "0 groups"), (1, "1 group"), (2, "2 groups")])
def test_one_is_not_many(count: int, words: str, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    tables.inspection(found(["a"] * count, ["b", "c"][:count], count), layers=True)
    out = capsys.readouterr().out
    assert f"{words} can be pruned" in out
    assert ("axis cannot be pruned" in out) is (count == 1)
    assert ("axes cannot be pruned" in out) is (count == 2)
    assert f"{count} layer{'s' * (count != 1)} with" in out
    assert ("positions" in out) is (count > 0)


@pytest.mark.parametrize("extra", [1, 2])
def test_long_lists_say_how_much_more_there_is(extra: int, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"g{number}" for number in range(40 + extra)]
    long = found(names, []) | {"refusals": [refusal(f"r{number}", text=f"{number}") for number in range(40 + extra)]}
    more, s = f"... and {extra} more", "s" * (extra > 1)
    tables.inspection(long, layers=False)
    out = capsys.readouterr().out
    assert f"{more} group{s}; --all lists all" in out
    assert f"{more} reason{s}; --all lists all" in out
    assert "g39 " in out
    assert "r39:0" in out
    assert not {"g40 ", "r40:0"} & set(out.split())
    tables.inspection(long, layers=False, every=True)
    out = capsys.readouterr().out
    assert "g40 " in out
    assert "r40:0" in out
    assert "more" not in out


def test_axes_that_cannot_be_pruned_are_listed_by_reason(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    mixes = {"reason": "mixes", "text": "Softmax mixes it", "remedy": "--allow-inexact"}
    refusals = [
        refusal("w", axes=["w:0", "b:0"], node="one", **mixes),
        refusal("v", axes=["v:1", "g:1"], node="two", **mixes),
        refusal("u"),
    ]
    tables.inspection(found(["g"], []) | {"refusals": refusals}, layers=False)
    out = capsys.readouterr().out
    assert "4 axes cannot be pruned, 1 more only in part" in out
    assert "w:0 and 3 more" in " ".join(out.split())
    assert "one and 1 more" in " ".join(out.split())
    assert out.count("Softmax mixes it") == 1
    assert out.endswith("mixes: --allow-inexact\n")
    tables.inspection(found(["g"], []) | {"refusals": refusals}, layers=False, every=True)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for start in (["w:0", "mixes", "one"], ["b:0", "mixes", "one"], ["v:1", "mixes", "two"], ["u:0", "interface", "u"]):
        assert start in [line[:3] for line in lines]
    assert ["g:1", "(in", "part)", "mixes"] in [line[:4] for line in lines]


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
    tables.pruning(report(verification=check, drift=drift, benchmark=bench(), frozen=frozen, notes=notes), ODD)
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
    ):
        assert words in out
    tables.verified(dataclasses.replace(check, notes=(f"compared with {ODD}",)))
    assert capsys.readouterr().out.endswith(f"'n' is constant\n  compared with {ODD}\n")
    tables.pruning(report(), ODD)
    assert "not verified\n" in capsys.readouterr().out


def test_lossless_removal_says_what_went_and_that_nothing_changed(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    check = Check(ok=True, error=1e-7, runs=2, outputs=(OutputVerdict("y", Verdict.TESTED),))
    found = {"dead": 3, "constant": 1, "duplicated": 2, "kept": 0, "check": dataclasses.asdict(check)}
    proof = "surgery exact: 1 output tested on 2 input sizes, largest difference 1.0e-07 (lossless == original)\n"
    tables.pruning(report(requested="lossless", verification=check, lossless=found), ODD)
    out = capsys.readouterr().out
    assert "removed without loss: 3 dead, 1 constant, 2 duplicated\n" in out
    assert proof in out
    assert "masked" not in out
    assert "requested" not in out
    tables.pruning(report(verification=check, lossless={**found, "kept": 4}), ODD)
    out = capsys.readouterr().out
    assert "2 duplicated, except 4 that alignment keeps (--align 1 removes them)\n" in out
    assert proof in out
    assert "requested macs=0.5" in out
    assert "pruned == masked" in out
    tables.pruning(report(requested="lossless", lossless={**found, "check": None}), ODD)
    out = capsys.readouterr().out
    assert "not verified\n" in out
    assert "==" not in out


def test_a_plan_says_how_much_remains(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    groups = [{"id": ODD, "size": 4, "keep": [0, 1, 2]}, {"id": "b", "size": 4, "keep": [0, 1, 2, 3]}]
    tables.planned({"groups": groups}, "plan.json", {"macs": 0.5, "channels": 0.875})
    out = capsys.readouterr().out
    assert "0.75" in out
    assert "1 of 2 groups lose positions; 7 of 8 positions remain\n" in out
    assert "obtained macs=0.500, channels=0.875\n" in out
    tables.planned({"groups": []}, "plan.json", {})
    assert "0 of 0 groups" in capsys.readouterr().out


def test_apply_says_what_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    check = Check(ok=True, error=0.0, runs=3, outputs=(OutputVerdict("y", Verdict.PROVEN),))
    done = {"output": ODD, "masked": False, "groups": 1, "bytes": 208_218, "verification": dataclasses.asdict(check)}
    tables.applied(done)
    proof = "surgery exact: 1 output proven on 3 input sizes, largest difference 0.0e+00 (pruned == masked)"
    assert capsys.readouterr().out == f"{ODD}: 1 group pruned, 208 kB\n{proof}\n"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1 k"), (67_600, "67.6 k"), (4.09e9, "4.09 G"), (999_600, "1000 k")]
)
def test_quantities(value: float, text: str) -> None:
    assert quantity(value) == text
