"""TOML and JSON: read, or refused in one line that says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxprune.errors import OptionError
from onnxprune.options import documents
from onnxprune.options.documents import load_json, load_toml


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[prune]\nalign = 1\n")
    assert load_toml(path) == {"prune": {"align": 1}}
    path.write_text("[prune")
    with pytest.raises(OptionError, match=r"a\.toml: not TOML"):
        load_toml(path)
    with pytest.raises(OptionError, match=r"b\.toml: no such file; beside it are a\.toml"):
        load_toml(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = " + b"[" * 100_000, "too deep"),
        (b"a = " + b"9" * 5000, "digits"),
        (b'a = "\xff"', "utf-8"),
        (b'a = "\x00"', "not TOML"),
        (b'[a]\nb = [{c = "m\\u0000.onnx"}]', "null character"),
        (b'"a\\u0000" = 1', "null character"),
    ],
)
def test_what_is_no_toml(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=words):
        load_toml(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "too deep"),
        (b'{"a":' * 100_000, "too deep"),
        (b"9" * 5000, "digits"),
        (b"[NaN]", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"[1e999]", "1e999 is too large a number"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' stands there twice"),
        (b'"\xff"', "utf-8"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_no_json(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_json(path)


def test_a_file_that_does_not_end_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_LIMIT", 10)
    (tmp_path / "a").write_text("[1, 2, 3]")
    assert load_json(tmp_path / "a") == json.loads("[1, 2, 3]")
    (tmp_path / "a").write_text("[1, 2, 3, 4]")
    with pytest.raises(ValueError, match="more than 10 bytes"):
        load_json(tmp_path / "a")
