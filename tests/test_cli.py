"""The command line as its users meet it: what it prints, what it writes, how it fails."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from onnxprune import cli
from onnxprune.plan import FORMAT

ROOT = Path(__file__).resolve().parent.parent
DIGITS = str(ROOT / "models" / "digits.onnx")
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        def refuse(token: str) -> None:
            raise AssertionError(f"{token} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


def shell(*args: object, cwd: Path | None = None) -> Done:
    """The real thing, in a process of its own."""
    command = [sys.executable, "-m", "onnxprune", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENV, cwd=cwd, timeout=120)
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


Cli = Callable[..., Done]


@pytest.fixture
def call() -> Cli:
    return lambda *args: within(*args, cwd=Path.cwd())


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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(net(), path)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refused(done: Done, status: int, *words: object) -> None:
    """One line that says all this, and nothing else."""
    assert done.status == status, done
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("onnxprune: ")
    assert not done.out
    missing = [word for word in map(str, words) if word not in done.err]
    assert not missing, done.err


# The commands that work, each once as text and once as JSON.


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    folder = tmp_path_factory.mktemp("cli")
    wanted = ("--target", "macs=0.5", "--seed", 3)
    commands: dict[str, tuple[object, ...]] = {
        "inspect": ("inspect", DIGITS, "--layers"),
        "inspect json": ("inspect", DIGITS, "--json"),
        "prune": ("prune", DIGITS, "-o", "a.onnx", "--plan-out", "a.json", *wanted),
        "prune json": ("prune", DIGITS, "-o", "b.onnx", *wanted, "--no-benchmark", "--json"),
        "plan": ("plan", DIGITS, "-o", "p.json", *wanted),
        "plan json": ("plan", DIGITS, "-o", "q.json", *wanted, "--json"),
        "apply": ("apply", DIGITS, "p.json", "-o", "c.onnx"),
        "apply json": ("apply", DIGITS, "p.json", "-o", "d.onnx", "--json"),
        "masked": ("apply", DIGITS, "p.json", "-o", "m.onnx", "--masked"),
        "verify": ("verify", DIGITS, "a.onnx", "--plan", "a.json"),
        "verify json": ("verify", DIGITS, "a.onnx", "--plan", "a.json", "--json"),
        "benchmark": ("benchmark", DIGITS, "a.onnx", "--seconds", 0.1, "--batch", "1,4"),
        "benchmark json": ("benchmark", DIGITS, "a.onnx", "--seconds", 0.1, "--json"),
    }
    done = {}
    for name, command in commands.items():
        done[name] = within(*command, cwd=folder) if name.endswith("json") else shell(*command, cwd=folder)
    done["folder"] = Done(0, str(folder), "")
    return done


@pytest.fixture(scope="module")
def folder(told: dict[str, Done]) -> Path:
    return Path(told["folder"].out)


def test_every_command_works_and_is_silent_on_stderr(told: dict[str, Done]) -> None:
    assert {name: (done.status, done.err) for name, done in told.items() if done.status or done.err} == {}


def test_text_says_what_happened(told: dict[str, Done]) -> None:
    assert "13 groups can be pruned" in told["inspect"].out
    assert "2 axes cannot be pruned" in told["inspect"].out
    assert "graph output" in told["inspect"].out
    assert "19 layers" in told["inspect"].out
    for words in ("requested macs=0.5, obtained macs=0.4", "verified: pruned == masked", "latency, cpu", "a.onnx"):
        assert words in told["prune"].out
    assert "of 13 groups lose positions" in told["plan"].out
    assert "groups masked" in told["masked"].out
    assert "verified: pruned == masked" in told["verify"].out
    assert told["benchmark"].out.count("a.onnx") == 2


@pytest.mark.parametrize("name", ["inspect", "prune", "plan", "apply", "verify", "benchmark"])
def test_json_is_one_strict_document(told: dict[str, Done], name: str) -> None:
    done = told[f"{name} json"]
    assert isinstance(done.json(), dict)
    assert done.out.count("\n") == 1


def test_json_says_what_happened(told: dict[str, Done], folder: Path) -> None:
    report = told["prune json"].json()
    assert report["requested"] == "macs=0.5"
    assert 0.4 < report["obtained"]["macs"] <= 0.5
    assert report["verification"]["ok"] is True
    assert report["output"] == "b.onnx"
    assert isinstance(report["after"]["macs"], int)
    assert told["apply json"].json()["bytes"] == (folder / "d.onnx").stat().st_size
    assert told["plan json"].json() == json.loads((folder / "q.json").read_text())
    assert len(told["benchmark json"].json()["rows"]) == 2
    assert told["inspect json"].json()["opset"] == 18


def test_plan_then_apply_is_prune_byte_for_byte_every_time(told: dict[str, Done], folder: Path) -> None:
    assert told["apply"].status == 0
    a, b, c, d = ((folder / f"{name}.onnx").read_bytes() for name in "abcd")
    assert a == b == c == d
    plans = [(folder / f"{name}.json").read_bytes() for name in "apq"]
    assert plans[0] == plans[1] == plans[2]
    assert json.loads(plans[0])["format"] == FORMAT


def test_masked_keeps_every_shape(told: dict[str, Done], folder: Path) -> None:
    assert told["masked"].status == 0
    shapes = [{tuple(t.dims) for t in onnx.load(path).graph.initializer} for path in (DIGITS, folder / "m.onnx")]
    assert shapes[0] == shapes[1]
    assert (folder / "a.onnx").stat().st_size < (folder / "m.onnx").stat().st_size


def test_nothing_else_is_left_in_the_folder(told: dict[str, Done], folder: Path) -> None:
    assert told["prune"].status == 0
    assert names(folder) == {*(f"{n}.onnx" for n in "abcdm"), *(f"{n}.json" for n in "apq")}


def test_a_failed_proof_is_exit_1_and_strict_json(call: Cli, model: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert call("plan", model, "-o", plan).status == 0
    refused(call("verify", model, model, "--plan", plan), 1, model, "'y' differs from the masked model's")
    done = call("verify", model, DIGITS, "--plan", plan, "--json")  # another interface: the difference is infinite
    assert done.status == 1
    assert done.json()["error"] is None


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "onnxprune", "inspect", str(DIGITS)], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""


def test_help_names_every_command(call: Cli) -> None:
    done = call("--help")
    assert done.status == 0
    assert all(name in done.out for name in ("inspect", "prune", "plan", "apply", "verify", "benchmark"))


# Without loss.


@pytest.fixture
def wasteful(tmp_path: Path) -> Path:
    """Of 32 channels, three are copies, two are dead and nineteen never fire."""
    weights = np.random.default_rng(0).standard_normal((32, 3, 3, 3), np.float32)
    weights[[5, 6, 7]] = weights[4]
    weights[13:] = 0
    model = net(weights)
    second = model.graph.initializer[1]
    columns = numpy_helper.to_array(second).copy()
    columns[:, [1, 2]] = 0
    second.CopyFrom(numpy_helper.from_array(columns, second.name))
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return path


def test_lossless(call: Cli, wasteful: Path) -> None:
    out = wasteful.parent / "out.onnx"
    done = call("prune", wasteful, "-o", out, "--lossless", "--align", "1", "--no-benchmark")
    assert (done.status, done.err) == (0, "")
    assert "removed without loss: 2 dead, 19 constant, 3 duplicated\n" in done.out
    assert "verified: lossless == original" in done.out
    assert {tuple(t.dims) for t in onnx.load(out).graph.initializer} == {(8, 3, 3, 3), (8, 8, 1, 1)}
    done = call("prune", wasteful, "-o", out, "--lossless", "--force", "--no-benchmark", "--json")
    found = done.json()
    assert found["lossless"]["kept"] == 8  # sixteen remain
    assert found["lossless"]["check"]["ok"] is True
    assert found["requested"] == "lossless"


def test_lossless_before_a_target(call: Cli, wasteful: Path) -> None:
    out = wasteful.parent / "out.onnx"
    wanted = ("--lossless", "--target", "macs=0.2", "--align", "1", "--no-benchmark")
    done = call("prune", wasteful, "-o", out, *wanted)
    assert (done.status, done.err) == (0, "")
    assert all(
        words in done.out for words in ("lossless == original", "requested macs=0.2, obtained macs=0.1", "pruned == masked")
    )


def test_lossless_where_nothing_can_go(call: Cli, model: Path) -> None:
    out = model.parent / "out.onnx"
    refused(call("prune", model, "-o", out, "--lossless"), 1, model, "nothing can go without loss")
    assert names(model.parent) == {"net.onnx"}


def test_lossless_writes_no_plan(call: Cli, wasteful: Path) -> None:
    plan = wasteful.parent / "plan.json"
    refused(call("prune", wasteful, "-o", wasteful.parent / "out.onnx", "--lossless", "--plan-out", plan), 2, "--plan-out")
    assert names(wasteful.parent) == {"net.onnx"}


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


def test_a_model_without_groups_says_so(call: Cli, tmp_path: Path) -> None:
    path = tmp_path / "gemm.onnx"
    onnx.save(one_node("Gemm", np.ones((16, 4), np.float32)), path)
    refused(call("prune", path, "-o", tmp_path / "out.onnx"), 1, "no group that can be pruned", "inspect says why")
    done = call("inspect", path)
    assert done.status == 0
    assert "0 groups can be pruned\n" in done.out
    assert "2 axes cannot be pruned" in done.out
    assert names(tmp_path) == {"gemm.onnx"}


# Bad options.


@pytest.mark.parametrize("target", ["macs=1.7", "foo=1", "macs=", "macs=abc", "macs=0", "macs=nan", "macs=-1", "macs", ""])
def test_a_bad_target_is_refused(call: Cli, model: Path, target: str) -> None:
    refused(call("prune", model, "-o", model.parent / "out.onnx", "--target", target), 2, repr(target), "macs=0.5")
    assert names(model.parent) == {"net.onnx"}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--align", "0", ("align '0'", "write auto, 1 or")),
        ("--align", "-1", ("align '-1'",)),
        ("--align", "x", ("align 'x'",)),
        ("--criterion", "foo", ("'foo'", "l1, l2")),
        ("--criterion", "bn_scale", ("BatchNormalization", "--criterion l2")),
        ("--scope", "foo", ("'foo'", "isomorphic")),
    ],
)
def test_a_bad_option_is_refused(call: Cli, model: Path, option: str, value: str, words: tuple[str, ...]) -> None:
    refused(call("prune", model, "-o", model.parent / "out.onnx", option, value), 2, *words)
    assert names(model.parent) == {"net.onnx"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--batch", "x"), ("--batch 'x'", "1,8")),
        (("--batch", "0"), ("--batch '0'",)),
        (("--providers", "foo"), ("'foo'", "cpu, cuda")),
    ],
)
def test_a_bad_benchmark_is_refused(call: Cli, model: Path, args: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(call("benchmark", model, *args), 2, *words)


def test_a_provider_that_is_not_here_is_refused(call: Cli, model: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is here")
    refused(call("benchmark", model, "--providers", "cuda"), 2, "'cuda' is not available here", "pip")


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


def test_an_unreachable_target_says_what_is_reachable(call: Cli, model: Path) -> None:
    done = call(
        "prune", model, "-o", model.parent / "out.onnx", "--target", "macs=0.01", "--plan-out", model.parent / "plan.json"
    )
    refused(done, 1, "macs=0.01 cannot be reached", "at least macs=0.5", "--align 1")
    assert names(model.parent) == {"net.onnx"}


# Outputs.


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nodir/out.onnx", ("no folder", "create it")),
        ("net.onnx/out.onnx", ("is a file, not a folder",)),
        (".", ("is a folder", "name a file in it")),
        ("old.onnx", ("exists already", "--force")),
        ("dangling.onnx", ("exists already", "--force")),
        ("x" * 300, ("cannot be written",)),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, output: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(model.parent)
    Path("old.onnx").write_text("mine")
    Path("dangling.onnx").symlink_to("nowhere")
    before = names(model.parent)
    for command in (["prune", "absent.onnx"], ["plan", "absent.onnx"], ["apply", "absent.onnx", "absent.json"]):
        refused(call(*command, "-o", output), 2, output.removesuffix("."), *words)
    refused(call("prune", "net.onnx", "-o", "new.onnx", "--plan-out", output), 2, *words)
    assert names(model.parent) == before
    assert Path("old.onnx").read_text() == "mine"


@pytest.mark.parametrize("output", ["net.onnx", "./net.onnx", "link.onnx", "hard.onnx", "../{}/net.onnx"])
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_an_input_is_never_overwritten(
    call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, output: str, force: tuple[str, ...]
) -> None:
    monkeypatch.chdir(model.parent)
    Path("link.onnx").symlink_to("net.onnx")
    Path("hard.onnx").hardlink_to("net.onnx")
    before = model.read_bytes()
    refused(call("prune", "net.onnx", "-o", output.format(model.parent.name), *force), 2, "write to another")
    refused(call("prune", "link.onnx", "-o", "net.onnx", *force), 2, "write to another")
    refused(call("prune", "net.onnx", "-o", "a", "--plan-out", "a", *force), 2, "write to another")
    refused(call("prune", "net.onnx", "-o", "a", "--plan-out", model.parent / "a", *force), 2, "write to another")
    refused(call("apply", "absent.onnx", "net.onnx", "-o", "net.onnx", *force), 2, "write to another")
    assert model.read_bytes() == before
    assert names(model.parent) == {"net.onnx", "link.onnx", "hard.onnx"}


def test_the_weights_of_an_input_are_never_overwritten(call: Cli, tmp_path: Path) -> None:
    path = external(tmp_path / "model.onnx")
    data = path.with_suffix(".bin")
    before = data.read_bytes()
    refused(call("prune", path, "-o", data, "--force"), 2, data, "holds weights of an input")
    assert data.read_bytes() == before


def test_force_replaces_an_old_output(call: Cli, model: Path) -> None:
    out = model.parent / "out.onnx"
    out.write_text("old")
    assert call("prune", model, "-o", out, "--force", "--no-benchmark", "--no-verify").status == 0
    assert len(onnx.load(out).graph.node) == 3


def test_a_plan_appears_only_with_its_model(call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune import files
    from onnxprune.errors import OutputError

    def full(*args: object) -> None:
        raise OutputError("out.onnx: cannot be written: No space left on device")

    monkeypatch.setattr(files, "save", full)
    done = call("prune", model, "-o", model.parent / "out.onnx", "--plan-out", model.parent / "p.json", "--no-benchmark")
    refused(done, 2, "No space left")
    assert names(model.parent) == {"net.onnx"}


def test_a_benchmark_that_fails_is_a_note(call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune import bench
    from onnxprune.errors import OptionError

    def fail(*args: object, **kwargs: object) -> None:
        raise OptionError("does not run with guessed sizes")

    monkeypatch.setattr(bench, "benchmark", fail)
    done = call("prune", model, "-o", model.parent / "out.onnx")
    assert done.status == 0
    assert "note: latency was not measured: does not run with guessed sizes" in done.out


def test_what_the_system_refuses_is_one_line(call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune import api

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error", "/disk/file")

    monkeypatch.setattr(api, "analyze", broken)
    refused(call("inspect", model), 2, "Input/output error", "/disk/file")


# Plans.


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from onnxprune import api

    path = tmp_path_factory.mktemp("plan") / "net.onnx"
    onnx.save(net(), path)
    chosen, analysis = api.make_plan(path)
    return chosen.to_dict(analysis.coupling)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("plan.json", "No such file")),
        (b"no", ("plan.json", "not JSON")),
        (b"\xff\xfe\x00", ("plan.json", "not JSON")),
        (b"[1]", ("not a plan",)),
        (b"{}", ("not a plan",)),
        (json.dumps({"format": FORMAT}).encode(), ("damaged",)),
    ],
)
def test_a_file_that_is_no_plan_is_refused(call: Cli, model: Path, content: bytes | None, words: tuple[str, ...]) -> None:
    path = model.parent / "plan.json"
    if content is not None:
        path.write_bytes(content)
    refused(call("apply", model, path, "-o", model.parent / "out.onnx"), 2, *words)
    assert not (model.parent / "out.onnx").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keep": [0, 1, 99]}, ("'w1:0'", "below 32")),
        ({"keep": [-1, 1]}, ("'w1:0'", "below 32")),
        ({"keep": [1, 1, 2]}, ("'w1:0'", "ascending")),
        ({"keep": []}, ("'w1:0'",)),
        ({"keep": [[1], [2]]}, ("'w1:0'", "not a list of ascending positions")),
        ({"keep": "abc"}, ()),
        ({"id": "other:0"}, ("'other:0'", "make a plan for it")),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(
    call: Cli, model: Path, plan: dict[str, Any], change: dict[str, Any], words: tuple[str, ...]
) -> None:
    path = model.parent / "plan.json"
    path.write_text(json.dumps({**plan, "groups": [{**plan["groups"][0], **change}]}))
    refused(call("apply", model, path, "-o", model.parent / "out.onnx"), 2, *words)
    assert names(model.parent) == {"net.onnx", "plan.json"}


def test_a_plan_for_another_file_is_applied_with_a_warning(call: Cli, model: Path) -> None:
    folder = model.parent
    assert call("plan", model, "-o", folder / "plan.json", "--target", "channels=0.5", "--align", "1").err == ""
    other, out = folder / "other.onnx", folder / "out.onnx"
    onnx.save(net(np.ones((32, 3, 3, 3), np.float32)), other)
    warning = f"onnxprune: warning: {other} is not the file that the plan was made for (net.onnx, sha256 "
    done = call("apply", other, folder / "plan.json", "-o", out)
    assert done.status == 0
    assert done.err.startswith(warning)
    assert done.err.count("\n") == 1
    done = call("apply", other, folder / "plan.json", "-o", out, "--json", "--force")
    assert "is not the file that the plan was made for" in done.json()["notes"][0]
    done = call("verify", other, out, "--plan", folder / "plan.json", "--json")
    assert done.status == 0
    assert done.err.startswith(warning)
    assert "is not the file that the plan was made for" in done.json()["notes"][0]
    done = call("apply", model, folder / "plan.json", "-o", out, "--json", "--force")
    assert (done.err, done.json()["notes"]) == ("", [])


# Samples.


def samples(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"x": np.zeros(shape, dtype)}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros(4), "z": np.zeros((4, 3, 8, 8), np.float32)}, ("no array for input 'x'", "it has y, z")),
        ({}, ("no array for input 'x'", "it has none")),
        (samples(4, 3, 8, 9), ("'x'", "[4, 3, 8, 9]", "[samples, 3, 8, 8]")),
        (samples(4), ("'x'", "[4]", "[samples, 3, 8, 8]")),
        (samples(), ("'x'", "[]")),
        (samples(0, 3, 8, 8), ("'x'", "0 samples")),
        (samples(4, 3, 8, 8, dtype="complex64"), ("complex64", "float32")),
        ({"x": np.array([{}], object)}, ("not an .npz", "numpy.savez")),
    ],
)
def test_samples_that_do_not_fit_are_refused(call: Cli, model: Path, arrays: dict[str, Any], words: tuple[str, ...]) -> None:
    path = model.parent / "samples.npz"
    np.savez(path, **arrays)
    refused(call("prune", model, "-o", model.parent / "out.onnx", "--calib", path), 2, f"--calib {path}", *words)
    assert names(model.parent) == {"net.onnx", "samples.npz"}


def test_too_few_samples_for_a_fixed_batch_are_refused(call: Cli, tmp_path: Path) -> None:
    onnx.save(net(batch=8), tmp_path / "net.onnx")
    np.savez(tmp_path / "samples.npz", **samples(7, 3, 8, 8))
    done = call("prune", tmp_path / "net.onnx", "-o", tmp_path / "out.onnx", "--calib", tmp_path / "samples.npz")
    refused(done, 2, "7 samples", "8 at a time")


def test_a_file_that_holds_no_samples_is_refused(call: Cli, model: Path) -> None:
    text, array = model.parent / "text.npz", model.parent / "array.npy"
    for path in (text, array):
        path.write_text("no")
        refused(call("prune", model, "-o", model.parent / "out.onnx", "--calib", path), 2, path, f"not an {path.suffix}")
    absent, empty = model.parent / "absent.npz", model.parent / "empty"
    empty.mkdir()
    refused(call("prune", model, "-o", model.parent / "out.onnx", "--calib", absent), 2, absent, "no such file")
    refused(call("prune", model, "-o", model.parent / "out.onnx", "--calib", empty), 2, empty, "neither images", "nor .npz")


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_samples_of_a_near_type_are_converted(call: Cli, model: Path, dtype: str) -> None:
    path = model.parent / "samples.npz"
    np.savez(path, x=np.ones((20, 3, 8, 8), dtype), unused=np.zeros(3))
    done = call("prune", model, "-o", model.parent / "out.onnx", "--calib", path, "--no-benchmark", "--json")
    assert done.status == 0
    assert done.json()["drift"]["samples"] == 20


def test_images_are_preprocessed(call: Cli, model: Path) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).save(model.parent / f"{number}.png")
    arguments = ("prune", model, "-o", model.parent / "out.onnx", "--no-benchmark", "--json", "--calib", model.parent)
    drift = call(*arguments, "--preprocess", "imagenet,std=1").json()["drift"]
    told = "resize=9,crop=8,mean=0.485/0.456/0.406,scale=255"
    assert (drift["samples"], drift["source"]) == (3, f"--calib {model.parent} ({told})")
    refused(call(*arguments, "--force", "--preprocess", "imagnet"), 2, "--preprocess imagnet: there is no 'imagnet'")


def test_preprocessing_is_of_images(call: Cli, model: Path) -> None:
    np.savez(model.parent / "samples.npz", **samples(4, 3, 8, 8))
    arguments = ("prune", model, "-o", model.parent / "out.onnx", "--preprocess", "unit")
    refused(call(*arguments), 2, "--preprocess unit: is for the images of --calib")
    refused(call(*arguments, "--calib", model.parent / "samples.npz"), 2, "--preprocess unit: is for a folder of images")


def test_a_function_of_the_working_directory(model: Path) -> None:
    (model.parent / "mine.py").write_text("import numpy as np\ndef data():\n    yield from np.ones((5, 3, 8, 8))\n")
    command = [sys.executable, "-P", "-m", "onnxprune", "prune", model.name, "-o", "out.onnx", "--calib", "mine:data", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENV, cwd=model.parent, timeout=120)
    assert done.returncode == 0, done.stderr
    drift = json.loads(done.stdout)["drift"]
    assert (drift["samples"], drift["source"]) == (5, "--calib mine:data")


# Interruptions.

SERVER = """
import contextlib
import os
import signal
import sys
import time

