"""What commands print with ``--json``, cut to what pages show."""

from __future__ import annotations

from typing import Any


def pruned(**changes: Any) -> dict[str, Any]:
    """A model that was pruned with samples."""
    groups = [{"id": f"conv{i}.weight:0", "size": 32, "kept": 24 - i, "exact": True, "members": 3} for i in range(3)]
    check = {"ok": True, "error": 3e-7, "text": "", "runs": 3, "outputs": [{"output": "logits", "verdict": "tested", "why": ""}]}
    latency = [
        {"label": "original", "latency": {"median_ms": 0.2, "rounds": 200}, "ratio": None},
        {"label": "pruned", "latency": {"median_ms": 0.1, "rounds": 200}, "ratio": {"median": 0.5, "q1": 0.45, "q3": 0.55}},
    ]
    machine = {"cpu": "Some CPU", "cores": 2, "system": "Linux", "onnxruntime": "1.31.1", "threads": 1}
    return {
        "model": "net.onnx",
        "output": "small.onnx",
        "requested": "macs=0.5",
        "before": {"macs": 2000, "params": 1_500_000, "size": 6_000_000},
        "after": {"macs": 1000, "params": 750_000, "size": 3_000_000},
        "groups": groups,
        "refusals": [{"node": "head", "axis": "head.weight:0", "text": "graph output", "remedy": "", "reason": "interface"}],
        "verification": check,
        "judgement": judgement("good", "top1 99.0% -> 98.5%"),
        "benchmark": {"rows": latency, "machine": machine},
        "frozen": {},
        "notes": [],
        "seconds": {"analysis": 0.1},
        "tried": [],
        **changes,
    }


def judgement(level: str, text: str) -> dict[str, Any]:
    """How good a result is, as plain data."""
    return {"level": level, "text": text, "share": 0.99, "exact": False, "score": None, "drift": None}


def searched() -> dict[str, Any]:
    """What `optimize` found."""
    names = ("original", "int8", "channels 0.5", "channels 0.5, int8")
    tried = [
        {"mixture": name, "latency": 1 - 0.2 * i, "size": 0.5, "score": 0.99 - 0.01 * i, "holds": i < 3, "chosen": i == 2}
        for i, name in enumerate(names)
    ]
    lever = {"lever": "channels", "check": pruned()["verification"]}
    return {"model": "net.onnx", "output": "fast.onnx", "latency": 0.6, "nbytes": [1000, 400], "tried": tried, "levers": [lever]}


def curves() -> dict[str, Any]:
    """What `sensitivity` found."""
    measured = [{"kept": kept, "divergence": (32 - kept) / 32} for kept in (8, 16, 24)]
    return {"model": "net.onnx", "groups": [{"id": f"conv{i}.weight:0", "size": 32, "measured": measured} for i in range(4)]}
