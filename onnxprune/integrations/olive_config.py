"""Makes our passes known to Olive: ``python -m onnxprune.integrations.olive_config > passes.json``.

``olive run --package-config passes.json`` knows the passes in that file and no others: so those of Olive are in it, too, where it
is installed.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["PATH", "package_config"]

PATH = Path(__file__).with_suffix(".json")
"""A package config with our passes alone."""


def package_config() -> dict[str, Any]:
    """A package config with our passes, and with those of Olive where it is installed."""
    found = find_spec("olive")
    folders = (found.submodule_search_locations or []) if found else []
    places = [Path(folder, "olive_config.json") for folder in folders]
    known: dict[str, Any] = next((json.loads(path.read_text("utf-8")) for path in places if path.is_file()), {})
    return {**known, "passes": {**known.get("passes", {}), **json.loads(PATH.read_text("utf-8"))["passes"]}}


if __name__ == "__main__":
    print(json.dumps(package_config(), indent=1))  # noqa: T201 - it is a command
