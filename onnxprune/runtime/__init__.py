"""Runs models in ONNX Runtime: whole, in partitions, or in stages.

Change here: session options and feeds (`session`), models too large for one session (`partition`), and models run stage by
stage over all samples (`stages`). Times are not taken here but in `onnxprune.latency`.
"""
