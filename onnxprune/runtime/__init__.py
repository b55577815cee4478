"""Runs models in ONNX Runtime: whole, in partitions, or in stages.

Change here: session options and feeds (`session`), models too large for one session (`partition`), models run stage by stage
over all samples (`stages`), libraries of custom operators (`custom_operators`), and work in other processes (`engines`).
Times are not taken here but in `onnxprune.latency`.
"""

import os

# From 1.31 on ONNX Runtime opens a database of telemetry in the user's cache when it is imported, unless this is set.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
