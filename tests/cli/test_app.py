"""The command as a whole: its usage, models that it cannot read, and how it ends when it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxprune
from command import DIGITS, ENV, PHASES, Cli, external, names, net, one_node, refused


def test_help_names_every_command(call: Cli) -> None:
    done = call("--help")
    assert done.status == 0
    assert all(name in done.out for name in ("inspect", "prune", "plan", "apply", "verify", "benchmark"))


def test_it_says_its_version(call: Cli) -> None:
    done = call("--version")
    assert (done.status, done.out) == (0, f"onnxprune {onnxprune.__version__}\n")


def test_the_command_line_is_there_before_numpy() -> None:
    code = "import sys, onnxprune.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=ENV).returncode == 0


@pytest.mark.parametrize(
    "args",
    [
        ("frobnicate",),
        ("prune",),
        ("prune", DIGITS),
        ("prune", DIGITS, "-o", "x.onnx", "--bogus"),
        ("prune", DIGITS, "-o", "x.onnx", "--seed", "x"),
        ("prune", DIGITS, "-o", "x.onnx", "--seed", "-1"),
        ("verify", DIGITS, DIGITS, "--seed", "-1", "--plan", "p"),
        ("verify", DIGITS, DIGITS),
        ("benchmark", DIGITS, "--threads", "0"),
        ("benchmark", DIGITS, "--seconds", "nan"),
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_2_without_a_traceback(call: Cli, args: tuple[str, ...]) -> None:
    done = call(*args)
    assert done.status == 2
    assert "Error: " in done.err
    assert "Traceback" not in done.err
    assert not done.out


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "onnxprune", "inspect", str(DIGITS)], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert PHASES.sub("", process.stderr.read().decode()) == ""


def test_what_the_system_refuses_is_one_line(call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.driver import prune

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error", "/disk/file")

    monkeypatch.setattr(prune, "analyze", broken)
    refused(call("inspect", model), 2, "Input/output error", "/disk/file")


# Bad models.


def _folder(path: Path) -> None:
    path.mkdir()


def _nan(path: Path) -> None:
    weights = np.ones((32, 3, 3, 3), np.float32)
    weights[3, 1, 1, 1] = np.nan
    onnx.save(net(weights), path)


def _missing_data(path: Path) -> None:
    external(path).with_suffix(".bin").unlink()


def _short_data(path: Path) -> None:
    with external(path).with_suffix(".bin").open("r+b") as file:
        file.truncate(2000)


def _link_out(path: Path) -> None:
    outside = path.parent.parent / "outside.bin"
    external(path, "link.bin").with_suffix(".bin").rename(outside)
    (path.parent / "link.bin").symlink_to(outside)


BAD: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing": (lambda _: None, ("model.onnx", "no such file")),
    "folder": (_folder, ("model.onnx", "is a folder")),
    "empty": (lambda path: path.write_bytes(b""), ("model.onnx", "not an ONNX model")),
    "text": (lambda path: path.write_text("hello world\n" * 10), ("model.onnx", "not an ONNX model")),
    "png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256))), ("model.onnx", "not an ONNX model")),
    "opset": (lambda path: onnx.save(net(opset=999), path), ("model.onnx", "operator set 999", "pip install -U")),
    "nan": (_nan, ("model.onnx", "'w1'", "NaN", "export the model again")),
    "integers": (
        lambda path: onnx.save(
            one_node("MatMulInteger", np.ones((16, 4), np.uint8), (TensorProto.UINT8, TensorProto.INT32)), path
        ),
        ("model.onnx", "no floating-point weights"),
    ),
    "data missing": (_missing_data, ("model.bin", "'w1'", "is missing", "copy it")),
    "data short": (_short_data, ("model.bin", "'w1'", "truncated", "copy it")),
    "data above": (lambda path: external(path, "../up.bin"), ("'w1'", "outside the model's folder", "../up.bin")),
    "data absolute": (lambda path: external(path, "/tmp/up.bin"), ("'w1'", "outside the model's folder")),  # noqa: S108
    "data behind a link": (_link_out, ("'w1'", "outside the model's folder", "link.bin")),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_a_bad_model_is_refused_in_one_line(
    call: Cli, tmp_path: Path, make: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    place = tmp_path / "inner"
    place.mkdir()
    make(place / "model.onnx")
    before = names(place)
    refused(call("prune", place / "model.onnx", "-o", place / "out.onnx"), 2, *words)
    assert names(place) == before


@pytest.mark.parametrize("cut", [0.0, 0.001, 0.01, 0.1, 0.5, 0.95, 0.9999])
def test_a_truncated_model_is_refused(call: Cli, model: Path, cut: float) -> None:
    data = model.read_bytes()
    model.write_bytes(data[: int(cut * len(data))])
    refused(call("inspect", model), 2, model, "not an ONNX model")


# Interruptions.


SERVER = """
import os
import signal
import sys
import time

