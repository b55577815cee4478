"""Where runs are logged."""

from __future__ import annotations

import os
from typing import Annotated
from urllib.parse import urlsplit

from onnxprune.errors import OptionError
from onnxprune.options.fields import Option

__all__ = ["AUTO", "Tracking", "tracking_uri"]

AUTO = "auto"
"""Stands for what the environment names."""
_VARIABLE = "MLFLOW_TRACKING_URI"


def tracking_uri(text: str) -> str:
    """A tracking URI of MLflow, as ``http://localhost:5000``, ``sqlite:///runs.db`` or ``databricks``; ``auto`` stands for the
    one in the environment.

    Raises:
        OptionError: the environment names none, or the URI has a password, which commands and reports would show.
    """
    if text == AUTO:
        if not os.environ.get(_VARIABLE):
            raise OptionError(f"--mlflow {AUTO}: {_VARIABLE} is not set: set it, or write a URI, as http://localhost:5000")
        return os.environ[_VARIABLE]
    try:
        secret = urlsplit(text).password is not None
    except ValueError as error:
        raise OptionError(f"--mlflow {text!r}: is no URI: {error}: write one, as http://localhost:5000") from error
    if secret:
        raise OptionError(f"--mlflow: the URI has a password, which reports would show: set {_VARIABLE} to it, and write {AUTO}")
    return text


Tracking = Annotated[str, Option(metavar="URI", reads=lambda text: tracking_uri(text) if text else None)]
