"""The choice of the weights that become zero: patterns, methods, and the share of each layer.

`layers` lists the weights that may be sparse, `patterns` which of them may be kept together, `selection` and `solve` choose and
refit (`fit` is the least squares), `allocation` and `curves` share a sparsity out over layers, `permute` moves channels for N:M.
How zeros are stored is `onnxprune.sparse.encoding`.

Change here: a pattern (`patterns`) or a method (`selection`).
"""
