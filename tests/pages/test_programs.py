"""The programs of pages are made once, and made anew where what was kept is damaged or cannot be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

library = pytest.importorskip("onnxprune.pages.programs", reason="vl-convert is an extra")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was made so far; a folder for caches that is empty."""
    calls: list[str] = []

    def bundle(snippet: str) -> str:
        calls.append(snippet)
        return "draw ();"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library.vl_convert, "javascript_bundle", bundle)
    return calls


def again() -> Any:
    library.programs.cache_clear()
    try:
        return library.programs()
    finally:
        library.programs.cache_clear()


def test_they_are_kept(made: list[str], tmp_path: Path) -> None:
    assert [again(), again()] == ["draw ();"] * 2
    assert len(made) == 1
    (kept,) = (tmp_path / "onnxprune").iterdir()
    assert library.version("vl-convert-python") in kept.name


def test_what_is_torn_is_made_anew(made: list[str], tmp_path: Path) -> None:
    again()
    (kept,) = (tmp_path / "onnxprune").iterdir()
    for torn in (kept.read_bytes()[:-1], b"", b"\xff" * 99):
        kept.write_bytes(torn)
        assert again() == "draw ();"
    assert len(made) == 4


def test_a_folder_that_cannot_be_written_is_no_error(made: list[str], tmp_path: Path) -> None:
    (tmp_path / "onnxprune").write_text("a file")
    assert [again(), again()] == ["draw ();"] * 2
    assert len(made) == 2