import onnxruntime
from onnxprune import cli
from onnxprune.driver import prune as driver  # loads what the command needs before it forks
from onnxprune.ir import outputs

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as all that runs under nohup does
begin, put = outputs.Part.__init__, outputs.Part.put

def stop():
    print("here", flush=True)
    while True:
        time.sleep(0.01)  # signal.pause() would wait for ever for a signal that came just before it

class Share:
    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.file.write(data[: int(share * len(data))])
        self.file.flush()
        if share <= 1:
            stop()

def begin_with_share(self, *args):
    begin(self, *args)
    self.file = Share(self.file)

def put_and_stop(self):
    put(self)
    stop()

outputs.Part.__init__, outputs.Part.put = begin_with_share, put_and_stop
for line in sys.stdin:
    share = float(line)
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        try:
            cli.main()
        except SystemExit as end:  # at once: what this process inherited is not its own to close
            os._exit(end.code or 0)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def stopped(model: Path) -> Iterator[Callable[[signal.Signals, float], int]]:
    """Runs prune until it has written a share of its file, or with 2 put it in place, sends a signal; returns how it ended."""
    args = ["prune", str(model), "-o", str(model.parent / "out.onnx"), "--force", "--no-benchmark", "--no-verify"]
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SERVER, *args]
    with subprocess.Popen(command, env=ENV, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as server:
        talk, listen, errors = server.stdin, server.stdout, server.stderr
        assert talk
        assert listen
        assert errors

        def stop(number: signal.Signals, share: float) -> int:
            talk.write(f"{share}\n")
            child = int(listen.readline())
            assert listen.readline() == "here\n"
            os.kill(child, number)
            ended = next(line for line in listen if line.startswith("ended "))
            return os.waitstatus_to_exitcode(int(ended.split()[1]))

        yield stop
        talk.close()
        told = PHASES.sub("", errors.read()).splitlines()
        assert all(line.startswith("onnxprune: interrupted: ") for line in told), told


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_no_trace(
    stopped: Callable[[signal.Signals, float], int], model: Path, number: signal.Signals
) -> None:
    (model.parent / "out.onnx").write_text("old")
    assert stopped(number, 0.5) == 128 + number
    assert names(model.parent) == {"net.onnx", "out.onnx"}
    assert (model.parent / "out.onnx").read_text() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_run_leaves_the_old_file_or_the_new_one(
    call: Cli, stopped: Callable[[signal.Signals, float], int], model: Path
) -> None:
    out = model.parent / "out.onnx"
    assert call("prune", model, "-o", out, "--no-benchmark", "--no-verify").status == 0
    new = out.read_bytes()
    for share, left in ((0, b"old"), (0.4, b"old"), (1, b"old"), (2, new)):
        out.write_text("old")
        assert stopped(signal.SIGKILL, share) == -signal.SIGKILL
        assert out.read_bytes() == left
        parts = {name for name in names(model.parent) if name.endswith(".part")}
        assert len(parts) == (share < 2)  # those of the run before are gone
        assert names(model.parent) == {"net.onnx", "out.onnx", *parts}
    assert stopped(signal.SIGKILL, 0.4) == -signal.SIGKILL
    assert call("prune", model, "-o", out, "--force", "--no-benchmark", "--no-verify").status == 0
    assert out.read_bytes() == new
    assert names(model.parent) == {"net.onnx", "out.onnx"}
