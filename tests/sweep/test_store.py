"""Results are kept whole, and what others changed is not there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from command import external, net
from onnxprune.errors import InputError
from onnxprune.ir import files
from onnxprune.sweep.inputs import Input
from onnxprune.sweep.store import DONE, FAILED, Outcome, Store

KEY = "ab" * 32


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        yield Store(str(tmp_path / "sweep"))
        return
    pytest.importorskip("fsspec", reason="the extra [sweep] is not installed")
    yield Store(f"memory://{uuid.uuid4().hex}/sweep")


def outcome(made: Path, **given: object) -> Outcome:
    fixed = {"key": KEY, "state": DONE, "model": "net.onnx", "settings": {"target": "macs=0.5"}, "report": {"a": [1, 0.5, None]}}
    return Outcome(**{**fixed, "sha256": Input.of_model(made).digest, "nbytes": 3, "seconds": 1.5, **given})  # type: ignore[arg-type]


def test_a_result_comes_back_with_its_model(store: Store, tmp_path: Path) -> None:
    onnx.save(net(), tmp_path / "made.onnx")
    found = outcome(tmp_path / "made.onnx")
    assert store.result(KEY) is None
    assert not store.keys()
    store.publish(found, tmp_path / "made.onnx")
    assert store.result(KEY) == found
    assert list(store.outcomes()) == [found]
    assert (store.keys(), store.models()) == ({KEY}, {found.sha256})
    back = store.fetch_model(found.sha256, tmp_path / "fetched")
    assert back is not None
    assert files.sha256(back) == found.sha256
    assert store.fetch_model("0" * 64, tmp_path / "fetched") is None


def test_a_model_with_data_stays_together(store: Store, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    made = external(tmp_path / "work" / "model.onnx")
    found = outcome(made)
    store.publish(found, made)
    assert store.models() == {found.sha256}
    back = store.fetch_model(found.sha256, tmp_path / "fetched")
    assert back is not None
    assert Input.of_model(back).digest == found.sha256


def test_failures_are_kept_too(store: Store) -> None:
    found = Outcome(KEY, FAILED, "net.onnx", error="no", kind="TargetError", lasting=True)
    store.publish(found)
    assert store.result(KEY) == found


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: content.replace(b"1.5", b"2.5"),
        lambda content: content.replace(KEY.encode(), b"cd" * 32),
        lambda _: b"[]",
        lambda _: b"\xff",
        lambda _: b"[" * 100_000,
        lambda _: json.dumps({"key": KEY, "state": DONE}).encode(),
    ],
)
def test_what_was_changed_is_not_there(damage: object, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "sweep"))
    onnx.save(net(), tmp_path / "made.onnx")
    store.publish(outcome(tmp_path / "made.onnx"))
    path = tmp_path / "sweep" / "results" / "ab" / f"{KEY}.json"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert store.result(KEY) is None
    assert list(store.outcomes()) == []


@pytest.mark.parametrize("given", [{"state": "odd"}, {"sha256": "../../etc"}, {"report": []}, {"seconds": "1"}, {"lasting": 1}])
def test_types_are_checked(given: dict[str, object], tmp_path: Path) -> None:
    onnx.save(net(), tmp_path / "made.onnx")
    assert Outcome.read(outcome(tmp_path / "made.onnx", **given).written()) is None


def test_inputs_are_read_where_they_are_else_from_the_store(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "1.npy").write_bytes(b"1")
    (folder / "2.npy").write_bytes(b"2")
    given = Input.of_samples(str(folder), "--calib")
    store.put_input(given)
    assert store.fetch_input(given, tmp_path / "inputs") == folder
    (folder / "2.npy").write_bytes(b"changed")
    for _ in range(2):
        back = store.fetch_input(given, tmp_path / "inputs")
        assert back != folder
        assert Input.of_samples(str(back), "--calib").digest == given.digest
        (back / "2.npy").write_bytes(b"damaged")
    other = Input.of_samples(str(folder), "--calib")
    (folder / "2.npy").unlink()
    with pytest.raises(InputError, match="is not what it was when the sweep began"):
        store.fetch_input(other, tmp_path / "inputs")


def test_nothing_is_written_outside_of_the_folder(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(b"1")
    given = Input._of(tmp_path / "a" / "b" / "m.onnx", {"../../secret.bin": tmp_path / "secret.bin"})
    store.put_input(given)
    (tmp_path / "secret.bin").unlink()
    with pytest.raises(InputError, match=r"lies outside of its folder, in \.\./\.\./secret\.bin"):
        store.fetch_input(given, tmp_path / "inputs")
    assert not (tmp_path / "secret.bin").exists()


def test_a_model_that_was_changed_is_not_there(store: Store, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    made = external(tmp_path / "work" / "model.onnx")
    found = outcome(made)
    store.publish(found, made)
    store.place.write(f"models/{found.sha256}/net.bin", b"")
    store.place.write(f"models/{found.sha256}/model.bin", b"changed")
    assert store.fetch_model(found.sha256, tmp_path / "fetched") is None


def test_shared_files_and_latencies(store: Store) -> None:
    shelf = store.shared("f" * 64)
    assert shelf.get("curves-1") is None
    shelf.put("curves-1", b"some")
    assert store.shared("f" * 64).get("curves-1") == b"some"
    assert store.shared("e" * 64).get("curves-1") is None
    assert store.latency("0" * 64) == {}
    store.put_latency("0" * 64, {"ms": 1.5})
    assert store.latency("0" * 64) == {"ms": 1.5}
    store.place.write(f"latencies/{'0' * 64}.json", b"[1")
    assert store.latency("0" * 64) == {}
    assert store.asked() == {}
    store.place.write("sweep.json", b'{"asked": {}}')
    assert store.asked() == {"asked": {}}
