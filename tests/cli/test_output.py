"""What commands print: each once as text and once as JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
import pytest

from command import DIGITS, Cli, Done, complaints, names, refused, shell, within
from onnxprune.axes.plan import PLAN_FORMAT


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


def test_every_command_works_and_says_nothing_but_phases_on_stderr(told: dict[str, Done]) -> None:
    assert {name: (done.status, done.err) for name, done in told.items() if done.status or complaints(done)} == {}
    assert {name for name, done in told.items() if name.endswith("json") and done.err} == set()


def test_text_says_what_happened(told: dict[str, Done]) -> None:
    assert "13 groups can be pruned" in told["inspect"].out
    assert "2 axes cannot be pruned" in told["inspect"].out
    assert "graph output" in told["inspect"].out
    assert "19 layers" in told["inspect"].out
    for words in (
        "requested macs=0.5, obtained macs=0.4",
        "surgery exact: 1 output",
        "(pruned == masked)",
        "latency, cpu",
        "a.onnx",
    ):
        assert words in told["prune"].out
    assert "of 13 groups lose positions" in told["plan"].out
    assert "groups masked" in told["masked"].out
    assert "surgery exact: 1 output" in told["verify"].out
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
    plan = told["plan json"].json()
    assert plan.pop("threads") > 0
    written = json.loads((folder / "q.json").read_text())
    assert {name: plan[name] for name in written} == written
    assert plan["obtained"]["macs"] == pytest.approx(report["obtained"]["macs"])
    assert len(told["benchmark json"].json()["rows"]) == 2
    assert told["inspect json"].json()["opset"] == 18


def test_plan_then_apply_is_prune_byte_for_byte_every_time(told: dict[str, Done], folder: Path) -> None:
    assert told["apply"].status == 0
    a, b, c, d = ((folder / f"{name}.onnx").read_bytes() for name in "abcd")
    assert a == b == c == d
    written, planned, again = ((folder / f"{name}.json").read_text() for name in "apq")
    assert planned == again
    plan = json.loads(written)
    assert plan.pop("pruned") == {"sha256": hashlib.sha256(a).hexdigest()}
    assert json.dumps(plan, indent=1) + "\n" == planned
    assert plan["format"] == PLAN_FORMAT


def test_verify_says_that_a_pruned_model_is_not_the_one_written_with_the_plan(call: Cli, folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / "a.onnx")
    model.doc_string = "written by another run"
    onnx.save(model, tmp_path / "other.onnx")
    for path, warned in ((folder / "a.onnx", 0), (tmp_path / "other.onnx", 1)):
        done = call("verify", DIGITS, path, "--plan", folder / "a.json")
        assert (done.status, done.err.count("is not the file that was written with the plan")) == (0, warned)


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
