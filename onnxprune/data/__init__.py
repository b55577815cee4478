"""Samples: read from any form, and made into batches that a model takes.

`sources` reads files, folders, functions and arrays; `preprocess` turns images into arrays; `batching` makes batches that fit
a model's inputs; `samples` puts these together; `noise` is for when there are no samples; `calibration` holds the batches that
statistics, sensitivity and repair go through.

Change here: a new form of samples (`sources`), or how images are prepared (`preprocess`).
"""
