"""The memory of the compiler is bounded by one number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxprune.errors import OptionError
from onnxprune.runtime import memory


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2**31), ("512M", 2**29), ("1.5GiB", 3 * 2**29), ("800000", 800000), ("4 kB", 4096), ("1t", 2**40), ("7b", 7)],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert memory.read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1G", "much", "1X", "1e9", "9" * 30, "0.1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="write a number of bytes, as 2G or 512M"):
        memory.read_bytes(text)


def test_the_bound_is_that_of_the_option_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.VARIABLE, "64G")
    memory.bound_memory(None)
    assert 2**35 < (memory.left() or 0) < 2**36  # this process takes some of it
    assert memory.share(8, 2**40) == 2**33
    memory.bound_memory("32G")
    assert memory.share(8, 2**40) == 2**32
    assert memory.share(8, 100) == 100
    memory.bound_memory("1M")
    assert memory.left() == 0
    assert memory.share(8, 2**40) == 2**26  # the least
    monkeypatch.setenv(memory.VARIABLE, "plenty")
    with pytest.raises(OptionError, match="plenty"):
        memory.bound_memory(None)


def test_a_context_bounds_it_and_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    with memory.max_memory("8G"):
        assert memory.share(1, 2**60) == 2**33
        with memory.max_memory(2**40):
            assert memory.share(1, 2**60) == 2**33
        with memory.max_memory(2**32):
            assert memory.share(1, 2**60) == 2**32
        assert memory.share(1, 2**60) == 2**33
    assert not os.environ[memory.VARIABLE]
    with pytest.raises(OptionError, match=r"^max_memory 'much': write"), memory.max_memory("much"):
        pass


def test_what_is_free_is_the_least_of_system_and_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    system = tmp_path / "meminfo"
    system.write_text("MemTotal: 100 kB\nMemAvailable:  50 kB\n")
    monkeypatch.setattr(memory, "_SYSTEM", system)
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert memory.left() == 50 * 1024
    (tmp_path / "memory.max").write_text("40960\n")
    (tmp_path / "memory.current").write_text("10240\n")
    assert memory.left() == 30720
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.left() == 50 * 1024
    system.unlink()
    assert memory.left() is None
    _forget()
    assert memory.share(8, 2**40) == memory.spare(8, 2**40) == 2**40
    _forget()


def _forget() -> None:
    memory._free_at_first.cache_clear()
    memory._in_machine.cache_clear()


def test_results_do_not_depend_on_what_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    found = set()
    for free in (2**30, 2**34):
        (tmp_path / "meminfo").write_text(f"MemTotal: {2**34 // 1024} kB\nMemAvailable: {free // 1024} kB\n")
        _forget()
        found.add((memory.share(8, 2**40), memory.batch_bytes()))
        assert memory.spare(8, 2**40) == free // 8
    assert found == {(2**31, 2**28)}
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    _forget()
    assert memory.share(8, 2**40) == memory.batch_bytes() == 2**27
    _forget()
