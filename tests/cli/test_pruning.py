"""`prune`, with loss and without; plans, and what they are applied to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from command import Cli, complaints, names, net, one_node, refused
from onnxprune.axes.plan import PLAN_FORMAT


def test_a_model_without_groups_says_so(call: Cli, tmp_path: Path) -> None:
    path = tmp_path / "gemm.onnx"
    onnx.save(one_node("Gemm", np.ones((16, 4), np.float32)), path)
    refused(call("prune", path, "-o", tmp_path / "out.onnx"), 1, "no group that can be pruned", "inspect says why")
    done = call("inspect", path)
    assert done.status == 0
    assert "0 groups can be pruned\n" in done.out
    assert "2 axes cannot be pruned" in done.out
    assert names(tmp_path) == {"gemm.onnx"}


def test_an_unreachable_target_says_what_is_reachable(call: Cli, model: Path) -> None:
    plan, out = model.parent / "plan.json", model.parent / "out.onnx"
    done = call("prune", model, "-o", out, "--target", "macs=0.01", "--align", "16", "--plan-out", plan)
    refused(done, 1, "macs=0.01 cannot be reached", "at least macs=0.5", "alignment 16; try --align 1")
    assert names(model.parent) == {"net.onnx"}


def test_a_benchmark_that_fails_is_a_note(call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.errors import OptionError
    from onnxprune.latency import benchmark

    def fail(*args: object, **kwargs: object) -> None:
        raise OptionError("does not run with guessed sizes")

    monkeypatch.setattr(benchmark, "benchmark", fail)
    done = call("prune", model, "-o", model.parent / "out.onnx")
    assert done.status == 0
    assert "note: latency was not measured: does not run with guessed sizes" in done.out


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
    assert (done.status, complaints(done)) == (0, "")
    assert "removed without loss: 2 dead, 19 constant, 3 duplicated\n" in done.out
    assert "surgery exact: 1 output" in done.out
    assert "(lossless == original)" in done.out
    assert {tuple(t.dims) for t in onnx.load(out).graph.initializer} == {(8, 3, 3, 3), (8, 8, 1, 1)}
    done = call("prune", wasteful, "-o", out, "--lossless", "--align", "16", "--force", "--no-benchmark", "--json")
    found = done.json()
    assert found["lossless"]["kept"] == 8  # sixteen remain
    assert found["lossless"]["check"]["ok"] is True
    assert found["requested"] == "lossless"


def test_lossless_before_a_target(call: Cli, wasteful: Path) -> None:
    out = wasteful.parent / "out.onnx"
    wanted = ("--lossless", "--target", "macs=0.2", "--align", "1", "--no-benchmark")
    done = call("prune", wasteful, "-o", out, *wanted)
    assert (done.status, complaints(done)) == (0, "")
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


# Plans.


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from onnxprune.driver import prune

    path = tmp_path_factory.mktemp("plan") / "net.onnx"
    onnx.save(net(), path)
    chosen, analysis = prune.make_plan(path)
    return chosen.to_dict(analysis.coupling)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("plan.json", "no such file")),
        (b"no", ("plan.json", "not JSON")),
        (b"\xff\xfe\x00", ("plan.json", "not JSON")),
        (b"[1]", ("not a plan",)),
        (b"{}", ("not a plan",)),
        (json.dumps({"format": PLAN_FORMAT}).encode(), ("damaged",)),
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
    assert not complaints(call("plan", model, "-o", folder / "plan.json", "--target", "channels=0.5", "--align", "1"))
    other, out = folder / "other.onnx", folder / "out.onnx"
    onnx.save(net(np.ones((32, 3, 3, 3), np.float32)), other)
    warning = f"onnxprune: warning: {other} is not the file that the plan was made for (net.onnx, sha256 "
    done = call("apply", other, folder / "plan.json", "-o", out)
    assert done.status == 0
    assert complaints(done).startswith(warning)
    assert complaints(done).count("\n") == 1
    done = call("apply", other, folder / "plan.json", "-o", out, "--json", "--force")
    assert "is not the file that the plan was made for" in done.json()["notes"][0]
    done = call("verify", other, out, "--plan", folder / "plan.json", "--json")
    assert done.status == 0
    assert complaints(done).startswith(warning)
    assert "is not the file that the plan was made for" in done.json()["notes"][0]
    done = call("apply", model, folder / "plan.json", "-o", out, "--json", "--force")
    assert (complaints(done), done.json()["notes"]) == ("", [])


def test_a_plan_appears_only_with_its_model(call: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.errors import OutputError
    from onnxprune.ir import files

    def full(*args: object) -> None:
        raise OutputError("out.onnx: cannot be written: No space left on device")

    monkeypatch.setattr(files, "save", full)
    done = call("prune", model, "-o", model.parent / "out.onnx", "--plan-out", model.parent / "p.json", "--no-benchmark")
    refused(done, 2, "No space left")
    assert names(model.parent) == {"net.onnx"}


@pytest.mark.parametrize("options", [(), ("--masked",)])
def test_apply_is_proven_and_writes_nothing_that_is_wrong(
    call: Cli, model: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxprune.ir.model import Model
    from onnxprune.ir.weights import Weight
    from onnxprune.passes import MaskSource, Restore

    path, out = model.parent / "plan.json", model.parent / "out.onnx"
    assert call("plan", model, "-o", path, "--target", "channels=0.5", "--align", "1").status == 0
    done = call("apply", model, path, "-o", out, "--json", "--require-proof", *options)
    assert [one["verdict"] for one in done.json()["verification"]["outputs"]] in (["tested"], ["proven"])
    out.unlink()
    restore, mask = Restore.run, MaskSource.run

    def spoilt(model: Model) -> Model:
        found = model.copy()
        found.weights["w1"] = Weight("w1", None, found.weights["w1"].array() * np.float32(1.01))
        return found

    monkeypatch.setattr(Restore, "run", lambda *given: spoilt(restore(*given)))
    if options:

        def masked(*given: Any) -> Any:
            found = mask(*given)
            return dataclasses.replace(found, model=spoilt(found.model))

        monkeypatch.setattr(MaskSource, "run", masked)
    refused(call("apply", model, path, "-o", out, *options), 1, "the plan was not carried out: 'y' differs from the masked")
    assert not out.exists()


@pytest.fixture
def samples(model: Path) -> Path:
    path = model.parent / "samples.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((48, 3, 8, 8)).astype(np.float32))
    return path


def test_a_plan_that_was_made_with_samples_is_repaired_with_them_or_says_so(call: Cli, model: Path, samples: Path) -> None:
    folder = model.parent
    options = ("--target", "channels=0.5", "--align", "1", "--calib", samples)
    pruned, plan, other = folder / "pruned.onnx", folder / "plan.json", folder / "other.json"
    assert call("prune", model, "-o", pruned, "--plan-out", plan, "--no-benchmark", *options).status == 0
    assert call("plan", model, "-o", other, *options).status == 0
    for chosen in (plan, other):
        out = folder / f"{chosen.stem}.onnx"
        done = call("apply", model, chosen, "-o", out, "--calib", samples)
        assert (done.status, complaints(done)) == (0, "")
        assert "repaired 1 layer" in done.out
        assert out.read_bytes() == pruned.read_bytes()
        done = call("apply", model, chosen, "-o", out, "--force")
        assert done.status == 0
        assert complaints(done).count("\n") == 1
        assert "made with samples (samples.npz), and nothing was repaired: --calib DATA repairs as prune does" in done.err
        assert out.read_bytes() != pruned.read_bytes()
    refused(call("apply", model, plan, "-o", folder / "z.onnx", "--masked", "--calib", samples), 2, "--masked with --calib")


def test_verify_proves_the_surgery_of_a_repaired_model(call: Cli, model: Path, samples: Path) -> None:
    folder = model.parent
    out, plan = folder / "out.onnx", folder / "plan.json"
    options = ("--target", "channels=0.5", "--align", "1", "--calib", samples, "--no-benchmark")
    assert call("prune", model, "-o", out, "--plan-out", plan, *options).status == 0
    done = call("verify", model, out, "--plan", plan, "--calib", samples, "--require-proof")
    assert (done.status, complaints(done)) == (0, "")
    assert "(pruned == masked, before repair)\nrepaired since: 2 weights (w2, w2__bias)" in done.out
    assert f"48 samples (--calib {samples}): cosine 0." in done.out
    found = call("verify", model, out, "--plan", plan, "--json").json()
    assert found["repaired"] == ["w2", "w2__bias"]
    assert found["drift"]["source"] == "seeded noise"
    proto = onnx.load(out)
    tensor = next(one for one in proto.graph.initializer if one.name == "w1")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(7), "w1"))
    onnx.save(proto, out)
    done = call("verify", model, out, "--plan", plan)
    assert done.status == 1
    assert "'y' differs from the masked model's" in done.err
    assert "constant 'w1' has other values than it must have" in done.err
