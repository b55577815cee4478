"""Which machine it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxprune.latency import machines
from onnxprune.latency.machines import fingerprint, machine


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags: x\n", "Some CPU @ 2 GHz"),
        ("processor\t: 0\nCPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n", "Raspberry Pi 4 Model B Rev 1.4"),
    ],
)
def test_processors_and_boards_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str, named: str) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(machines, "_CPUINFO", tmp_path / "cpuinfo")
    assert machine(["cpu"], 1, "1.2.3")["cpu"] == named


def test_a_fingerprint_tells_settings_apart_but_not_systems() -> None:
    found = machine(["cpu"], 1, "1.2.3")
    first = fingerprint(found, "cpu")
    assert first == fingerprint({**found, "system": "a newer kernel"}, "cpu")
    others = {fingerprint({**found, name: other}, "cpu") for name, other in (("cpu", "x"), ("onnxruntime", "2"), ("threads", 9))}
    assert len({first, fingerprint(found, "cuda"), *others}) == 5
    assert json.loads(first)["provider"] == "cpu"