import onnxruntime
from onnxprune import api, cli, files

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
whole = files.replace_file

@contextlib.contextmanager
def dripping(path):
    class Slow:
        def write(self, data):
            print("writing", flush=True)
            for start in range(0, len(data), 256):
                file.write(data[start : start + 256])
                file.flush()
                time.sleep(float(os.environ["PACE"]))

    with whole(path) as file:
        yield Slow()

files.replace_file = dripping
for _ in sys.stdin:
    child = os.fork()
    if not child:
        try:
            cli.main()
        except SystemExit as end:  # at once: what this process inherited is not its own to close
            os._exit(end.code or 0)
    print(child, flush=True)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def stopped(model: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[signal.Signals, float], int]]:
    """Runs prune, which writes in pieces, and sends a signal that long after it began; returns how it ended."""
    args = ["prune", str(model), "-o", str(model.parent / "out.onnx"), "--force", "--no-benchmark", "--no-verify"]
    pipe = subprocess.PIPE
    pace = str(getattr(request, "param", 0.01))  # seconds between pieces; there are about ten
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, *args],
        env={**ENV, "PACE": pace},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        bufsize=1,
    ) as server:
        talk, listen, errors = server.stdin, server.stdout, server.stderr
        assert talk
        assert listen
        assert errors

        def stop(number: signal.Signals, delay: float) -> int:
            talk.write("go\n")
            child = int(listen.readline())
            assert listen.readline() == "writing\n"
            time.sleep(delay)
            with contextlib.suppress(ProcessLookupError):  # it was done already
                os.kill(child, number)
            ended = next(line for line in listen if line.startswith("ended "))
            return os.waitstatus_to_exitcode(int(ended.split()[1]))

        yield stop
        talk.close()
        assert not errors.read()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("stopped", [2.0], indirect=True)  # it must still be writing, however busy the machine is
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_trace(
    stopped: Callable[[signal.Signals, float], int], model: Path, number: signal.Signals
) -> None:
    (model.parent / "out.onnx").write_text("old")
    assert stopped(number, 0.03) == 128 + number
    assert names(model.parent) == {"net.onnx", "out.onnx"}
    assert (model.parent / "out.onnx").read_text() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_run_leaves_the_old_file_or_the_new_one(
    call: Cli, stopped: Callable[[signal.Signals, float], int], model: Path
) -> None:
    out = model.parent / "out.onnx"
    assert call("prune", model, "-o", out, "--no-benchmark", "--no-verify").status == 0
    new, seen = out.read_bytes(), set()
    for delay in (0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.3):
        out.write_text("old")
        stopped(signal.SIGKILL, delay)
        content = out.read_bytes()
        assert content in {b"old", new}
        seen.add(content)
    assert b"old" in seen  # otherwise every kill came too late and this shows nothing
    parts = {name for name in names(model.parent) if name.endswith(".part")}
    assert parts
    assert names(model.parent) == {"net.onnx", "out.onnx", *parts}
    assert call("prune", model, "-o", out, "--force", "--no-benchmark", "--no-verify").status == 0
    assert out.read_bytes() == new
    assert {name for name in names(model.parent) if name.endswith(".part")} == parts


