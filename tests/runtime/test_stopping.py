"""Runs that are ended from another thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nets import NETS, parse
from onnxprune.ir.model import Model
from onnxprune.runtime.session import Session
from onnxprune.runtime.stopping import allow_runs, end_runs


def test_runs_end_until_they_are_allowed_again() -> None:
    session, x = Session(Model.of(parse(NETS["flatten"]))), {"x": np.ones((2, 3, 4, 4), np.float32)}
    (expected,) = session.run(x)
    thread = threading.Thread(target=end_runs)
    thread.start()
    thread.join()
    try:
        with pytest.raises(Exception, match="terminate flag"):  # onnxruntime derives its exceptions from Exception alone
            session.run(x)
    finally:
        allow_runs()
    np.testing.assert_array_equal(session.run(x)[0], expected)
