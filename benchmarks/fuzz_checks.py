"""Checks of what a command wrote: it is valid, it runs, and it computes what the command claims."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fuzz_workers import Outcome, command, forked

__all__ = ["checked"]

SAME = frozenset({"encode", "decode"})
"""Commands whose output computes what the model does."""


def checked(args: tuple[str, ...], outcome: Outcome) -> str:
    """Say what is wrong with the output of a command that ended with success; empty if nothing is."""
    if "--json" in args and not _is_json(outcome.out):
        return "wrong: stdout is not JSON"
    if "o.onnx" not in args or not Path("m.onnx").exists():
        return ""
    reference = "m.onnx" if args[0] in SAME or "--lossless" in args else ""
    if args[0] == "prune" and "o.json" in args and "--calib" not in args:  # repair changes weights
        masked = command(("apply", "m.onnx", "o.json", "--masked", "-o", "masked.onnx"))
        if masked.status:
            return f"wrong: the plan does not apply: {masked.err.strip()[-200:]}"
        reference = "masked.onnx"
    said = forked(lambda: print(_invalid() or _difference(reference)))
    return said.out.strip()  # a crash of ONNX Runtime on a model that it was given is its own


def _is_json(text: str) -> bool:
    def refuse(token: str) -> Any:
        raise ValueError(token)

    with contextlib.suppress(ValueError):
        json.loads(text, parse_constant=refuse)
        return True
    return False


def _invalid() -> str:
    """Say why the output is no valid file, where the model was one."""
    for path in ("m.onnx", "o.onnx"):
        try:
            onnx.checker.check_model(path, full_check=True)
        except Exception as error:  # noqa: BLE001 - the checker derives its exceptions from Exception alone
            return "" if path == "m.onnx" else f"wrong: what was written is not valid: {str(error).strip()[:200]}"
    return ""


def _difference(reference: str) -> str:
    """Run the model, the output and what it is to equal on a few sizes, and say how they differ."""
    from onnxprune.ir.model import Model
    from onnxprune.runtime.session import random_feeds
    from onnxprune.shapes.candidates import binding_candidates

    model = Model.of("m.onnx")
    for sizes in itertools.islice(binding_candidates(model), 3):
        feeds = random_feeds(model.inputs, sizes[0], seed=1)
        first, second = _run(reference or "m.onnx", feeds), _run("o.onnx", feeds)
        if isinstance(first, Exception):
            continue
        if isinstance(second, Exception):
            return f"wrong: what was written does not run: {str(second)[:200]}"
        for at, (one, other) in enumerate(zip(first, second, strict=True)):
            if reference and _far(one, other):
                return f"wrong: output {at} differs"
    return ""


def _run(path: str, feeds: Any) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    except Exception as error:  # noqa: BLE001 - onnxruntime derives its exceptions from Exception alone
        return error


def _far(one: Any, other: Any) -> bool:
    """Tell whether two results differ by more than rounding."""
    if not isinstance(one, np.ndarray) or one.dtype.kind != "f" or not np.isfinite(one).all():
        return False
    return one.shape != other.shape or bool(np.abs(one - other).max(initial=0) > 1e-3 * (np.abs(one).max(initial=0) + 1e-12))
