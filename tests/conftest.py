"""Fixtures for every test: the same draws on every run, one thread per session, optional local data."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it; subprocesses inherit it

import onnxruntime as ort
import pytest
from hypothesis import settings

from onnxprune.errors import OnnxPruneError
from onnxprune.runtime.custom_operators import custom_operators

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
settings.load_profile("ci")

OnnxPruneError.wording = str  # messages name flags, whichever test comes first


def _one_thread(init: Callable[..., None]) -> Callable[..., None]:
    """InferenceSession.__init__ with one thread unless the caller asks for more: test processes share few cores."""

    def wrapper(self: Any, model: Any, sess_options: Any = None, *args: Any, **kwargs: Any) -> None:
        options = sess_options or ort.SessionOptions()
        options.intra_op_num_threads = options.intra_op_num_threads or 1
        init(self, model, options, *args, **kwargs)

    return wrapper


ort.InferenceSession.__init__ = _one_thread(ort.InferenceSession.__init__)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--custom-ops", action="append", default=[], help="a library of operators of an installed package of rules")


def pytest_configure(config: pytest.Config) -> None:
    stack = contextlib.ExitStack()
    stack.enter_context(custom_operators(*config.getoption("--custom-ops")))
    config.add_cleanup(stack.close)


@pytest.fixture(scope="session")
def foo_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the operator ``my.domain::Foo``, compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("foo") / "libfoo.so"
    source = ROOT / "docs" / "extending" / "foo.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    return library


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Look up a file of the optional local data: `shared("zoo/resnet18.onnx.gz")` is its path, or skips the test."""
    folder = Path(os.environ.get("ONNXPRUNE_DATA") or ROOT.parent / "shared")

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip("optional local data is absent")
        return path

    return find


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
