"""The page of options is that of the options there are."""

from __future__ import annotations

from pathlib import Path

from onnxprune.cli.reference import page

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date() -> None:
    text = (ROOT / "docs" / "options.md").read_text()
    assert text == page(), "run `make options`"
    assert "| `--threads N` | 1 | Threads of each session. In [1, inf). |" in text
    assert "| `obs` | samples |" in text
