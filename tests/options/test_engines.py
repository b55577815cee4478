"""Who does the work."""

from __future__ import annotations

from typing import Any

import pytest

from onnxprune.errors import OptionError
from onnxprune.options.engines import ENGINES, EngineOptions


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_defaults(name: str) -> None:
    assert EngineOptions(name).to_dict() == {"engine": name, "workers": 0, "scheduler": "", "threads": 0, "timeout": 0.0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "spark"}, "there is no engine 'spark'; there are local, dask, ray"),
        ({"workers": -1}, "--workers -1: write 0 or more"),
        ({"timeout": -1.0}, "--timeout -1.0: write 0"),
        ({"scheduler": "tcp://host:8786"}, "--scheduler tcp://host:8786: is of a cluster: add --engine dask or --engine ray"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        EngineOptions(**given)
