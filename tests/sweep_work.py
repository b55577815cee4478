"""What tests of sweeps share: small models with samples, an engine in this process, and work that is no work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx

from command import net
from onnxprune.options.sweep import SweepRecipe
from onnxprune.sweep.store import DONE, Outcome, Store

RATIOS = (0.9, 0.7, 0.5)


def write_models(folder: Path, *names: str) -> Path:
    """Models of different weights with samples, as a sweep finds them."""
    for part in ("models", "data"):
        (folder / part).mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        onnx.save(net(rng.standard_normal((32, 3, 3, 3), np.float32)), folder / "models" / f"{name}.onnx")
        np.savez(folder / "data" / f"{name}.npz", x=rng.standard_normal((48, 3, 8, 8), np.float32))
    return folder


def recipe_in(folder: Path, **given: Any) -> SweepRecipe:
    """A sweep over all models of a folder."""
    fixed: dict[str, Any] = {
        "models": (folder / "models" / "*.onnx",),
        "store": str(folder / "sweep"),
        "calib": str(folder / "data" / "{stem}.npz"),
        "target": ("macs=0.8,0.6",),
        "option": ("align=1",),
        "latency": False,
    }
    return SweepRecipe(**{**fixed, **given})


class Inline:
    """An engine that calls at once, in this process; notes what it was asked for."""

    workers = 2

    def __init__(self, before: Callable[[Mapping[str, Any]], None] = lambda _: None) -> None:
        self.calls: list[tuple[Mapping[str, Any], int, bool]] = []
        self._before = before

    def submit(self, function: Callable[..., Any], order: Any, *, memory: int = 0, alone: bool = False) -> Future[Any]:
        self.calls.append((order, memory, alone))
        future: Future[Any] = Future()
        try:
            self._before(order)
            future.set_result(function(order))
        except Exception as error:  # noqa: BLE001 - as an engine does
            future.set_exception(error)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def stub(order: Mapping[str, Any]) -> Outcome:
    """Publishes an outcome, and computes nothing."""
    share = float(order["table"]["target"].partition("=")[2])
    cost = {"macs": 1000, "params": 1000, "size": 1000}
    report = {
        "before": cost,
        "after": {name: int(share * value) for name, value in cost.items()},
        "judgement": {"score": {"original": 0.99, "pruned": 0.99 - 0.1 * (1 - share) ** 2}, "drift": {"agreement": share}},
    }
    known = {"key": order["key"], "model": order["model"]["text"], "settings": order["settings"], "worker": str(os.getpid())}
    made = Path(order["model"]["text"])
    sha256 = next(iter(order["model"]["files"].values()))
    outcome = Outcome(**known, state=DONE, report=report, sha256=sha256, nbytes=int(1000 * share), seconds=0.01)
    Store(order["store"]).publish(outcome, made)
    return outcome


def slow_stub(order: Mapping[str, Any]) -> Outcome:
    """The same, with a note of each call beside the store; the first process that comes to a file named ``kill`` dies."""
    beside = Path(order["store"]).parent
    with (beside / "calls").open("a") as calls:
        calls.write(f"{order['key']}\n")
    time.sleep(0.05)
    try:
        (beside / "kill").unlink()
    except FileNotFoundError:
        return stub(order)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