# sparsify


def test_the_command_line_is_there_before_numpy() -> None:
    code = "import sys, onnxprune.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=ENV).returncode == 0


def test_sparsify_writes_zeros_and_says_where(call: Cli, tmp_path: Path) -> None:
    out = tmp_path / "sparse.onnx"
    done = call("sparsify", DIGITS, "-o", out, "--sparsity", "0.8", "--json")
    report = done.json()
    assert report["output"] == str(out)
    assert report["sparsity"] == pytest.approx(0.8, abs=1e-3)
    zeros = sum(int((numpy_helper.to_array(t) == 0).sum()) for t in onnx.load(out).graph.initializer if len(t.dims) > 1)
    assert zeros == report["zeros"]


def test_sparsify_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = shell("sparsify", DIGITS, "-o", tmp_path / "m24.onnx", "--pattern", "2:4")
    assert done.status == 0, done.err
    assert "2:4, by magnitude" in done.out
    assert "--ends includes them" in done.out
    assert "after gzip" in done.out


def test_sparsify_with_samples(call: Cli, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32))
    done = call("sparsify", model, "-o", tmp_path / "s.onnx", "--ends", "--sparsity", "0.6", "--calib", tmp_path / "x.npz")
    assert done.status == 0, done.err
    assert "unstructured, by admm, shared out by sensitivity" in done.out
    assert "refit 2 layers" in done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity", "1.5"], ["target 'sparsity=1.5'", "below 1"]),
        (["--sparsity", "0.5", "--target", "gzip=0.5"], ["give one of them"]),
        (["--pattern", "4:2"], ["pattern '4:2'", "2:4"]),
        (["--method", "obs"], ["method 'obs' needs samples", "--calib"]),
        (["--sparsity", "0.5"], ["--ends"]),
    ],
)
def test_sparsify_refuses(call: Cli, model: Path, tmp_path: Path, options: list[str], words: list[str]) -> None:
    out = tmp_path / "out.onnx"
    refused(call("sparsify", model, "-o", out, *options), 2, *words)
    assert not out.exists()
