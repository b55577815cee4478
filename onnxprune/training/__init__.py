"""Training on the graph: recipes that prune while they train, and the loop that they share.

`session` trains one model and writes it back, `trainer` is the loop, `recipes` has one function for each method, `weights` and
`channels` carry a recipe out on weights or on channels. `data`, `augment`, `devices`, `checkpoint`, `masks`, `batchnorm` and
`evaluate` do what their names say.

Change here: a recipe (`recipes`), or how training runs (`trainer`). Operators and losses are in `onnxprune.torch`.
"""
