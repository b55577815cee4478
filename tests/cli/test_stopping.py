"""INT, TERM and HUP end a command that waits for a compiled library, whatever that does with them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from command import ENV, names

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SERVER = """
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading

import onnxruntime
from onnxprune import cli
from onnxprune.driver import prune, quantize, sparsify  # loads what the commands need before it forks

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as all that runs under nohup does
Sessions = onnxruntime.InferenceSession

def told(run, deaf):
    def tell(*args):
        # A run that takes so long is the endless one. Runs go side by side: the line is written at once.
        timer = threading.Timer(0.2, os.write, [1, b"here\\n"])
        timer.start()
        if deaf:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # many minutes without a look at signals
        try:
            return run(*args)
        finally:
            timer.cancel()
    return tell

def command(args, deaf, place):
    os.chdir(place)
    tempfile.tempdir = "tmp"
    signal.alarm(600)  # what does not end fails the test
    for name in ("run", "run_with_iobinding"):
        setattr(Sessions, name, told(getattr(Sessions, name), deaf))
    sys.argv = ["onnxprune", *args]
    try:
        cli.main()
    except SystemExit as end:  # at once: what this process inherited is not its own to close
        os._exit(end.code or 0)

for line in sys.stdin:
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        command(*json.loads(line))
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, env=ENV, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as running:
        yield running
        assert running.stdin
        assert running.stderr
        running.stdin.close()
        said = re.sub(r"^onnxprune: (phase|interrupted:) .*\n", "", running.stderr.read(), flags=re.MULTILINE)
        assert not said


@pytest.fixture
def stopped(server: subprocess.Popen[str], endless: Path) -> Callable[..., int]:
    """Starts a command in the folder of the model, sends a signal when it is in a long run, and returns how it ended."""

    def stop(number: signal.Signals, *args: str, deaf: bool = False) -> int:
        assert server.stdin
        assert server.stdout
        server.stdin.write(json.dumps([args, deaf, str(endless.parent)]) + "\n")
        child = int(server.stdout.readline())
        said = server.stdout.readline()
        os.kill(child, number if said == "here\n" else signal.SIGKILL)  # nothing waits for it in vain
        ended = next(line for line in server.stdout if line.startswith("ended "))
        assert said == "here\n", "it ended before"
        return os.waitstatus_to_exitcode(int(ended.split()[1]))

    return stop


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """Two layers and a loop of a thousand million steps, beside samples and an old output."""
    body = parser.parse_graph("b (int64 i, bool c, float[n, 16] v) => (bool d, float[n, 16] w) {d = Identity(c) w = Tanh(v)}")
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape, np.float32), name)
        for name, shape in (("a", (6, 32)), ("b", (32, 16)), ("c", (16, 3)))
    ]
    text = '<ir_version: 9, opset_import: ["" : 18]> g (float[n, 6] x) => (float[n, 3] y) {'
    model = parser.parse_model(f"{text} h = MatMul(x, a) r = Relu(h) k = MatMul(r, b) y = MatMul(l, c) }}")
    model.graph.initializer.extend([*weights, helper.make_tensor("m", onnx.TensorProto.INT64, [], [10**9])])
    model.graph.node.insert(3, helper.make_node("Loop", ["m", "", "k"], ["l"], body=body))
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "s.npz", x=rng.standard_normal((48, 6), np.float32))
    (tmp_path / "out.onnx").write_text("old")
    (tmp_path / "tmp").mkdir()
    return tmp_path / "net.onnx"


OUT = ("-o", "out.onnx", "--force")
COMMANDS = {
    "prune": ("prune", "net.onnx", *OUT),
    "prune with samples": ("prune", "net.onnx", *OUT, "--calib", "s.npz"),
    "sparsify": ("sparsify", "net.onnx", *OUT, "--sparsity", "0.5"),
    "encode": ("encode", "net.onnx", *OUT),
    "decode": ("decode", "net.onnx", *OUT),
    "quantize": ("quantize", "net.onnx", *OUT, "--calib", "s.npz"),
    "optimize": ("optimize", "net.onnx", *OUT, "--calib", "s.npz", "--target", "size=0.9"),
    "benchmark": ("benchmark", "net.onnx"),
}


@pytest.mark.parametrize("deaf", [False, True], ids=["a run that ends when it is told", "a library that hears nothing"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_ends_what_would_not_end(stopped: Callable[..., int], endless: Path, name: str, *, deaf: bool) -> None:
    number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[list(COMMANDS).index(name) % 3]
    assert stopped(number, *COMMANDS[name], deaf=deaf) == 128 + number
    assert names(endless.parent) == {"net.onnx", "out.onnx", "s.npz", "tmp"}
    assert (endless.parent / "out.onnx").read_text() == "old"
    assert not names(endless.parent / "tmp")
