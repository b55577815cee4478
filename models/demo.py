"""Run `onnxprune demo` into build/demo; `make demo` runs this."""

from __future__ import annotations

import sys
from pathlib import Path

from onnxprune.cli import main

OUT = Path(__file__).resolve().parent.parent / "build" / "demo"

if __name__ == "__main__":
    sys.argv = ["onnxprune", "demo", "-o", str(OUT), "--force", *sys.argv[1:]]
    main()
