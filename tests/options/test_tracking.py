from __future__ import annotations

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.commands import Run
from onnxprune.options.tracking import AUTO, tracking_uri


@pytest.mark.parametrize(
    "uri", ["http://localhost:5000", "https://me@host/path", "sqlite:///runs.db", "databricks", "file:///tmp/x"]
)
def test_a_uri_is_taken_as_it_is(uri: str) -> None:
    assert tracking_uri(uri) == uri


def test_auto_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host")
    assert tracking_uri(AUTO) == "http://me:secret@host"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(OptionError, match="MLFLOW_TRACKING_URI is not set: set it, or write a URI"):
        tracking_uri(AUTO)


@pytest.mark.parametrize("uri", ["http://me:secret@host:5000", "postgresql://me:secret@host/db"])
def test_a_password_is_neither_taken_nor_told(uri: str) -> None:
    with pytest.raises(OptionError, match=r"has a password.* write auto") as told:
        Run(recipe="r.toml", mlflow=uri)  # type: ignore[arg-type]
    assert "secret" not in str(told.value)


def test_what_is_no_uri_is_refused() -> None:
    with pytest.raises(OptionError, match="is no URI"):
        tracking_uri("http://[::1")
