"""Which weights are zero: patterns, methods, and how sparse each layer becomes.

`layers` lists the weights that may be sparse, `patterns` what may be kept together, `selection` and `solve` choose and refit
(`fit` is the least squares), `allocation` and `curves` share a sparsity out over layers, `permute` moves channels for N:M.
How zeros are stored is `onnxprune.sparse.encoding`.

Change here: a pattern (`patterns`) or a method (`selection`).
"""
