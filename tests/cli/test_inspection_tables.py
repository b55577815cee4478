"""What `inspect` prints, at several widths: nothing is cut, nothing is taken for markup, one is not many."""

from __future__ import annotations

from typing import Any

import pytest

from onnxprune.cli import inspection_tables

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


def test_names_come_out_whole_and_unchanged(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    inspection_tables.inspection(found([ODD, LONG], [ODD]), layers=True)
    out = capsys.readouterr().out
    assert f"{ODD}.onnx: opset 18, 1.95 M MACs, 67.6 k parameters, 280 kB\n" in out
    if width:
        table = out.splitlines()[1:]
        assert max(len(line) for line in table) <= width
    else:
        assert LONG in out
        assert out.count(ODD) == 6
    assert "…" not in out


@pytest.mark.parametrize(("count", "words"), [(0, "0 groups"), (1, "1 group"), (2, "2 groups")])
def test_one_is_not_many(count: int, words: str, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    inspection_tables.inspection(found(["a"] * count, ["b", "c"][:count], count), layers=True)
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
    inspection_tables.inspection(long, layers=False)
    out = capsys.readouterr().out
    assert f"{more} group{s}; --all lists all" in out
    assert f"{more} reason{s}; --all lists all" in out
    assert "g39 " in out
    assert "r39:0" in out
    assert not {"g40 ", "r40:0"} & set(out.split())
    inspection_tables.inspection(long, layers=False, every=True)
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
    inspection_tables.inspection(found(["g"], []) | {"refusals": refusals}, layers=False)
    out = capsys.readouterr().out
    assert "4 axes cannot be pruned, 1 more only in part" in out
    assert "w:0 and 3 more" in " ".join(out.split())
    assert "one and 1 more" in " ".join(out.split())
    assert out.count("Softmax mixes it") == 1
    assert "\nmixes: --allow-inexact\n" in out
    inspection_tables.inspection(found(["g"], []) | {"refusals": refusals}, layers=False, every=True)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for start in (["w:0", "mixes", "one"], ["b:0", "mixes", "one"], ["v:1", "mixes", "two"], ["u:0", "interface", "u"]):
        assert start in [line[:3] for line in lines]
    assert ["g:1", "(in", "part)", "mixes"] in [line[:4] for line in lines]
