"""The memory of the compiler is bounded by one number."""

from __future__ import annotations

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
    memory._free_at_first.cache_clear()
    assert memory.share(8, 2**40) == 2**40
    memory._free_at_first.cache_clear()
