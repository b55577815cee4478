"""Runs of a sweep as plain rows, as many as are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np


def run(model: str = "net.onnx", key: str = "0123456789abcdef", **changes: Any) -> dict[str, Any]:
    """A run that ended well."""
    return {
        "model": model,
        "key": key,
        "state": "done",
        "settings": {"target": "macs=0.5"},
        "score": 0.98,
        "agreement": 0.99,
        "drop": 0.005,
        "latency_ms": 0.125,
        "latency_ratio": 0.7,
        "bytes": 148_000,
        "bytes_ratio": 0.52,
        "macs_ratio": 0.5,
        "params_ratio": 0.5,
        "seconds": 3.2,
        "error": "",
        "report": "",
        "front": False,
        **changes,
    }


def failed(error: str, model: str = "net.onnx", key: str = "fedcba9876543210", **changes: Any) -> dict[str, Any]:
    """A run that ended with an error."""
    numbers = ("score", "agreement", "drop", "latency_ms", "latency_ratio", "bytes", "bytes_ratio", "macs_ratio", "params_ratio")
    return run(model, key, state="failed", error=error, **dict.fromkeys(numbers), **changes)


def many(models: int, each: int) -> list[dict[str, Any]]:
    """A sweep of so many models with so many runs each; every fortieth failed."""
    rng = np.random.default_rng(0)
    rows = []
    for model in range(models):
        made = []
        for place in range(each):
            name, key = f"model{model}.onnx", f"{model:08x}{place:08x}"
            settings = {"target": f"macs={(place % 10 + 1) / 10}", "criterion": ("obs", "flap")[place % 2], "align": "auto"}
            ratio = (place % 10 + 1) / 10 + float(rng.uniform(0, 0.05))
            score = 1 - 0.1 * (1 - ratio) ** 2 - float(rng.uniform(0, 0.02))
            if (model * each + place) % 40 == 39:
                made.append(failed(f"{name}: the target cannot be reached", name, key, settings=settings))
                continue
            numbers = {"score": score, "agreement": score, "drop": 1 - score, "latency_ms": 2 * ratio, "latency_ratio": ratio}
            made.append(run(name, key, settings=settings, report=f"reports/{key}.html", **numbers))
        best = -1.0
        for row in sorted((row for row in made if row["state"] == "done"), key=lambda row: float(row["latency_ratio"])):
            row["front"] = row["score"] > best
            best = max(best, row["score"])
        rows += made
    return rows
