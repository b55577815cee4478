"""Functions that users name: where they are looked for, and what is said if they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.functions import load_named


def test_a_function_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # takes it back
    (tmp_path / "named_by_a_user.py").write_text("class Inner:\n    def f(): return 7\n")
    assert load_named("named_by_a_user:Inner.f", "--x")() == 7
    with pytest.raises(OptionError, match=r"^--x a: named_by_a_user has no Inner\.g: write package\.module:function$"):
        load_named("named_by_a_user:Inner.g", "--x a")


def test_the_line_at_fault_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_by_a_user.py").write_text("\nraise KeyError('a')\n")
    with pytest.raises(OptionError, match=r"--x b: .* cannot be imported: KeyError: 'a' at .*broken_by_a_user\.py:2$"):
        load_named("broken_by_a_user:f", "--x b")
