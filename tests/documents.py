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
    return {
        "model": "net.onnx",
        "output": "fast.onnx",
        "latency": 0.6,
        "size": 0.4,
        "nbytes": [1000, 400],
        "tried": tried,
        "levers": [lever],
    }


def curves() -> dict[str, Any]:
    """What `sensitivity` found."""
    measured = [{"kept": kept, "divergence": (32 - kept) / 32} for kept in (8, 16, 24)]
    return {"model": "net.onnx", "groups": [{"id": f"conv{i}.weight:0", "size": 32, "measured": measured} for i in range(4)]}


def recipe() -> dict[str, Any]:
    """What `run` did in two steps."""
    steps = [
        {"name": "cut", "do": "prune", "options": {"target": "macs=0.5"}, "bytes": 3_000_000, "seconds": 2.5, "reused": False},
        {"name": "encode", "do": "encode", "options": {}, "bytes": 1_000_000, "seconds": 0.1, "reused": True},
    ]
    check = {"ok": True, "error": 0.0, "text": "", "runs": 3, "outputs": [{"output": "logits", "verdict": "proven", "why": ""}]}
    reports = [
        pruned(notes=["a note"]),
        {"model": "net.onnx", "verification": check, "judgement": judgement("good", "as before")},
    ]
    done = [{**step, "report": report} for step, report in zip(steps, reports, strict=True)]
    ends = {"model": "net.onnx", "output": "small.onnx", "bytes": [6_000_000, 1_000_000], "notes": []}
    return {"command": "run", **ends, "steps": done, "judgement": judgement("worse", "the end")}


def timed() -> dict[str, Any]:
    """What `benchmark` measured."""
    rows = [
        {"label": name, "provider": "cpu", "batch": 1, "threads": 2, "session_s": 0.02, "peak_mib": None}
        | {"latency": {"median_ms": time, "q1_ms": time * 0.9, "q3_ms": time * 1.1, "rounds": 50}}
        | {"ratio": None if time == 2.0 else {"median": time / 2, "q1": 0.4, "q3": 0.6}}
        for name, time in (("net.onnx", 2.0), ("small.onnx", 1.0))
    ]
    return {"command": "benchmark", "rows": rows}


def inspected() -> dict[str, Any]:
    """What `inspect` found."""
    group = {"id": "conv1:0", "kind": "channels", "size": 32, "members": [{}, {}], "exact": True}
    layers = [{"node": f"conv{i}", "op": "Conv", "macs": 100 * i, "params": 10, "axes": "n i, o i -> n o"} for i in (1, 2)]
    ends: dict[str, Any] = {"inputs": [{"name": "image", "type": "float", "shape": ["batch", 3]}]}
    ends["outputs"] = [{"name": "logits", "type": "float", "shape": None}]
    return {"command": "inspect", "model": "net.onnx", **ends, "groups": [group], "layers": layers, "refusals": []}
