"""What tests of the command line share: the command itself, small models, and what a refusal looks like."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import cli

ROOT = Path(__file__).resolve().parent.parent
DIGITS = str(ROOT / "models" / "digits.onnx")
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
PHASES = re.compile(r"^onnxprune: phase \d+( of \d+)?: .* s( so far| left)?\n", re.MULTILINE)
"""Lines about phases that are over, and about those that go on, as they do on a slow machine."""
PATIENCE = 1800
"""Seconds after which a command is taken to hang: far more than one takes on a slow and busy machine."""


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        def refuse(token: str) -> None:
            raise AssertionError(f"{token} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


Cli = Callable[..., Done]


def shell(*args: object, cwd: Path | None = None) -> Done:
    """The real thing, in a process of its own."""
    command = [sys.executable, "-m", "onnxprune", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENV, cwd=cwd, timeout=PATIENCE)
    return Done(done.returncode, done.stdout, done.stderr)


def within(*args: object, cwd: Path) -> Done:
    """The same in this process: much faster."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["onnxprune", *map(str, args)])
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as end:
            cli.main()
        signal.signal(signal.SIGTERM, before)
    return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())


def net(w1: Any = None, *, opset: int = 18, batch: int | str = "N") -> onnx.ModelProto:
    """Conv (3 to 32 channels), Relu, Conv (to 8): one group."""
    rng = np.random.default_rng(0)
    w1 = rng.standard_normal((32, 3, 3, 3), np.float32) if w1 is None else w1
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], name="c1", pads=[1] * 4),
            helper.make_node("Relu", ["a"], ["r"], name="relu"),
            helper.make_node("Conv", ["r", "w2"], ["y"], name="c2"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8, 8, 8])],
        [numpy_helper.from_array(w1, "w1"), numpy_helper.from_array(rng.standard_normal((8, 32, 1, 1), np.float32), "w2")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def one_node(op: str, weight: Any, kinds: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT)) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kinds[0], ["N", weight.shape[0]])],
        [helper.make_tensor_value_info("y", kinds[1], ["N", weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def external(path: Path, location: str | None = None) -> Path:
    """The net with its weights in a data file beside it, which is then said to be elsewhere."""
    onnx.save(net(), path, save_as_external_data=True, location=f"{path.stem}.bin", size_threshold=0)
    if location:
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            next(entry for entry in tensor.external_data if entry.key == "location").value = location
        path.write_bytes(model.SerializeToString())
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def complaints(done: Done) -> str:
    """What was said on stderr, without the lines about phases."""
    return PHASES.sub("", done.err)


def refused(done: Done, status: int, *words: object) -> None:
    """One line that says all this, and nothing else but phases that are over."""
    assert done.status == status, done
    assert complaints(done).count("\n") == 1, done.err
    assert complaints(done).startswith("onnxprune: ")
    assert not done.out
    missing = [word for word in map(str, words) if word not in done.err]
    assert not missing, done.err


def inside(page: Path) -> Any:
    """The data that a page has inside."""
    text = page.read_text("utf-8")
    assert "<title>onnxprune</title>" not in text  # it says what it is about
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])
