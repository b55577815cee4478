from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxprune.errors import OptionError
from onnxprune.runtime import threads as module
from onnxprune.runtime.session import session_options
from onnxprune.runtime.threads import VARIABLE, available, bound, threads

PYTORCH = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
BLAS = "OPENBLAS_NUM_THREADS"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, *PYTORCH, BLAS):
        monkeypatch.setenv(name, "")  # put back at the end, whatever the test sets
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("text", "cores"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("no quota", 8)])
def test_a_quota_bounds_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, cores: int) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text, "ascii")
    monkeypatch.setattr(module, "_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available() == cores


def test_one_number_bounds_every_library() -> None:
    bound(3)
    assert {os.environ[name] for name in PYTORCH} == {"3"}
    assert os.environ[BLAS] == "1"  # it gets pieces
    assert threads() == session_options().intra_op_num_threads == 3


def test_what_the_environment_says_of_a_library_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(BLAS, "2")
    bound()
    assert os.environ[BLAS] == "2"
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["MKL_NUM_THREADS"] == str(available())


def test_sessions_that_are_not_timed_do_not_spin() -> None:
    from onnxprune.runtime.session import _cpu_options

    options = _cpu_options(optimize=True)
    for pool in ("intra_op", "inter_op"):
        assert options.get_session_config_entry(f"session.{pool}.allow_spinning") == "0"


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "99999999"])
def test_a_number_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(OptionError, match="ONNXPRUNE_THREADS"):
        threads()
